"""Reports: every number in both forms, every warning in its place, nothing from outside."""

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.reports.document import Table, Text, to_html, to_markdown
from src.reports.experiment import console_table, write_report
from src.reports.findings import answer, baseline_notes, limitations
from src.reports.format import estimate, number, pgr_text
from src.reports.results import (
    COLUMNS,
    Results,
    contamination_mark,
    mean_over_seeds,
    read_results,
)
from tests.result_tables import write_results

SMALL = {"names": ["demo-L2", "demo-L4", "demo-L8"], "layers": [2, 4, 8], "teachers": 2, "steps": 5}
MARK = "scored on train_2: the students' own training pairs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its report."""
    path = write_results(tmp_path_factory.mktemp("results") / "demo", **SMALL)
    assert write_report(path) == path / "report.html"
    return path


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, str]:
    """html and md, the html without its figures."""
    page = (folder / "report.html").read_text()
    return {"html": re.sub(r'src="data:[^"]*"', "", page), "md": (folder / "report.md").read_text()}


class Outline(HTMLParser):
    """Collects attributes and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_well_formed_and_needs_nothing_from_outside(folder: Path):
    page = (folder / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    tags = {tag for tag, _ in outline.found}
    assert not {"script", "link", "iframe", "object"} & tags
    assert "@import" not in page and "url(" not in page
    sources = [attributes["src"] for _, attributes in outline.found if "src" in attributes]
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    links = [attributes["href"] for _, attributes in outline.found if "href" in attributes]
    anchors = {f"#{attributes['id']}" for _, attributes in outline.found if "id" in attributes}
    for link in links:
        assert link in anchors if link.startswith("#") else (folder / link).is_file()


def test_markdown_links_lead_to_files(folder: Path, pages: dict[str, str]):
    links = re.findall(r"\]\(([^)]*)\)", pages["md"])
    assert sum(link.endswith(".png") for link in links) == 4
    assert sum(link.endswith(".csv") for link in links) == 5
    assert all((folder / link).is_file() for link in links)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_both_forms_hold_every_number_of_the_tables(folder: Path, pages: dict[str, str],
                                                    kind: str):
    text, results = re.sub(r"</?span[^>]*>", "", pages[kind]), read_results(folder)
    for row in results.pgr.itertuples():
        for value in (estimate(row, "gain", signed=True), estimate(row, "gap", signed=True),
                      pgr_text(row), number(row.weak), number(row.ceiling)):
            assert value in text
    for row in mean_over_seeds(results.accuracy).itertuples():
        for value in (row.accuracy, row.low, row.high, row.auroc, row.log_loss, row.brier):
            assert number(value) in text
    for fact in ("0123abc", "2026-07-19", "4,096", "2,048", "0, 1, 2", "torch 2.13.0"):
        assert fact in text


@pytest.mark.parametrize("kind", ["html", "md"])
def test_undefined_is_a_word_and_missing_is_a_dash(folder: Path, pages: dict[str, str], kind: str):
    cells = read_results(folder).cells
    cell = {"html": '<td class="number undefined">undefined</td>', "md": "| undefined |"}[kind]
    assert pages[kind].count(cell) == (cells.status == "undefined").sum() > 0
    assert not re.search(r"\b(nan|None|NaN|inf)\b", pages[kind])
    baseline = {"html": "<td>TF-IDF</td><td>-</td><td>-</td>", "md": "| TF-IDF | - | - |"}[kind]
    assert baseline in pages[kind]


def test_numbers_of_training_pairs_are_marked_in_every_output(tmp_path: Path):
    path = write_results(tmp_path / "demo" / "train_2", split="train_2",
                         **{**SMALL, "methods": ["soft"], "teachers": 1})
    write_report(path)
    assert MARK in (path / "report.md").read_text()
    assert MARK in html.unescape((path / "report.html").read_text())
    results = read_results(path)
    assert console_table(results.pgr, results.accuracy, results.ceilings).startswith(f"! {MARK}")
    assert any("no evidence of generalisation" in text for text in limitations(results))


def test_clean_numbers_are_not_marked(folder: Path, pages: dict[str, str]):
    assert "own training pairs" not in pages["html"] + pages["md"]


def accuracy_of(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    """An accuracy table of (role, name, accuracy) at one seed."""
    table = pd.DataFrame([{"role": role, "name": name, "accuracy": value, "low": value - 0.01,
                           "high": value + 0.01, "seed": 0.0, "length_only": 0.6}
                          for role, name, value in rows])
    return table.reindex(columns=COLUMNS["accuracy"]).fillna(
        {"teacher": "", "method": "", "experiment": "demo", "split": "test"})


def test_models_that_are_not_above_a_baseline_are_named():
    table = accuracy_of([("baseline", "length_only", 0.6), ("baseline", "tfidf", 0.65),
                         ("teacher", "demo-L2", 0.6), ("ceiling", "demo-L2", 0.64),
                         ("ceiling", "demo-L8", 0.66)])
    assert list(baseline_notes(mean_over_seeds(table))) == [
        "", "", "has learnt nothing beyond length and words", "has learnt nothing beyond words", ""]


def test_what_a_base_knows_untrained_is_no_rule_that_a_model_could_have_learnt():
    table = accuracy_of([("baseline", "zero_shot_demo", 0.99), ("ceiling", "demo-L8", 0.66)])
    assert list(baseline_notes(mean_over_seeds(table))) == ["", ""]


def test_the_length_column_stands_in_for_a_missing_baseline():
    table = accuracy_of([("teacher", "demo-L2", 0.59), ("ceiling", "demo-L2", 0.61)])
    assert list(baseline_notes(mean_over_seeds(table))) == ["has learnt nothing beyond length", ""]


def test_report_warns_beside_models_below_a_baseline(pages: dict[str, str]):
    assert "models are not above a baseline" in pages["md"]
    row = next(line for line in pages["md"].splitlines() if line.startswith("| teacher | L2 |"))
    assert "| ! has learnt nothing beyond length and words |" in row
    assert "| ! 0.5" in next(line for line in pages["md"].splitlines()
                             if line.startswith("| L2 | L2 | soft |"))


def pgr_rows(*rows: tuple[str, str, float | None]) -> pd.DataFrame:
    """PGR rows of (teacher, student, pgr) with method soft; None is undefined."""
    return pd.DataFrame([{
        "teacher": teacher, "student": student, "method": "soft", "gain": 0.02, "gain_low": 0.01,
        "gain_high": 0.03, "gap": 0.08, "gap_low": 0.06, "gap_high": 0.1, "pgr": value,
        "pgr_low": None if value is None else value - 0.1,
        "pgr_high": None if value is None else value + 0.1,
        "status": "undefined" if value is None else "ok"} for teacher, student, value in rows])


def test_the_answer_is_the_aggregate_with_its_undefined_cells():
    text = answer(pgr_rows(("L2", "L4", 0.3), ("L2", "L2", None), ("all", "all", 0.25)))
    assert text == ("Students recovered 25% [15, 35] of the gap with soft. "
                    "PGR is undefined in 1 of 2 cells.")
    both = pd.concat([pgr_rows(("L2", "L4", 0.3)), pgr_rows(("L2", "L4", 0.5)).assign(
        method="confidence")])
    assert answer(both) == ("Students recovered 30% [20, 40] of the gap with soft and 50% [40, 60] "
                            "with confidence. PGR is undefined in 0 of 1 cells with each method.")


def test_the_answer_to_many_methods_is_the_first_one_and_how_many_more_there_are():
    methods = [pgr_rows(("L2", "L4", value)).assign(method=f"m{place}")
               for place, value in enumerate((0.3, 0.5, 0.1, None, 0.2))]
    assert answer(pd.concat(methods)) == (
        "Students recovered 30% [20, 40] of the gap with m0. The table below has 4 more methods. "
        "PGR is undefined in 1 of 5 cells.")


def test_the_answer_of_one_cell_is_that_cell():
    assert "30% [20, 40] of the gap with soft" in answer(pgr_rows(("L2", "L4", 0.3)))


def test_the_answer_says_undefined_and_never_zero():
    text = answer(pgr_rows(("L2", "L4", None), ("L2", "L2", None), ("all", "all", None)))
    assert text == ("With soft, the gap is too near 0, or too uncertain, to say what share of it "
                    "was recovered: +8.0 [6.0, 10.0] points. PGR is undefined in 2 of 2 cells.")


def test_the_answer_does_not_call_a_loss_recovered():
    assert answer(pgr_rows(("L2", "L4", -0.3))) == (
        "With soft, students end below their teachers: -30% [-40, -20] of the gap. "
        "PGR is undefined in 0 of 1 cells.")


def test_the_answer_names_a_ceiling_below_the_teacher():
    rows = pgr_rows(("L2", "L4", None)).assign(gap=-0.06, gap_low=-0.07, gap_high=-0.05)
    assert answer(rows).startswith("With soft, the ceiling is below the teacher, and there is "
                                   "nothing to recover: -6.0 [-7.0, -5.0] points. ")


def test_the_answer_without_a_common_seed_or_a_student_says_so():
    assert "no seed has all cells" in answer(pgr_rows(("L2", "L4", 0.3), ("L2", "L2", 0.3)))
    assert "there is no PGR" in answer(pgr_rows(("all", "all", 0.3)))


def changed(folder: Path, **meta: object) -> Results:
    results = read_results(folder)
    return Results(**{**vars(results), "meta": {**results.meta, **meta}})


def test_limitations_follow_from_the_run(folder: Path):
    text = " ".join(limitations(changed(folder)))
    assert "3 seeds" in text and "synthetic numbers" in text and "4,096 pairs, fewer" in text
    text = " ".join(limitations(changed(folder, seeds=[0, 1, 2, 3, 4], n_pairs=20_000)))
    assert "One seed" not in text and "fewer than" not in text
    assert "Not every cell has seeds 0 1 2 3 4: demo-L2 to demo-L2 with soft: 0 1 2;" in text


def test_what_intervals_cover_goes_by_the_seeds_that_rows_have(folder: Path):
    """Not by those of the experiment, whose runs may not be finished."""
    results, names = read_results(folder), {}
    for seeds in (["0"], ["0 1 2"], ["0", "0 1 2"]):
        rows = results.pgr.assign(seeds=[seeds[at % len(seeds)] for at in range(len(results.pgr))])
        one = Results(**{**vars(results), "pgr": rows})
        names[one.resampled] = any("One seed" in text for text in limitations(one))
    assert names == {"prompts, at one seed": True, "seeds and prompts": False,
                     "seeds and prompts, in rows of one seed prompts alone": False}


@pytest.mark.parametrize(("split", "said"), [
    ("train_1", "come out too low"), ("train_2", "biased towards 0"), ("val", "Early stopping")])
def test_every_split_but_test_is_marked_with_what_it_does_to_the_numbers(
        tmp_path: Path, split: str, said: str):
    results = read_results(write_results(tmp_path / "demo", split=split, **SMALL))
    mark = contamination_mark(split)
    first = console_table(results.pgr, results.accuracy, results.ceilings).splitlines()[0]
    assert first == f"! {mark}" and mark.startswith(f"scored on {split}: ")
    assert limitations(results)[0].startswith(f"These numbers are {mark}. ")
    assert [said in limitations(results)[0] for said in (said, "memorised")] == [
        True, split == "train_2"]


def test_ladders_of_two_bases_are_judged_one_by_one_and_by_depth(folder: Path):
    results = read_results(folder)
    ceilings = results.accuracy[results.accuracy.role == "ceiling"].iloc[:1]
    rungs = [("big-L24", 24, 0.80), ("big-L12", 12, 0.85), ("small-L4", 4, 0.60),
             ("small-L8", 8, 0.65)]
    table = pd.concat([ceilings.assign(name=name, layers=layers, accuracy=accuracy)
                       for name, layers, accuracy in rungs])
    text = " ".join(limitations(Results(**{**vars(results), "accuracy": table})))
    assert "do not rise from big-L12 (0.850) to big-L24 (0.800): " in text


def test_a_ladder_that_does_not_rise_is_a_limitation(folder: Path):
    results = read_results(folder)
    assert not any("do not rise" in text for text in limitations(results))
    results.accuracy.loc[(results.accuracy.role == "ceiling")
                         & (results.accuracy.name == "demo-L8"), "accuracy"] = 0.7
    assert any("do not rise from demo-L4 (" in text for text in limitations(results))


@pytest.mark.parametrize("base", ["demo", "a_model_with_quite_a_long_name_7b_instruct"])
def test_console_table_fits_and_shows_every_cell(tmp_path: Path, base: str):
    folder = write_results(tmp_path / "demo", **{**SMALL, "names": [
        f"{base}-L2", f"another_{base}-L4", f"third_{base}-L8"]})
    results = read_results(folder)
    lines = console_table(results.pgr, results.accuracy, results.ceilings).splitlines()
    assert max(map(len, lines)) <= 100
    cells = [line for line in lines if "[" in line and (" soft" in line or " confidence" in line)
             and ("undefined" in line or line.rstrip().endswith("]"))]
    assert len(cells) >= len(results.pgr)
    assert sum(line.endswith("  undefined") for line in lines) == (
        results.cells.status == "undefined").sum()
    assert lines[-1].endswith(".") and not re.search(r"nan|None", "\n".join(lines))


def test_names_that_are_cut_to_fit_still_tell_rungs_of_one_model_apart(tmp_path: Path):
    long, other = "a_model_with_quite_a_long_name_7b_instruct", "another_long_name_of_a_model_8b"
    folder = write_results(tmp_path / "demo", **{**SMALL, "names": [
        f"{long}-L2", f"{long}-L4", f"{other}-L8"]})
    results = read_results(folder)
    lines = console_table(results.pgr, results.accuracy, results.ceilings).splitlines()
    rows = [re.split(r"  +", line)[:2] for line in lines if re.search(r"  soft  ", line)]
    named = {name[-3:] for row in rows for name in row} - {"all"}
    assert named == {"-L2", "-L4", "-L8"} and max(map(len, lines)) <= 100


def test_console_table_takes_tables_made_in_memory(folder: Path):
    results = read_results(folder)
    accuracy = results.accuracy.replace("", None).astype({"seed": "Int64", "layers": "Int64"})
    assert console_table(results.pgr, accuracy, results.ceilings) == console_table(
        results.pgr, results.accuracy, results.ceilings)


def test_console_table_without_students_lists_the_models(folder: Path):
    results = read_results(folder)
    text = console_table(results.pgr.iloc[:0], results.accuracy.query("role != 'student'"),
                         results.ceilings)
    assert "ceiling   demo-L8" in text and "there is no PGR" in text


def test_report_without_students_is_written(tmp_path: Path):
    path = write_results(tmp_path / "demo", **SMALL)
    table = pd.read_csv(path / "accuracy.csv").query("role != 'student'")
    table.to_csv(path / "accuracy.csv", index=False)
    for name in ("pgr", "companions", "calibration", "curves"):
        (path / f"{name}.csv").unlink()
    write_report(path)
    assert "there is no PGR" in (path / "report.md").read_text()


def test_numbers_are_written_the_same_everywhere():
    assert number(0.12345) == "0.123" and number(0.02, signed=True) == "+0.020"
    assert number(-0.0001) == "0.000" and number(-0.0001, signed=True) == "+0.000"
    assert number(np.nan) == "-" and number(None) == "-"


def test_text_is_escaped():
    blocks = [Text("a < b | c"), Table("", ["name"], [["<x>|y"]])]
    assert "a \\< b \\| c" in to_markdown("t", blocks)
    assert "| \\<x>\\|y |" in to_markdown("t", blocks)
    assert "a &lt; b | c" in to_html("t", blocks) and "<td>&lt;x&gt;|y</td>" in to_html("t", blocks)


def test_reports_do_without_torch():
    code = "import sys, src.reports.experiment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
