"""The table of what larger students take over and lose."""

import pandas as pd

from src.reports.degradation import HALVES, SHOWN, cells_table


def test_teachers_come_in_the_order_of_the_experiment_and_students_in_that_of_depth():
    students = pd.DataFrame([
        {"layers": layers, "student": f"F{layers}", "teacher": teacher, "method": "soft", "seed": 0,
         **dict.fromkeys((*SHOWN, *HALVES), 0.5)}
        for teacher in ("F4", "F10") for layers in (12, 8)])
    cells = cells_table(students, 0.95)
    assert list(zip(cells.teacher, cells.layers, strict=True)) == [
        ("F4", 8), ("F4", 12), ("F10", 8), ("F10", 12)]
