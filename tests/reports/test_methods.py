"""What a report says of methods, and that it says nothing where there is one."""

import pandas as pd
import pytest

from src.measures.comparisons.methods import BETTER, COST, METHOD_COLUMNS, OPEN, TOO_FEW, WORSE
from src.reports.experiment import write_report
from src.reports.figures.methods import methods_figure
from src.reports.methods import points_of, statement
from tests.result_tables import write_results

SMALL = {"names": ["demo-L2", "demo-L4", "demo-L8"], "layers": [2, 4, 8], "steps": 5}


def rows(**verdicts):
    return pd.DataFrame([dict(zip([*METHOD_COLUMNS, COST], (
        "demo", method, "soft", 15, "0 1 2", 4000, 0.007, 0.004, 0.01, 11, 4, 11 / 15, 0.013, 0.026,
        verdict, 1.5), strict=True)) for method, verdict in verdicts.items()])


@pytest.mark.parametrize("verdicts, said", [
    ({"a": BETTER}, "a is better than soft."),
    ({"a": BETTER, "b": BETTER, "c": WORSE}, "a and b are better than soft; c is worse than soft."),
    ({"a": OPEN, "b": OPEN}, "a and b are not told apart from soft."),
    ({"a": TOO_FEW, "b": OPEN}, "a is apart from soft by the interval alone, on too few cells for "
                                "the test; b is not told apart from soft."),
])
def test_a_sentence_says_what_is_better_and_what_is_open(verdicts, said):
    assert statement(rows(**verdicts)).endswith(said)


def test_the_report_has_the_section_the_picture_and_every_number(tmp_path):
    folder = write_results(tmp_path / "demo", **SMALL)
    rows(confidence=BETTER, margin=OPEN).to_csv(folder / "methods.csv", index=False)
    write_report(folder)
    page = (folder / "report.md").read_text()
    assert "## Methods compared" in page and "(figures/methods.png)" in page
    for line in ("better | confidence | +0.7 [0.4, 1.0] | 15 | 11 | 4 | 0.73 | 0.0130 | 0.0260 | "
                 "1.50", f"{OPEN} | margin | +0.7 [0.4, 1.0]"):
        assert f"| {line} |" in page
    assert "[methods.csv](methods.csv)" in page


def test_a_table_from_before_there_were_costs_has_none(tmp_path):
    folder = write_results(tmp_path / "demo", **SMALL)
    rows(a=OPEN).drop(columns=COST).to_csv(folder / "methods.csv", index=False)
    write_report(folder)
    assert "| 0.0130 | 0.0260 | - |" in (folder / "report.md").read_text()


def test_one_method_has_no_such_section(tmp_path):
    folder = write_results(tmp_path / "demo", **SMALL)
    write_report(folder)
    assert "Methods compared" not in (folder / "report.md").read_text()


def test_differences_are_written_in_points():
    assert points_of(next(rows(a=OPEN).itertuples())) == "+0.7 [0.4, 1.0]"


def test_a_control_that_is_far_off_does_not_stretch_the_axis_and_keeps_its_numbers():
    table = rows(a=OPEN, shuffled=WORSE).assign(
        difference=[0.01, -0.32], difference_low=[0.0, -0.4], difference_high=[0.02, -0.2])
    figure, _, caption = methods_figure(table, "title", "made up")
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert -5 < low < 0 < high < 5 and "Arrows: beyond 15 points." in caption
    assert any(text.get_text().startswith("-32.0 [-40.0, -20.0]") for text in axes.texts)
