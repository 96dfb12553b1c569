"""A report as a list of elements, and the two ways to write it: Markdown and one HTML page.

Both say the same: an element is plain text and numbers, and neither writer adds or drops any.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from src.reports.figures.style import Drawn
from src.reports.format import MISSING, UNDEFINED
from src.reports.results import ALL


@dataclass(frozen=True)
class Heading:
    """A section; its anchor is its words joined by hyphens."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph. `kind` is plain, lead (the answer) or warning."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list; an item may be a (file name, description) pair, which becomes a link."""

    items: Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of text. `words` counts the left-aligned columns; those after it hold numbers. A cell
    that begins with `! ` is a warning."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure with its caption."""

    figure: Drawn


@dataclass(frozen=True)
class Example:
    """A case with its texts, which are shown as they stand: a title and (label, text) parts."""

    title: str
    parts: Sequence[tuple[str, str]]


Element = Heading | Text | Bullets | Table | Picture | Example


def sources(facts: Mapping[str, str], files: Sequence[tuple[str, str]]) -> list[Element]:
    """The end of a page: what it was made from, and the files beside it."""
    rows = [[name, value or MISSING] for name, value in facts.items()]
    return [Heading("Made from"), Table("", ["fact", "value"], rows, words=2),
            Heading("Files"), Bullets(files)]


def to_markdown(title: str, blocks: Sequence[Element]) -> str:
    """GitHub-flavoured Markdown; figures are linked in the folder `figures`."""
    return "\n\n".join([f"# {_md(title)}", *(_block_md(block) for block in blocks)]) + "\n"


def _block_md(block: Element) -> str:
    match block:
        case Heading(text):
            return f"## {_md(text)}"
        case Text(text, kind):
            marked = {"plain": "{}", "lead": "**{}**", "warning": "> **{}**"}[kind]
            return marked.format(_md(text))
        case Bullets(items):
            return "\n".join(f"- {_md(item)}" if isinstance(item, str) else
                             f"- [{_md(item[0])}]({item[0]}): {_md(item[1])}" for item in items)
        case Table(caption, columns, rows, words):
            rule = ["---"] * words + ["---:"] * (len(columns) - words)
            lines = [columns, rule, *rows]
            table = "\n".join(f"| {' | '.join(_md(cell) for cell in line)} |" for line in lines)
            return f"{_md(caption)}\n\n{table}" if caption else table
        case Picture(figure):
            return (f"![{_md(figure.title)}](figures/{figure.path.name})\n\n"
                    f"*{_md(figure.caption)}*")
        case Example(title, parts):
            return "\n\n".join([f"**{_md(title)}**", *(
                f"{_md(label)}:\n\n{_quoted(text)}" for label, text in parts)])


def _quoted(text: str) -> str:
    """Text as a block of code: nothing in it is read as Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _md(text: str) -> str:
    """Text that Markdown shows as it is, within tables as well."""
    return re.sub(r"([|<*`])", r"\\\1", text)


def to_html(title: str, blocks: Sequence[Element]) -> str:
    """One page that needs no network and no script, by templates/page.html.jinja."""
    page = _ENVIRONMENT.get_template("page.html.jinja")
    return page.render(title=title, blocks=[(type(block).__name__, block) for block in blocks],
                       all=ALL, undefined_word=UNDEFINED)


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _intervals(text: str) -> Markup:
    """Escaped text whose intervals do not break over lines."""
    return Markup(re.sub(r"(\[[^\]]*\])", r'<span class="interval">\1</span>', str(escape(text))))


def _svg_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


_ENVIRONMENT = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"),
                           autoescape=select_autoescape(["html.jinja"]), trim_blocks=True,
                           lstrip_blocks=True, undefined=StrictUndefined)
_ENVIRONMENT.filters |= {"anchor": _anchor, "intervals": _intervals, "svg_uri": _svg_uri}
