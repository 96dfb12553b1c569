"""The report's sections: tables of one evaluation -> blocks of a document."""

import pandas as pd

from src.reports import best_ceiling, methods
from src.reports.document import Bullets, Element, Heading, Picture, Table, Text
from src.reports.figures.style import Drawn
from src.reports.findings import answer, baseline_notes, limitations
from src.reports.format import (
    BASELINE_NAMES,
    MISSING,
    count,
    estimate,
    interval_text,
    number,
    pgr_text,
)
from src.reports.results import ALL, Results, Rungs, mean_over_seeds, pgr_cells

FILES = {
    "accuracy.csv": "one row per run: accuracy, interval, ties, AUROC, log-loss, Brier score",
    "pgr.csv": "one row per teacher, student and method: gain, gap, PGR, status",
    "pooled.csv": "as pgr.csv, with the noise of seeds pooled over all cells",
    "ceilings.csv": "ceilings of a base model where they do not rise with depth",
    "methods.csv": "each method's paired difference to the baseline, with its tests",
    "companions.csv": "agreement of students with their teachers, errors inherited",
    "calibration.csv": "the bins of the calibration figure",
    "curves.csv": "training loss as logged",
    "scores.csv": "margin of every run on every pair",
    "runs.csv": "the run behind each column of scores.csv, and the commit of its evaluation",
    "meta.json": "what was run, where the numbers come from",
}
READING = (
    "Teacher: a weak reward model trained on ground truth. Student: a stronger one trained on the "
    "teacher's labels alone. Ceiling: the student's twin trained on ground truth. All three are "
    "scored on the same pairs.",
    "Gain = student - teacher; gap = ceiling - teacher, both in accuracy. Read them first.",
    "PGR (performance gap recovered) = gain / gap. 0: the student is as weak as its teacher; 1: as "
    "good as its ceiling; below 0: weaker than its teacher. It is not clipped.",
    "A ratio over a small gap is noise. PGR is undefined where the gap's interval holds 0 or the "
    "gap is below the floor; undefined is neither 0 nor a failure of the student.",
    "Rows over all cells are ratios of sums, never means of ratios.",
    "A reward model that is not above the baselines has learnt nothing worth recovering.",
)


POOLED = (
    "The same with intervals that pool the seeds' noise over all cells: narrower where a cell's "
    "own seeds lie far apart, wider where they lie close. They are right on average over cells if "
    "seeds are as noisy in one cell as in another; where they are not, those of the noisier cells "
    "are too narrow (results/intervals/coverage.csv), so that the table above decides. Of the "
    "seeds that all cells have, which may be fewer than above.")


def sections(results: Results, figures: dict[str, Drawn]) -> list[Element]:
    """The whole report below its title, in reading order."""
    notes = _noted(results)
    rungs = Rungs.of(results.accuracy)
    mark = [Text(results.contamination, "warning")] if results.contamination else []
    return [
        *mark, Text(answer(results.pgr), "lead"),
        *map(Text, best_ceiling.statements(results.pgr, results.ceilings)),
        *_baseline_warning(notes),
        Heading("Performance gap recovered"), *_pgr_tables(results, notes, rungs),
        *_picture(figures, "pgr_heatmap"), *_pooled(results, rungs),
        *best_ceiling.blocks(results, rungs),
        *methods.blocks(results.methods, figures),
        Heading("Accuracy"), *_picture(figures, "accuracy_by_depth"), _accuracy_table(notes, rungs),
        *_companions(results, rungs),
        *_titled(figures, "calibration", "Calibration"),
        *_titled(figures, "learning_curves", "Training"),
        Heading("How to read PGR"), Bullets(READING),
        Heading("Limitations"), Bullets(limitations(results)),
        Heading("What was run"), _facts(results),
        Heading("Files"), Bullets([(name, text) for name, text in FILES.items()
                                   if (results.folder / name).is_file()]),
    ]


def _noted(results: Results) -> pd.DataFrame:
    models = mean_over_seeds(results.accuracy)
    return models.assign(note=baseline_notes(models))


def _baseline_warning(models: pd.DataFrame) -> list[Element]:
    trained = models[models.role != "baseline"]
    below = (trained.note != "").sum()
    if not below:
        return []
    return [Text(f"{below} of {len(trained)} models are not above a baseline: they are marked in "
                 "the tables, and a PGR of theirs means little.", "warning")]


def _picture(figures: dict[str, Drawn], name: str) -> list[Element]:
    return [Picture(figures[name])] if name in figures else []


def _titled(figures: dict[str, Drawn], name: str, heading: str) -> list[Element]:
    return [Heading(heading), Picture(figures[name])] if name in figures else []


def _pgr_tables(results: Results, models: pd.DataFrame, rungs: Rungs) -> list[Element]:
    cells = results.cells
    if not len(cells):
        return [Text("There is no row of teacher, student and ceiling.")]
    students = models[models.role == "student"]
    notes = students.set_index(["teacher", "name", "method"]).note.to_dict()
    rows = [_pgr_row(row, notes.get((row.teacher, row.student, row.method)), rungs)
            for table in (results.totals, cells) for row in table.itertuples()]
    columns = ["teacher", "student", "method", "gain", "gap", "PGR", "weak", "acc.", "ceiling",
               "n", "seeds"]
    caption = (f"Gain and gap in accuracy, with {results.percent} intervals over "
               f"{results.resampled}; first, all cells of a method together. The columns "
               "weak, acc. and ceiling are the accuracies of teacher, student and ceiling."
               + (" !: the student is not above a baseline." if any(notes.values()) else "")
               + _named(rungs))
    return [Table(caption, columns, rows, words=3)]


def _pgr_row(row: object, note: str | None, rungs: Rungs) -> list[str]:
    return [rungs.short(row.teacher), rungs.short(row.student), row.method,
            estimate(row, "gain", signed=True), estimate(row, "gap", signed=True), pgr_text(row),
            number(row.weak), ("! " if note else "") + number(row.student_accuracy),
            number(row.ceiling), count(row.n), row.seeds or MISSING]


def _pooled(results: Results, rungs: Rungs) -> list[Element]:
    """Both intervals of every row side by side."""
    if not len(results.pooled):
        return []
    keys = ["teacher", "student", "method"]
    own = {tuple(row[key] for key in keys): row for _, row in results.pgr.iterrows()}
    rows = [[rungs.short(row.teacher), rungs.short(row.student), row.method,
             estimate(row, "gain", signed=True), estimate(row, "gap", signed=True), pgr_text(row),
             pgr_text(own[row.teacher, row.student, row.method]), row.seeds]
            for table in (results.pooled[results.pooled.teacher == ALL],
                          pgr_cells(results.pooled)) for row in table.itertuples()]
    return [Table(POOLED, [*keys, "gain", "gap", "PGR", "PGR, as above", "seeds"], rows,
                  words=3)]


def _accuracy_table(models: pd.DataFrame, rungs: Rungs) -> Element:
    rows = []
    for row in models.rename(columns={"name": "model"}).itertuples():
        name = BASELINE_NAMES.get(row.model, rungs.short(row.model))
        against = MISSING if row.role == "baseline" else f"! {row.note}" if row.note else "above"
        rows.append([row.role, name, rungs.short(row.teacher) or MISSING, row.method or MISSING,
                     against, f"{number(row.accuracy)} {interval_text(row.low, row.high)}".strip(),
                     number(row.auroc), number(row.log_loss), number(row.brier), count(row.ties),
                     number(row.layers, 0), count(row.n), row.seeds or MISSING])
    caption = ("Means over seeds; in brackets from the lowest to the highest end of the seeds' own "
               "intervals over prompts. A tie counts half. A dash: there is no such number."
               + _named(rungs))
    columns = ["role", "model", "teacher", "method", "baselines", "accuracy", "AUROC",
               "log-loss", "Brier", "ties", "layers", "n", "seeds"]
    return Table(caption, columns, rows, words=5)


def _named(rungs: Rungs) -> str:
    """What the short names of a table stand for, where they are shortened."""
    last = rungs.names[-1]
    return f" {rungs.short(last)} is {last}: {rungs.title(last)} kept of {rungs.base}." if (
        rungs.base) else ""


def _companions(results: Results, rungs: Rungs) -> list[Element]:
    if not len(results.companions):
        return []
    measures = ["agreement", "agreement_teacher_right", "agreement_teacher_wrong",
                "errors_inherited"]
    means = results.companions.groupby(["teacher", "student", "method"], sort=False)[measures]
    rows = [[*map(rungs.short, keys), *(number(value) for value in row)]
            for keys, row in zip(means.mean().index, means.mean().to_numpy(), strict=True)]
    caption = ("Share of pairs where student and teacher agree: overall, where the teacher is "
               "right, where it is wrong; and the share of the student's errors that its teacher "
               "makes too. A student that only imitates agrees with its teacher as often where "
               "the teacher is wrong as where it is right. Means over seeds.")
    return [Heading("Students against their teachers"),
            Table(caption, ["teacher", "student", "method", "agreement", "teacher right",
                            "teacher wrong", "errors inherited"], rows, words=3)]


def _facts(results: Results) -> Element:
    meta = results.meta
    versions = ", ".join(f"{name} {version}" for name, version in
                         meta.get("versions", {}).items())
    facts = {
        "experiment": meta["experiment"], "data": meta.get("data"), "split scored": meta["split"],
        "pairs": count(meta.get("n_pairs")), "prompts": count(meta.get("n_prompts")),
        "seeds": ", ".join(results.seeds),
        "runs": count((results.accuracy.role != "baseline").sum()),
        "intervals": f"{results.percent}, over {results.resampled}",
        "PGR floor": f"a gap of {meta['pgr_floor']:g}" if "pgr_floor" in meta else "",
        "commit": meta.get("commit"), "date": meta.get("date"), "versions": versions,
    }
    return Table("", ["fact", "value"], [[name, str(value or MISSING)]
                                         for name, value in facts.items()], words=2)
