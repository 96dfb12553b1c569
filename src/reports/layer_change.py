"""What can be said of layers that moved: the claim with its interval, tables, the page."""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.common.console import table_lines
from src.reports.document import Bullets, Element, Heading, Picture, Table, sources
from src.reports.figures.style import Drawn
from src.reports.format import estimate, model_name, number

FILES = [("layers.csv", "one row a model and layer: 1 - CKA, 1 - cosine, relative weight change"),
         ("depth.csv", "one row a model and measure: slope over depth, rank correlation")]
DEPTH_COLUMNS = ["model", "measure", "deeper changes more", "trained layers", "slope", "rank",
                 "seeds"]
LAYER_COLUMNS = ["model", "layer", "states", "direction", "weights", "seeds"]


def statements(depth: pd.DataFrame) -> list[str]:
    """By each measure: in how many models deeper layers changed more."""
    said = []
    for measure, own in depth.groupby("measure", sort=False):
        counts = own.deeper_changes_more.value_counts()
        said.append(f"By {measure}, deeper layers changed more in {counts.get('yes', 0)} of "
                    f"{len(own)} models, less in {counts.get('no', 0)}, not told in "
                    f"{counts.get('not told', 0)}.")
    return said


def depth_rows(depth: pd.DataFrame) -> list[list[str]]:
    return [[model_name(row), row.measure, row.deeper_changes_more, f"{row.trained_layers}",
             estimate(row, "slope"), number(row.rank, 2), row.seeds]
            for row in depth.itertuples()]


def layer_rows(layers: pd.DataFrame) -> list[list[str]]:
    return [[model_name(row), f"{row.layer}",
             *(estimate(row, name) for name in ("states", "direction", "weights")), row.seeds]
            for row in layers.itertuples()]


def blocks(layers: pd.DataFrame, depth: pd.DataFrame, drawn: Sequence[Drawn],
           facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    return [
        Bullets(statements(depth)), *map(Picture, drawn),
        Heading("Do deeper layers change more?"),
        Table("Slope: how much more the last layer changed than the first that trained, on a "
              "straight line over depth; layers below those could not change. Rank: Spearman's "
              "correlation with depth. Means over seeds with Student's intervals; yes or no where "
              "that of the slope excludes 0.",
              DEPTH_COLUMNS, depth_rows(depth), words=3),
        Heading("Every layer"),
        Table("States: 1 - linear CKA; direction: 1 - mean cosine; weights: |change| / |weights| "
              "of the layer. Hidden states at the last token of held-out answers.",
              LAYER_COLUMNS, layer_rows(layers), words=1),
        *sources(facts, FILES)]


def console(depth: pd.DataFrame) -> list[str]:
    """The table, and the sentences."""
    return [*table_lines(DEPTH_COLUMNS, depth_rows(depth), 3), "", *statements(depth)]
