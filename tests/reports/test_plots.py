"""Figures: what they state, what they mark, and that nothing in them overlaps or is cut off."""

import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from src.common.errors import UserError
from src.reports.experiment import draw_figures
from src.reports.figures.ladder import accuracy_by_depth, teacher_title
from src.reports.figures.pgr import pgr_heatmap
from src.reports.figures.style import STYLE, provenance, save, spread
from src.reports.figures.training import calibration_figure, learning_curves
from src.reports.results import Results, Rungs, mean_over_seeds, read_results
from tests.figure_texts import check_texts
from tests.result_tables import write_results

FIGURES = {"accuracy_by_depth": accuracy_by_depth, "pgr_heatmap": pgr_heatmap,
           "learning_curves": learning_curves, "calibration": calibration_figure}
SHAPES = {
    "one_cell": {"names": ["demo-L2", "demo-L8"], "layers": [2, 8], "teachers": 1,
                 "methods": ["soft"], "seeds": [0], "steps": 8},
    "other_models": {"names": ["gpt2-L12", "gpt2_medium-L24", "gpt2_large-L36", "gpt2_xl-L48"],
                     "layers": [12, 24, 36, 48], "teachers": 3, "steps": 8},
    "other_families": {"names": ["smollm2_135m-F6", "smollm2_135m-F8", "gemma_3_270m-F8",
                                 "gemma_3_270m-F12"], "layers": [6, 8, 8, 12], "teachers": 3,
                       "methods": ["soft"], "steps": 8},
    "many_methods": {"names": ["demo-L5", "demo-L8"], "layers": [5, 8], "teachers": 1, "steps": 8,
                     "methods": [f"method_{number}" for number in range(18)]},
    "long_name": {"names": [f"a_base_model_with_quite_a_name-L{count}" for count in (5, 8)],
                  "layers": [5, 8], "teachers": 1, "steps": 8,
                  "methods": ["soft", "confidence", "probe"]},
    "falling": {"names": ["demo-F2", "demo-F4", "demo-L8"], "layers": [2, 4, 8], "steps": 8,
                "methods": ["soft"], "fall": 0.1},
    "many": {"names": [f"big-L{count}" for count in (4, 6, 8, 10, 12, 14, 15, 16)],
             "layers": [4, 6, 8, 10, 12, 14, 15, 16], "teachers": 5, "missing": 3, "steps": 8,
             "methods": ["soft", "confidence", "margin_mse"]},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two teachers, five rungs, two methods, three seeds."""
    return read_results(write_results(tmp_path_factory.mktemp("results") / "demo", steps=8))


def draw(name: str, results: Results) -> Figure:
    with matplotlib.rc_context(STYLE):
        return FIGURES[name](results)[0]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def test_every_figure_is_a_valid_png_and_svg(tmp_path: Path):
    drawn = draw_figures(read_results(write_results(tmp_path / "demo", **SHAPES["one_cell"])))
    assert set(drawn) == set(FIGURES)
    for name, figure in drawn.items():
        assert figure.path == tmp_path / "demo" / "figures" / f"{name}.png"
        with Image.open(figure.path) as image:
            image.verify()
            assert image.width >= 800
        assert ElementTree.parse(io.BytesIO(figure.svg)).getroot().tag.endswith("svg")
        assert figure.title and figure.caption
    assert {path.suffix for path in (tmp_path / "demo" / "figures").iterdir()} == {".png"}


def test_the_same_tables_give_the_same_bytes(tmp_path: Path):
    results = read_results(write_results(tmp_path / "demo", **SHAPES["one_cell"]))
    with matplotlib.rc_context(STYLE):
        first, second = (save(pgr_heatmap(results)[0], tmp_path / folder, "map", "", "")
                         for folder in ("first", "second"))
    assert second.svg == first.svg
    assert second.path.read_bytes() == first.path.read_bytes()


def test_a_table_without_rows_has_no_figure(tmp_path: Path):
    folder = write_results(tmp_path / "demo", **SHAPES["one_cell"])
    for name in ("pgr", "curves", "calibration"):
        (folder / f"{name}.csv").unlink()
    assert set(draw_figures(read_results(folder))) == {"accuracy_by_depth"}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_state_pairs_prompts_seeds_and_split(results: Results, name: str):
    text = " ".join(words(draw(name, results)))
    assert "split test, n = 4,096 pairs of 2,048 prompts, seeds 0, 1, 2" in text
    assert "scored on train_2" not in text


def test_figures_name_the_seeds_that_have_run_not_those_that_are_planned(results: Results):
    one = dataclasses.replace(results, accuracy=results.accuracy[results.accuracy.seed != 2])
    assert ", seeds 0, 1" in provenance(one) and "2" not in provenance(one).split("seeds")[1]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_training_pairs_are_marked(tmp_path: Path, name: str):
    folder = write_results(tmp_path / "demo" / "train_2", split="train_2", **SHAPES["one_cell"])
    assert ("scored on train_2: the students' own training pairs"
            in words(draw(name, read_results(folder))))


def test_heat_map_marks_undefined_cells_and_leaves_missing_ones_blank(tmp_path: Path):
    results = read_results(write_results(tmp_path / "demo", **SHAPES["many"]))
    text = words(draw("pgr_heatmap", results))
    cells = results.cells
    undefined = cells[cells.status == "undefined"]
    assert text.count("undefined") == len(undefined) > 0
    assert sum(word.startswith("gap ") for word in text) == len(undefined)
    assert sum(word.startswith("[") for word in text) == len(cells) - len(undefined)
    assert not {"nan", "0.00", "None"} & set(text)


def test_heat_map_says_which_values_its_colours_cannot_show(results: Results):
    table = results.pgr.copy()
    table.loc[table.index[2:4], ["pgr", "pgr_low", "pgr_high", "status"]] = [
        [1.25, 0.9, 1.6, "ok"], [-1.5, -3.0, 0.1, "ok"]]
    text = words(draw("pgr_heatmap", Results(**{**vars(results), "pgr": table})))
    assert {"▲ 1.25", "▼ -1.50", "[0.90, 1.60]"} <= set(text)
    assert "2 of 18 values" in " ".join(text)


def test_heat_maps_of_a_row_name_their_teachers_once_and_several_together_in_a_line_each(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_results(tmp_path / "demo", **SHAPES["many_methods"])
    for name in ("accuracy", "pgr"):
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        table.loc[table.method == "method_3", "teacher"] = "mean_margin-of-demo-L5+quite_long-L6"
        table.to_csv(folder / f"{name}.csv", index=False)
    with matplotlib.rc_context(STYLE):
        figure = pgr_heatmap(read_results(folder))[0]
        check_texts(figure, monkeypatch)
    panels = figure.axes[:18]
    named = {axes.get_position().x0 for axes in panels if axes.get_ylabel()}
    assert named == {min(axes.get_position().x0 for axes in panels)}
    assert len(named) < len({axes.get_position().x0 for axes in panels})
    for axes in panels:
        names = [tick.get_text() for tick in axes.get_yticklabels()]
        assert names == (["demo-L5", "mean_margin of\ndemo-L5 +\nquite_long-L6"]
                         if axes.get_ylabel() else [])


def test_ladder_has_a_panel_per_teacher_with_the_interval_of_the_gain(results: Results):
    figure = draw("accuracy_by_depth", results)
    assert [axes.get_title("left") for axes in figure.axes] == ["teacher: 2 layers",
                                                                "teacher: 3 layers"]
    row = results.cells.query("teacher == 'demo-L2' and student == 'demo-L8' "
                              "and method == 'soft'").iloc[0]
    expected = [row.weak + row.gain_low, row.weak + row.gain_high]
    bars = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    assert any(np.allclose(bar, expected) for bar in bars)
    assert {"TF-IDF 0.610", "length only 0.596"} <= set(words(figure))


def test_a_bar_that_clears_the_teacher_s_line_is_a_gain_where_a_cell_has_fewer_seeds(
        results: Results):
    row = results.cells.query("teacher == 'demo-L2' and student == 'demo-L8' "
                              "and method == 'soft'").iloc[0]
    fewer = results.pgr.assign(weak=results.pgr.weak + 0.02)
    figure = draw("accuracy_by_depth", Results(**{**vars(results), "pgr": fewer}))
    bars = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    weak = mean_over_seeds(results.accuracy).query("role == 'teacher' and name == 'demo-L2'")
    assert any(np.allclose(bar, weak.accuracy.item() + np.array([row.gain_low, row.gain_high]))
               for bar in bars)


@pytest.mark.parametrize("shape", ["many_methods", "many"])
def test_marks_of_one_rung_stand_apart_nearer_to_it_than_to_the_next_and_in_the_panel(
        tmp_path: Path, shape: str):
    results = read_results(write_results(tmp_path / shape, **SHAPES[shape]))
    rungs = np.array(SHAPES[shape]["layers"], float)
    for axes in draw("accuracy_by_depth", results).axes:
        places = np.concatenate([line.get_xdata() for line in axes.lines
                                 if line.get_marker() != "None"]).round(9)
        assert len(set(places)) == len(places) > len(rungs)
        assert axes.get_xlim()[0] < places.min() and places.max() < axes.get_xlim()[1]
        assert np.abs(places[:, None] - rungs).min(axis=1).max() < np.diff(rungs).min() / 2


def test_ladder_marks_a_best_ceiling_that_is_not_the_deepest(results: Results, tmp_path: Path):
    falling = read_results(write_results(tmp_path / "demo", **SHAPES["falling"]))
    best = falling.ceilings.query("place == 'best'").accuracy.iloc[0]
    figure = draw("accuracy_by_depth", falling)
    for axes in figure.axes:
        assert f"best ceiling {best:.3f}" in [text.get_text() for text in axes.texts]
        assert any(np.allclose(line.get_ydata(), [best, best]) for line in axes.lines)
    assert "best ceiling" not in " ".join(words(draw("accuracy_by_depth", results)))


def test_ladder_across_models_keeps_the_order_of_the_table(tmp_path: Path):
    results = read_results(write_results(tmp_path / "gpt2", **SHAPES["other_models"]))
    axes = draw("accuracy_by_depth", results).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl"]
    assert list(axes.get_xticks()) == [0, 1, 2, 3]


def test_ladder_of_one_family_s_students_has_depth_across_whoever_teaches(tmp_path: Path):
    folder = write_results(tmp_path / "cross", **SHAPES["other_families"])
    for name in ("accuracy", "pgr"):
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        student = table["student" if name == "pgr" else "name"]
        kept = student.str.startswith(("gemma", "length", "tfidf", "all"))
        kept |= table.get("role", pd.Series("", table.index)) == "teacher"
        kept &= ~table.teacher.str.startswith("gemma")
        table[kept].to_csv(folder / f"{name}.csv", index=False)
    figure = draw("accuracy_by_depth", read_results(folder))
    assert [axes.get_title("left") for axes in figure.axes] == [
        "teacher: smollm2_135m-F6", "teacher: smollm2_135m-F8"]
    for axes in figure.axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "12"]
        assert axes.get_xlabel() == "layers kept of gemma_3_270m"


def test_ladder_without_students_shows_teachers_and_ceilings(tmp_path: Path):
    folder = write_results(tmp_path / "demo", **SHAPES["one_cell"])
    table = pd.read_csv(folder / "accuracy.csv").query("role != 'student'")
    table.to_csv(folder / "accuracy.csv", index=False)
    (folder / "pgr.csv").unlink()
    text = words(draw("accuracy_by_depth", read_results(folder)))
    assert any(word.startswith("teachers 0.") for word in text)
    assert any(word.startswith("ceiling 0.") for word in text)


def test_learning_curves_and_calibration_have_a_panel_per_role(results: Results):
    titles = {axes.get_title("left") for axes in draw("learning_curves", results).axes}
    assert titles == {"teachers", "ceilings", "students, soft", "students, confidence"}
    figure = draw("calibration", results)
    assert {axes.get_title("left") for axes in figure.axes} == titles
    n = results.calibration.query("role == 'teacher'").n.sum()
    assert any(f"n = {n:,.0f} scored pairs" in word for word in words(figure))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["accuracy_by_depth", "pgr_heatmap", "calibration"])
def test_no_text_overlaps_or_leaves_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               name: str, shape: str):
    results = read_results(write_results(tmp_path / "demo", **SHAPES[shape]))
    with matplotlib.rc_context(STYLE):
        check_texts(FIGURES[name](results)[0], monkeypatch)


RULES = {"names": [f"smollm2_135m-{rule}{count}" for rule in "FLBI" for count in (8, 16)],
         "layers": [8, 16] * 4, "teachers": 8, "methods": ["soft"], "steps": 8}
"""Teachers alone, cut from one base by four rules at two depths each."""


def of_teachers(results: Results) -> Results:
    return dataclasses.replace(results, pgr=results.pgr[:0], **{
        name: getattr(results, name).query("role in ('teacher', 'baseline')")
        for name in ("accuracy", "curves", "calibration")})


@pytest.mark.parametrize("name", ["accuracy_by_depth", "learning_curves", "calibration"])
def test_many_rungs_with_long_names_over_one_panel_stay_in_the_figure(tmp_path: Path, monkeypatch,
                                                                      name: str):
    results = of_teachers(read_results(write_results(tmp_path / "rules", **RULES)))
    with matplotlib.rc_context(STYLE):
        figure = FIGURES[name](results)[0]
        check_texts(figure, monkeypatch)
    assert len(figure.axes) == 1 and all(any(rung in word for word in words(figure))
                                         for rung in RULES["names"])


def test_a_line_joins_cuts_by_one_rule_only(tmp_path: Path):
    results = of_teachers(read_results(write_results(tmp_path / "rules", **RULES)))
    lines = [line.get_xdata() for line in draw("accuracy_by_depth", results).axes[0].lines
             if line.get_marker() != "None"]
    assert [list(line) for line in lines] == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(("shape", "sizes"), [
    ("other_models", [4]), ("many", [8]), ("other_families", [2, 2])])
def test_different_models_and_depths_of_one_are_joined(tmp_path: Path, shape: str,
                                                       sizes: list[int]):
    rungs = Rungs.of(read_results(write_results(tmp_path / "demo", **SHAPES[shape])).accuracy)
    assert [len(each) for each in rungs.ladders(rungs.names)] == sizes


def test_curves_of_students_of_several_teachers_have_titles_apart(tmp_path: Path, monkeypatch):
    given = read_results(write_results(tmp_path / "demo", **SHAPES["other_families"]))
    several = "mean_margin-of-smollm2_135m-F6+smollm2_135m-F8"
    tables = {name: getattr(given, name).replace({"teacher": {"smollm2_135m-F8": several}})
              for name in ("accuracy", "curves")}
    with matplotlib.rc_context(STYLE):
        figure = learning_curves(dataclasses.replace(given, **tables))[0]
        check_texts(figure, monkeypatch)
    assert "mean_margin of smollm2_135m-F6 + F8" in words(figure)


def test_labels_are_spread_to_the_nearest_places_that_are_apart():
    np.testing.assert_allclose(spread([1.0, 1.0, 5.0], 1.0, 0.0, 9.0), [0.5, 1.5, 5.0])
    np.testing.assert_allclose(spread([3.0, 0.1, 0.0], 1.0, 0.0, 9.0), [3.0, 1.0, 0.0])
    np.testing.assert_allclose(spread([8.9, 9.0], 1.0, 0.0, 9.0), [8.0, 9.0])
    assert len(spread([], 1.0, 0.0, 9.0)) == 0


def test_means_over_seeds_keep_the_widest_interval(results: Results):
    row = mean_over_seeds(results.accuracy).query("role == 'teacher'").iloc[0]
    runs = results.accuracy.query("role == 'teacher' and name == 'demo-L2'")
    assert row.accuracy == pytest.approx(np.mean(runs.accuracy))
    assert (row.low, row.high, row.seeds) == (min(runs.low), max(runs.high), "0 1 2")


def test_rungs_with_the_same_number_of_layers_are_told_apart_by_name():
    table = pd.DataFrame({"role": "ceiling", "name": ["demo-L4", "demo-F4"], "layers": [4, 4],
                          "teacher": ""})
    rungs = Rungs.of(table)
    assert rungs.base == "" and list(rungs.ticks.values()) == ["demo-L4", "demo-F4"]


@pytest.mark.parametrize("names", [("demo-L8-p2", "demo-L8"), ("demo-L6-p10", "demo-L8"),
                                   ("demo-L8-p2.5", "gpt2-L12")])
def test_teachers_of_fewer_prompts_are_told_by_their_whole_name(names):
    table = pd.DataFrame({"role": ["teacher", "ceiling"], "name": names, "teacher": "",
                          "layers": [int(re.search(r"L(\d+)", name)[1]) for name in names]})
    rungs = Rungs.of(table)
    assert rungs.base == "" and tuple(rungs.ticks.values()) == names


def test_an_empty_field_is_missing_and_not_zero(results: Results):
    undefined = results.cells[results.cells.status == "undefined"]
    assert len(undefined) and undefined.pgr.isna().all()
    assert results.accuracy.query("role == 'baseline'").layers.isna().all()
    assert set(results.accuracy.query("role == 'teacher'").teacher) == {""}


@pytest.mark.parametrize(("name", "content", "message"), [
    ("meta.json", '{"experiment": "demo", ', "meta.json: not readable"),
    ("meta.json", "{}", "no experiment or split"),
    ("accuracy.csv", "experiment,role\ndemo,teacher\n", "column name, layers.* is missing"),
    ("pgr.csv", "experiment,gain\ndemo,much\n", "pgr.csv: not readable"),
    ("pgr.csv", "", "pgr.csv: not readable"),
])
def test_a_broken_table_is_a_user_error(tmp_path: Path, name: str, content: str, message: str):
    folder = write_results(tmp_path / "demo", **SHAPES["one_cell"])
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_results(folder)


def test_a_folder_without_accuracy_is_a_user_error(tmp_path: Path):
    folder = write_results(tmp_path / "demo", **SHAPES["one_cell"])
    (folder / "accuracy.csv").unlink()
    with pytest.raises(UserError, match=r"accuracy.csv: no such file: write it again with eval.py"):
        read_results(folder)


@pytest.mark.parametrize("bins", [1, None])
def test_calibration_is_drawn_where_bins_have_too_few_pairs(results: Results, bins: int | None):
    table = results.calibration.copy()
    table.loc[table.bin_low.isin(sorted(table.bin_low.unique())[:bins]), "n"] = 1
    figure, _, _ = calibration_figure(dataclasses.replace(results, calibration=table))
    assert figure.axes


def test_calibration_shows_every_bin_of_a_rung_that_lies_below_the_others(results: Results):
    table = results.calibration.copy()
    table["n"] = table.n + 1000
    worst = table.index[table.role == "teacher"][-1]
    table.loc[worst, "accuracy"] = 0.12
    figure, _, _ = calibration_figure(dataclasses.replace(results, calibration=table))
    for axes in figure.axes:
        low, high = axes.get_ylim()
        heights = np.concatenate([line.get_ydata() for line in axes.lines])
        assert low < heights.min() and heights.max() < high, axes.get_title("left")
    assert min(np.min(line.get_ydata()) for axes in figure.axes for line in axes.lines) < 0.2


def test_several_teachers_name_the_base_that_they_share_once():
    assert teacher_title("mean_margin-of-big_1-F6+big_1-F8", None) == "mean_margin of big_1-F6 + F8"
    assert teacher_title("mean_margin-of-big_1-F6+small-F8", None) == (
        "mean_margin of big_1-F6 + small-F8")
