"""The table of what larger students take over and lose."""

import pandas as pd
import pytest

from src.reports.degradation import HALVES, SHOWN, cells_table, statements
from src.reports.figures.degradation import degradation_by_depth


def test_teachers_come_in_the_order_of_the_experiment_and_students_in_that_of_depth():
    students = pd.DataFrame([
        {"layers": layers, "student": f"F{layers}", "teacher": teacher, "method": "soft", "seed": 0,
         **dict.fromkeys((*SHOWN, *HALVES), 0.5)}
        for teacher in ("F4", "F10") for layers in (12, 8)])
    cells = cells_table(students, 0.95)
    assert list(zip(cells.teacher, cells.layers, strict=True)) == [
        ("F4", 8), ("F4", 12), ("F10", 8), ("F10", 12)]


def test_three_teachers_runs_are_said_to_be_too_few():
    row = {"predictor": "nats_lost", "model": "alone", "slope": -0.04, "slope_low": float("nan"),
           "slope_high": float("nan"), "deviation": 0.1, "students": 3, "teachers": 3}
    assert statements(pd.DataFrame([row])) == [
        "alone: PGR has too few teachers' runs, 3, to be told to go with nats lost (-0.04 per SD)."]
    told = row | {"slope_low": -0.06, "slope_high": -0.01, "teachers": 6}
    assert statements(pd.DataFrame([told])) == [
        "alone: PGR falls with nats lost (-0.04 [-0.06, -0.01] per SD)."]


@pytest.mark.parametrize("methods, drawn", [(("confidence", "soft"), "soft"),
                                            (("hard", "confidence"), "confidence")])
def test_the_figure_is_of_soft_labels_or_else_of_the_first_method(methods, drawn):
    students = pd.DataFrame([
        {"layers": layers, "student": f"F{layers}", "teacher": "F4", "method": method, "seed": seed,
         **dict.fromkeys((*SHOWN, *HALVES), 0.5)}
        for method in methods for layers in (8, 12) for seed in (0, 1)])
    figure, _, caption = degradation_by_depth(cells_table(students, 0.95), "demo", 0.95)
    assert caption.startswith(f"Students of {drawn}, a line a teacher;")
    assert all(len(axes.lines[0].get_xdata()) == 2 for axes in figure.axes)
