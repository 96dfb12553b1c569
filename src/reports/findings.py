"""What the tables of one evaluation amount to, in sentences: the answer, warnings, limitations."""

from itertools import pairwise

import pandas as pd

from src.measures.run_scores import base_of
from src.reports.format import count, interval_text, number
from src.reports.results import ALL, OTHER_SPLITS, Results, mean_over_seeds, pgr_cells

BEYOND = {"length_only": "length", "tfidf": "words"}
"""What a baseline goes by."""
FEW_METHODS = 4
"""More make no sentence: the first one, which others are held against, stands for them."""
ENOUGH_PAIRS = 10_000
"""Below so many test pairs a gap of a few points gives no usable PGR."""


def answer(pgr: pd.DataFrame) -> str:
    """What share of the gap was recovered with each method, and where that is undefined.

    Args:
        pgr: rows of pgr.csv, cells and totals.
    """
    cells = pgr_cells(pgr)
    if not len(cells):
        return "No student has been scored beside its teacher and its ceiling: there is no PGR."
    shares, unclear, undefined = [], [], {}
    methods = list(dict.fromkeys(cells.method))
    named = methods if len(methods) <= FEW_METHODS else methods[:1]
    for method, own in cells[cells.method.isin(named)].groupby("method", sort=False):
        undefined[method] = f"{(own.status != 'ok').sum()} of {len(own)}"
        total = pgr[(pgr.teacher == ALL) & (pgr.student == ALL) & (pgr.method == method)]
        if not len(total) and len(own) > 1:
            unclear.append(f"With {method}, no seed has all cells: there is no common share.")
            continue
        row = next((total if len(total) else own).itertuples())
        if row.status == "ok" and row.pgr < 0:
            unclear.append(f"With {method}, students end below their teachers: {_percent(row)} of "
                           "the gap.")
        elif row.status == "ok":
            shares.append(f"{_percent(row)}{'' if shares else ' of the gap'} with {method}")
        elif row.gap_high < 0:
            unclear.append(f"With {method}, the ceiling is below the teacher, and there is nothing "
                           f"to recover: {points(row, 'gap')} points.")
        else:
            unclear.append(f"With {method}, the gap is too near 0, or too uncertain, to say what "
                           "share of it was recovered: "
                           f"{points(row, 'gap')} points.")
    recovered = [f"Students recovered {listed(shares)}."] if shares else []
    if named == methods:
        return " ".join([*recovered, *unclear, f"{_undefined(undefined)}."])
    return " ".join([*recovered, *unclear, f"The table below has {len(methods) - 1} more methods.",
                     f"PGR is undefined in {(cells.status != 'ok').sum()} of {len(cells)} cells."])


def _percent(row: object) -> str:
    """`39% [22, 48]`."""
    share, low, high = (100 * getattr(row, name) for name in ("pgr", "pgr_low", "pgr_high"))
    return f"{number(share, 0)}% {interval_text(low, high, 0)}".strip()


def listed(parts: list[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _undefined(cells: dict[str, str]) -> str:
    """How many cells of each method have no PGR."""
    if len(set(cells.values())) == 1:
        count, each = next(iter(cells.values())), " with each method" if len(cells) > 1 else ""
        return f"PGR is undefined in {count} cells{each}"
    return "PGR is undefined in " + listed([f"{count} cells with {method}"
                                             for method, count in cells.items()])


def points(row: object, name: str) -> str:
    """A gain or gap in points of accuracy, signed, with its interval."""
    value, low, high = (100 * getattr(row, name + end) for end in ("", "_low", "_high"))
    return f"{number(value, 1, signed=True)} {interval_text(low, high, 1)}".strip()


def baseline_notes(models: pd.DataFrame) -> pd.Series:
    """Per row of `mean_over_seeds`: what the rules that it does not beat go by, in words.

    Empty where it beats them all. Where there is no
    baseline row, the model's own `length_only` column stands for it. What a base knows untrained is
    no rule that a model could have learnt in its stead.
    """
    rules = models[(models.role == "baseline") & models.name.isin(list(BEYOND))]
    baselines = rules.set_index("name").accuracy

    def note(row: pd.Series) -> str:
        if row.role == "baseline":
            return ""
        known = {"length_only": row.length_only, **baselines}
        below = [BEYOND[name] for name, value in known.items() if row.accuracy <= value]
        return f"has learnt nothing beyond {' and '.join(below)}" if below else ""

    return models.apply(note, axis=1) if len(models) else pd.Series(dtype=str)


def limitations(results: Results) -> list[str]:
    """What the reader must hold against the numbers, from the tables and meta.json."""
    meta, cells = results.meta, results.cells
    seeds = max(results.seeds_of_rows, default=1)
    found = []
    if results.contamination:
        found.append(f"These numbers are {results.contamination}. "
                     f"{OTHER_SPLITS[meta['split']][1]}")
    if seeds == 1:
        found.append("One seed: intervals cover the choice of test prompts, not the randomness of "
                     "training, which commonly moves an accuracy by a point or two.")
    elif seeds < 5:
        found.append(f"{seeds} seeds: how far seeds differ is itself known only roughly, so "
                     "the seeds' share of the intervals is rough as well.")
    pairs = meta.get("n_pairs")
    if pairs and pairs < ENOUGH_PAIRS:
        found.append(f"{count(pairs)} pairs, fewer than the {ENOUGH_PAIRS:,} that gaps of a few "
                     "points call for: read gain and gap before PGR.")
    undefined = (cells.status != "ok").sum()
    if undefined:
        found.append(f"PGR is undefined for {undefined} of {len(cells)} cells, whose gap has an "
                     f"interval that holds 0 or is below {meta.get('pgr_floor', 0.03):g}. They "
                     "are shown as such; nothing is filled in.")
    if len(cells) > 1:
        found.append(f"The intervals of the {len(cells)} cells are not corrected for looking at "
                     "many: judge single cells by the pattern around them.")
    return [*found, *_ladder_breaks(results), *_missing_seeds(results),
            *(f"{note}" for note in meta.get("notes", []))]


def _ladder_breaks(results: Results) -> list[str]:
    """Where more layers did not help with ground truth, so that `weak` and `strong` mean little."""
    models = mean_over_seeds(results.accuracy)
    ceilings = models[models.role == "ceiling"].sort_values("layers", kind="stable")
    breaks = [f"{low.name} ({number(low.accuracy)}) to {high.name} ({number(high.accuracy)})"
              for _, rungs in ceilings.groupby(ceilings.name.map(base_of), sort=False)
              for low, high in pairwise(rungs.itertuples(index=False))
              if high.layers > low.layers and high.accuracy < low.accuracy]
    if not breaks:
        return []
    return [f"The ceilings do not rise from {', '.join(breaks)}: there the stronger rung is not "
            "the better one."]


def _missing_seeds(results: Results) -> list[str]:
    """Cells that were not run with every seed."""
    wanted = " ".join(f"{seed}" for seed in sorted(results.meta.get("seeds", [])))
    short = results.cells[results.cells.seeds != wanted]
    if not len(short):
        return []
    cells = "; ".join(f"{row.teacher} to {row.student} with {row.method}: {row.seeds or '-'}"
                      for row in short.itertuples())
    return [f"Not every cell has seeds {wanted or '-'}: {cells}."]
