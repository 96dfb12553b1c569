"""Realistic results folders for the tests of figures and reports, with no model trained."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def write_results(folder: Path, *, names: Sequence[str] = ("demo-L2", "demo-L3", "demo-L4",
                                                           "demo-L6", "demo-L8"),
                  layers: Sequence[int] = (2, 3, 4, 6, 8), teachers: int = 2,
                  methods: Sequence[str] = ("soft", "confidence"), seeds: Sequence[int] = (0, 1, 2),
                  split: str = "test", n: int = 4096, rise: float = 0.32, missing: int = 0,
                  tfidf: float = 0.61, steps: int = 60, fall: float = 0.0) -> Path:
    """Write what eval.py would write; return `folder`.

    Args:
        teachers: the first so many rungs teach every rung that is not before them.
        rise: accuracy that depth adds; PGR is undefined in every cell where it adds none.
        missing: so many students of the last teacher were not run.
        fall: accuracy that the deepest rung loses; more than noise gives a middle ceiling that is
            better, and the columns and the file that go with it.
    """
    rng = np.random.default_rng(7)
    truth = 0.56 + rise * (1 - np.exp(-np.linspace(0, 2.6, len(names))))
    truth[-1] -= fall
    shared = {"experiment": folder.name if split == "test" else folder.parent.name, "split": split}
    cells = [(t, s, m) for t in range(teachers) for s in range(t, len(names))
             for m in range(len(methods))]
    cells = cells[:len(cells) - missing]
    accuracy = _accuracy(_models(rng, truth, names, layers, teachers, methods, seeds, cells, tfidf),
                         shared, n)
    folder.mkdir(parents=True, exist_ok=True)
    pgr = _pgr(accuracy, names, methods, cells, seeds, n, shared)
    tables = {"accuracy": accuracy, "pgr": pgr, "companions": _companions(accuracy, shared, n),
              "calibration": _calibration(accuracy, shared, n),
              "curves": _curves(accuracy, shared, steps)}
    if fall:
        tables |= {"pgr": _with_best(pgr, accuracy),
                   "ceilings": _ceilings(accuracy, pgr.seeds[0], shared, n)}
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "meta.json").write_text(json.dumps({
        **shared, "commit": "0123abc", "date": "2026-07-19", "seeds": list(seeds), "n_pairs": n,
        "n_prompts": n // 2, "data": "demo", "level": 0.95, "pgr_floor": 0.03,
        "versions": {"torch": "2.13.0"}, "contaminated": split != "test",
        "notes": ["synthetic numbers"]}))
    return folder


def _models(rng: np.random.Generator, truth: np.ndarray, names: Sequence[str],
            layers: Sequence[int], teachers: int, methods: Sequence[str], seeds: Sequence[int],
            cells: list, tfidf: float) -> list[tuple]:
    """(role, name, layers, teacher, method, seed, accuracy) of every model."""
    models = [("baseline", "length_only", None, "", "", None, 0.596),
              ("baseline", "tfidf", None, "", "", None, tfidf)]
    models += [("teacher", name, depth, "", "", seed, level - 0.01 + 0.008 * rng.standard_normal())
               for name, depth, level in zip(names[:teachers], layers, truth, strict=False)
               for seed in seeds]
    models += [("ceiling", name, depth, "", "", seed, level + 0.01 * rng.standard_normal())
               for name, depth, level in zip(names, layers, truth, strict=True) for seed in seeds]
    models += [("student", names[s], layers[s], names[t], methods[m], seed,
                truth[t] + (0.3 + 0.25 * m) * (truth[s] - truth[t])
                + 0.01 * rng.standard_normal()) for t, s, m in cells for seed in seeds]
    return [(*facts, min(value, 0.99)) for *facts, value in models]  # many methods add up


def _accuracy(models: list[tuple], shared: dict, n: int) -> pd.DataFrame:
    return pd.DataFrame([{
        **shared, "role": role, "name": name, "layers": depth, "teacher": teacher, "method": method,
        "seed": seed, "data": "demo", "n": n, "accuracy": value,
        "low": value - 1.96 * np.sqrt(value * (1 - value) / n),
        "high": value + 1.96 * np.sqrt(value * (1 - value) / n), "ties": 0, "auroc": value + 0.03,
        "log_loss": 0.95 - value / 2, "brier": 0.3 - value / 6, "length_only": 0.596,
    } for role, name, depth, teacher, method, seed, value in models])


def _pgr(accuracy: pd.DataFrame, names: Sequence[str], methods: Sequence[str], cells: list,
         seeds: Sequence[int], n: int, shared: dict) -> pd.DataFrame:
    def mean(**where: str) -> float:
        rows = accuracy
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.accuracy.mean()

    rows = []
    for t, s, m in cells:
        weak = mean(role="teacher", name=names[t])
        student = mean(role="student", teacher=names[t], name=names[s], method=methods[m])
        ceiling = mean(role="ceiling", name=names[s])
        rows.append(_row(names[t], names[s], methods[m], weak, student, ceiling))
    table = pd.DataFrame(rows)
    for method in methods:
        own = table[table.method == method]
        rows.append(_row("all", "all", method, own.weak.mean(), own.student_accuracy.mean(),
                         own.ceiling.mean()))
    return pd.DataFrame([{**shared, "seeds": " ".join(map(str, seeds)), "data": "demo", "n": n,
                          **row} for row in rows])


def _row(teacher: str, student: str, method: str, weak: float, strong: float,
         ceiling: float) -> dict:
    gain, gap = strong - weak, ceiling - weak
    valid = gap >= 0.03
    ratio = gain / gap if valid else None
    return {"teacher": teacher, "student": student, "method": method, "weak": weak,
            "student_accuracy": strong, "ceiling": ceiling, "gain": gain, "gain_low": gain - 0.017,
            "gain_high": gain + 0.018, "gap": gap, "gap_low": gap - 0.019, "gap_high": gap + 0.02,
            "pgr": ratio, "pgr_low": ratio - 0.02 / gap if valid else None,
            "pgr_high": ratio + 0.02 / gap if valid else None,
            "status": "ok" if valid else "undefined"}


def _ceilings(accuracy: pd.DataFrame, seeds: str, shared: dict, n: int) -> pd.DataFrame:
    """Of one base model, whose last rung is not the best."""
    models = accuracy[accuracy.role == "ceiling"].groupby(["name", "layers"], sort=False)
    table = models.agg({"accuracy": "mean", "low": "min", "high": "max"}).reset_index()
    over = table.accuracy - table.accuracy.iloc[-1]
    last = table.index == len(table) - 1
    return table.assign(
        **shared, data="demo", n=n, seeds=seeds, base=table.name.iloc[0].rsplit("-", 1)[0],
        keep=np.where(last, "all", "evenly_spaced"),
        place=np.where(last, "deepest", np.where(over == over.max(), "best", "")),
        over_deepest=over.where(~last), over_deepest_low=(over - 0.02).where(~last),
        over_deepest_high=(over + 0.02).where(~last))


def _with_best(pgr: pd.DataFrame, accuracy: pd.DataFrame) -> pd.DataFrame:
    means = accuracy[accuracy.role == "ceiling"].groupby("name").accuracy.mean()
    against = pd.DataFrame([_row(row.teacher, row.student, row.method, row.weak,
                                 row.student_accuracy, means.max()) for row in pgr.itertuples()])
    names = ["ceiling", "gap", "gap_low", "gap_high", "pgr", "pgr_low", "pgr_high", "status"]
    return pgr.assign(best_ceiling_name=means.idxmax(), best_seeds=pgr.seeds,
                      **{f"best_{name}": against[name] for name in names})


def _companions(accuracy: pd.DataFrame, shared: dict, n: int) -> pd.DataFrame:
    students = accuracy[accuracy.role == "student"]
    return pd.DataFrame([{
        **shared, "teacher": row.teacher, "student": row.name_, "method": row.method,
        "seed": row.seed, "n": n, "agreement": 0.78, "agreement_teacher_right": 0.86,
        "agreement_teacher_wrong": 0.64, "errors_inherited": 0.71,
    } for row in students.rename(columns={"name": "name_"}).itertuples()])


def _calibration(accuracy: pd.DataFrame, shared: dict, n: int) -> pd.DataFrame:
    models = accuracy[accuracy.role != "baseline"].drop_duplicates(
        ["role", "name", "teacher", "method"])
    edges = np.linspace(0.5, 1.0, 11)
    rows = []
    for rank, row in enumerate(models.rename(columns={"name": "name_"}).itertuples()):
        share = np.exp(-np.arange(10) / (2 + rank % 4))
        for low, high, part in zip(edges, edges[1:], share / share.sum(), strict=False):
            middle = (low + high) / 2
            rows.append({**shared, "role": row.role, "name": row.name_, "teacher": row.teacher,
                         "method": row.method, "bin_low": low, "bin_high": high,
                         "n": round(3 * n * part), "confidence": middle,
                         "accuracy": 0.5 + (middle - 0.5) * (0.65 + 0.03 * (rank % 9))})
    return pd.DataFrame(rows)


def _curves(accuracy: pd.DataFrame, shared: dict, steps: int) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    models = accuracy[accuracy.role != "baseline"].rename(columns={"name": "name_"})
    at = np.arange(10, 10 * steps + 1, 10)
    parts = []
    for row in models.itertuples():
        floor = 0.69 - 0.55 * (row.accuracy - 0.5)
        loss = floor + (0.7 - floor) * np.exp(-3 * at / at[-1]) + 0.02 * rng.standard_normal(steps)
        parts.append(pd.DataFrame({**shared, "role": row.role, "name": row.name_,
                                   "teacher": row.teacher, "method": row.method,
                                   "seed": row.seed, "step": at, "loss": loss}))
    return pd.concat(parts)
