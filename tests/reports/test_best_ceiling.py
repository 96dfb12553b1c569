"""A ladder whose middle is the best ceiling: said in words, and both PGRs side by side."""

import re
from pathlib import Path

import pytest

from src.common.errors import UserError
from src.measures.best_ceiling import BEST_COLUMNS
from src.reports.best_ceiling import CHOSEN, best_pgr_text, compared, statements
from src.reports.experiment import console_table, write_report
from src.reports.format import estimate, number, pgr_text
from src.reports.results import Results, read_results
from tests.result_tables import write_results

SMALL = {"names": ["demo-F2", "demo-F4", "demo-L8"], "layers": [2, 4, 8], "teachers": 2, "steps": 5}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """With its report: demo-F4 is a better ceiling than the whole model."""
    path = write_results(tmp_path_factory.mktemp("results") / "demo", **SMALL, fall=0.1)
    write_report(path)
    return read_results(path)


def test_the_report_says_that_the_whole_model_is_not_the_best(results: Results):
    best, whole = (results.ceilings.set_index("place").loc[place] for place in ("best", "deepest"))
    text, = statements(results.pgr, results.ceilings)
    over = best.accuracy - whole.accuracy
    assert text.startswith(
        f"The whole model is not the best ceiling: demo-F4 has {number(best.accuracy)} "
        f"[{number(best.low)}, {number(best.high)}], the whole model (demo-L8) "
        f"{number(whole.accuracy)} [{number(whole.low)}, {number(whole.high)}], a difference of "
        f"+{100 * over:.1f} [{100 * over - 2:.1f}, {100 * over + 2:.1f}] points (n = 4,096, seeds "
        "0 1 2, paired; its interval holds for all 2 other ceilings at once). Against it PGR is ")
    assert text.endswith(CHOSEN)
    for row in results.totals.itertuples():
        assert (f"{best_pgr_text(row)} with {row.method} ({pgr_text(row)} against the ceilings of "
                "the students' own depth)") in text
    for page in ("report.md", "report.html"):
        words = re.sub(r"</?span[^>]*>", "", (results.folder / page).read_text())
        assert text.split("'")[0] in words and "Over deepest" in words


def test_what_cannot_be_told_apart_is_not_called_better(results: Results):
    near = results.ceilings.assign(over_deepest_low=-0.001)
    text, = statements(results.pgr, near)
    assert text.startswith("The whole model does not have the highest ceiling, which may be chance")


def test_a_ladder_that_ends_before_the_whole_model_is_not_called_whole(results: Results):
    text, = statements(results.pgr, results.ceilings.assign(keep="first"))
    assert text.startswith("The deepest model is not the best ceiling: ") and "whole" not in text


def test_an_undefined_pgr_against_the_best_is_said_as_such(results: Results):
    text, = statements(results.pgr.assign(best_status="undefined"), results.ceilings)
    assert "Against it PGR is undefined with soft (" in text


def test_one_cell_speaks_for_its_method_and_several_without_a_total_do_not(results: Results):
    cells = results.cells[results.cells.method == "soft"]
    text, = statements(cells.iloc[:1], results.ceilings)
    assert "against the ceiling of the students' own depth" in text
    text, = statements(cells, results.ceilings)
    assert "PGR is" not in text


def test_both_pgrs_of_every_row_stand_in_one_table(results: Results):
    lines = (results.folder / "report.md").read_text().splitlines()
    start = next(place for place, line in enumerate(lines) if "| PGR to best |" in line)
    rows = lines[start + 2:start + 2 + len(results.pgr)]
    assert rows[0].startswith("| all | all | soft |")
    for line, row in zip(rows, compared(results.pgr).itertuples(), strict=True):
        for part in (estimate(row, "gap", signed=True), pgr_text(row), number(row.best_ceiling),
                     estimate(row, "best_gap", signed=True), best_pgr_text(row), row.best_seeds):
            assert f" {part} |" in line
    assert "[ceilings.csv](ceilings.csv)" in "\n".join(lines)


def test_the_terminal_shows_both_and_fits(results: Results):
    lines = console_table(results.pgr, results.accuracy, results.ceilings).splitlines()
    assert max(map(len, lines)) <= 100 and "The whole model is not the best" in "\n".join(lines)
    head = next(place for place, line in enumerate(lines) if line.endswith("to the best"))
    for line, row in zip(lines[head + 1:], compared(results.pgr).itertuples(), strict=False):
        assert line.endswith(best_pgr_text(row)) and pgr_text(row) in line


def test_a_student_without_a_best_ceiling_has_a_dash(results: Results):
    row = next(results.pgr.assign(best_status="").itertuples())
    assert best_pgr_text(row) == "-"


def test_where_ceilings_rise_nothing_is_said(tmp_path: Path):
    path = write_results(tmp_path / "demo", **SMALL)
    write_report(path)
    results = read_results(path)
    assert not len(compared(results.pgr)) and not statements(results.pgr, results.ceilings)
    for text in ((path / "report.md").read_text(), (path / "report.html").read_text(),
                 console_table(results.pgr, results.accuracy, results.ceilings)):
        assert not re.search("best ceiling|to the best|ceilings.csv", text)


def test_a_table_with_some_of_the_columns_is_refused(tmp_path: Path):
    path = write_results(tmp_path / "demo", **SMALL, fall=0.1)
    text = (path / "pgr.csv").read_text()
    (path / "pgr.csv").write_text(text.replace(BEST_COLUMNS[0], "somebody_s", 1))
    with pytest.raises(UserError, match="column best_ceiling_name is missing"):
        read_results(path)
