"""What every figure shares: palette, page layout in inches, direct labels, header, file writing.

Figures are laid out in inches and not by a solver, so that two rungs and ten look alike and the
same tables give the same bytes.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.common.files import atomic_path
from src.reports.format import count
from src.reports.results import Results

INK, QUIET, FAINT = "#1f2328", "#6a737d", "#d5d9de"
TEACHER, CEILING, WARNING = "#b3700a", "#1f2328", "#b3261e"
METHODS = ("#0072b2", "#cc4c02", "#00845f", "#a3498b", "#4a9fd0", "#7a7a00")
"""Okabe and Ito's colour-blind-safe hues, darkened to stand on white as text."""
MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 8, "axes.edgecolor": QUIET,
    "axes.labelcolor": INK, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y",
    "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.color": QUIET, "ytick.color": QUIET,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "text.color": INK, "legend.frameon": False, "legend.fontsize": 8, "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "svg.hashsalt": "weak-to-strong", "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Drawn:
    """A figure on disk and, for a page that stands alone, as SVG."""

    path: Path
    svg: bytes
    title: str
    caption: str


@dataclass(frozen=True)
class Margins:
    """Inches around the panels; the header's and the footer's own height is added to them."""

    left: float = 0.6
    right: float = 0.2
    top: float = 0.3
    bottom: float = 0.5


def panel_grid(panels: int, columns: int, size: tuple[float, float], gap: tuple[float, float],
               title: str, footer: str, results: Results,
               margins: Margins = Margins()) -> tuple[Figure, list[Axes]]:
    """A titled figure of `panels` equal axes in rows of at most `columns`.

    Args:
        size: width and height of one panel, inches.
        gap: inches between panels, across and down.
        footer: how to read the figure; split, pairs, prompts and seeds are put before it.
    """
    return page(panels, columns, size, gap, title, f"Scored on {provenance(results)}. {footer}",
                results.contamination, margins)


def page(panels: int, columns: int, size: tuple[float, float], gap: tuple[float, float],
         title: str, footer: str, mark: str = "",
         margins: Margins = Margins()) -> tuple[Figure, list[Axes]]:
    """`panel_grid` for what is no experiment's results.

    Args:
        footer: what was scored and how to read the figure.
        mark: the contamination mark, or empty.
    """
    columns = min(columns, panels)
    rows = -(-panels // columns)
    width = page_width(panels, columns, size, gap, margins)
    notes = _wrap(footer, width, 8)
    head = _header_lines(title, mark, width)
    above = 0.16 + sum(height for _, _, height in head)
    below = 0.18 + 0.15 * len(notes)
    height = above + margins.top + rows * size[1] + (rows - 1) * gap[1] + margins.bottom + below
    figure = Figure(figsize=(width, height))
    _write_header(figure, head, width, height)
    for line, text in enumerate(notes):
        figure.text(0.12 / width, (below - 0.15 * (line + 1)) / height, text, fontsize=7.5,
                    color=QUIET, va="baseline")
    axes = []
    for index in range(panels):
        row, column = divmod(index, columns)
        x = margins.left + column * (size[0] + gap[0])
        y = height - above - margins.top - (row + 1) * size[1] - row * gap[1]
        axes.append(figure.add_axes((x / width, y / height, size[0] / width, size[1] / height)))
    return figure, axes


def page_width(panels: int, columns: int, size: tuple[float, float], gap: tuple[float, float],
               margins: Margins) -> float:
    """Inches that a `page` is wide."""
    columns = min(columns, panels)
    inner = columns * size[0] + (columns - 1) * gap[0]
    return max(margins.left + inner + margins.right, 5.6)


def provenance(results: Results) -> str:
    """Data, split, pairs, prompts and the seeds that have run in one line."""
    meta, seeds = results.meta, results.seeds
    parts = [meta.get("data") or meta["experiment"], f"split {meta['split']}",
             f"n = {count(meta.get('n_pairs'))} pairs of {count(meta.get('n_prompts'))} prompts",
             f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds) or '-'}"]
    if meta.get("dequantised"):
        parts.append(f"weights of {', '.join(meta['dequantised'])} dequantised")
    return ", ".join(parts)


def _wrap(text: str, width: float, size: float) -> list[str]:
    """Lines that fit `width` inches less the margins, at about 0.56 em a letter."""
    return textwrap.wrap(text, int((width - 0.24) * 72 / (size * 0.54)))


def _header_lines(title: str, mark: str, width: float) -> list[tuple[str, bool, float]]:
    """(text, whether it is the contamination mark, height in inches) per line, top down."""
    lines = [(line, False, 0.21) for line in _wrap(title, width, 12)]
    return lines + [(line, True, 0.27) for line in _wrap(mark, width, 11)]


def _write_header(figure: Figure, lines: list[tuple[str, bool, float]], width: float,
                  height: float) -> None:
    y = height - 0.08
    for text, is_mark, line_height in lines:
        y -= line_height
        style = {"fontsize": 8.5, "color": "white", "bbox": {
            "boxstyle": "square,pad=0.35", "facecolor": WARNING, "edgecolor": "none"}}
        plain = {"fontsize": 10.5, "color": INK}
        figure.text((0.16 if is_mark else 0.12) / width, y / height, text, fontweight="bold",
                    va="baseline", **(style if is_mark else plain))


def spread(targets: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions nearest to `targets` (least squares) that are `gap` apart and within [low, high].

    Pool-adjacent-violators on the targets less the room that the labels before them need.
    """
    order = np.argsort(targets, kind="stable")
    room = gap * np.arange(len(order))
    blocks: list[tuple[float, int]] = []
    for target in np.asarray(targets, float)[order] - room:
        mean, size = target, 1
        while blocks and blocks[-1][0] > mean:
            before, count_before = blocks.pop()
            mean = (mean * size + before * count_before) / (size + count_before)
            size += count_before
        blocks.append((mean, size))
    values = np.concatenate([np.full(size, mean) for mean, size in blocks] or [np.zeros(0)])
    top = max(low, high - room[-1]) if len(room) else high
    placed = np.empty(len(order))
    placed[order] = np.clip(values, low, top) + room
    return placed


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at the right edge of a panel, moved apart where they would overlap.

    Args:
        labels: (y in data units, text, colour); call once the y limits are final.
    """
    figure = axes.figure
    inches = axes.get_position().height * figure.get_figheight()
    aside = 0.13 / (axes.get_position().width * figure.get_figwidth())
    bottom, top = axes.get_ylim()
    targets = [(y - bottom) / (top - bottom) * inches for y, _, _ in labels]
    for (y, text, colour), place in zip(labels, spread(targets, 0.135, 0.02, inches - 0.02),
                                        strict=True):
        axes.annotate(text, xy=(1, (y - bottom) / (top - bottom)), xycoords="axes fraction",
                      xytext=(1 + aside, place / inches), textcoords="axes fraction", fontsize=7.5,
                      color=colour, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5,
                                  "alpha": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)})


def panel_title(axes: Axes, name: str, below: str, colour: str) -> None:
    """A panel's name in bold and a plain line under it, both over the panel."""
    axes.set_title(name, pad=15)
    axes.annotate(below, (0, 1), (0, 4), "axes fraction", "offset points", fontsize=7.5,
                  color=colour)


def depth_colours(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """One colour a rung, light to dark is not read as good to bad: weak purple to strong green."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.82, max(len(names), 2)))
    return {name: tuple(shade) for name, shade in zip(names, shades, strict=False)}


def save(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Drawn:
    """Write `folder/name.png` at 160 dpi, atomically, and return it with its SVG."""
    path = folder / f"{name}.png"
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=160)
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawn(path, svg.getvalue(), title, caption)
