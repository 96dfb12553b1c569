"""A report as a list of blocks, and the two ways to write it: Markdown and one HTML page.

Both say the same: a block is plain text and numbers, and neither writer adds or drops any.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from src.reports.document_style import CSS
from src.reports.figures.style import Drawn
from src.reports.format import UNDEFINED
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


Block = Heading | Text | Bullets | Table | Picture | Example


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """GitHub-flavoured Markdown; figures are linked in the folder `figures`."""
    return "\n\n".join([f"# {_md(title)}", *(_block_md(block) for block in blocks)]) + "\n"


def _block_md(block: Block) -> str:
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


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page that needs no network and no script: styles and figures are inside."""
    contents = "".join(f'<a href="#{_anchor(block.text)}">{html.escape(block.text)}</a>'
                       for block in blocks if isinstance(block, Heading))
    body = "\n".join(_block_html(block) for block in blocks)
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{html.escape(title)}</h1>\n<nav>{contents}</nav>\n{body}\n"
            f"</main>\n</body>\n</html>\n")


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _block_html(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'
        case Text(text, kind):
            return f'<p class="{kind}">{_inline(text)}</p>'
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_item_html(item)}</li>' for item in items)}</ul>"
        case Table():
            return _table_html(block)
        case Picture(figure):
            data = base64.b64encode(figure.svg).decode()
            return (f'<figure><div class="frame"><img alt="{html.escape(figure.title)}" '
                    f'src="data:image/svg+xml;base64,{data}"></div>'
                    f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>")
        case Example(title, parts):
            texts = "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd>"
                            for label, text in parts)
            return f'<div class="example"><p>{html.escape(title)}</p><dl>{texts}</dl></div>'


def _inline(text: str) -> str:
    """Escaped text whose intervals do not break over lines."""
    return re.sub(r"(\[[^\]]*\])", r'<span class="interval">\1</span>', html.escape(text))


def _item_html(item: str | tuple[str, str]) -> str:
    if isinstance(item, str):
        return html.escape(item)
    name, description = map(html.escape, item)
    return f'<a href="{name}">{name}</a>: {description}'


def _table_html(table: Table) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        kind = "" if index < table.words else "number"
        if text.startswith("! "):
            kind = f"{kind} flagged".strip()
        elif text == UNDEFINED:
            kind = f"{kind} undefined".strip()
        return f'<{tag} class="{kind}">{_inline(text)}</{tag}>' if kind else (
            f"<{tag}>{_inline(text)}</{tag}>")

    def line(tag: str, cells: Sequence[str]) -> str:
        total = ' class="total"' if cells[0] == ALL else ""
        return (f"<tr{total}>"
                + "".join(cell(tag, index, text) for index, text in enumerate(cells)) + "</tr>")

    caption = f'<p class="caption">{html.escape(table.caption)}</p>' if table.caption else ""
    rows = "\n".join(line("td", row) for row in table.rows)
    return (f'{caption}<div class="scroll"><table><thead>{line("th", table.columns)}</thead>\n'
            f"<tbody>{rows}</tbody></table></div>")
