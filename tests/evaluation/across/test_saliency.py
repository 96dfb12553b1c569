"""Gains over shares of verdict documents, from committed scores."""

import json

import numpy as np
import pandas as pd
import pytest

from src.common.errors import UserError
from src.evaluation.across.saliency import trend_table, write_saliency
from src.measures import tables
from src.measures.run_scores import EvalPairs, RunScores
from src.reports.figures.saliency import saliency_figure
from tests.figure_texts import check_texts
from tests.tiny_experiment import in_process

N = 1000
IDS = np.array([f"{i:016x}" for i in range(N)])


def write(folder, ceiling, gain, students=("m-L8",)):
    """One teacher right on 600 of the pairs, students on `gain` more, ceilings on `ceiling`."""
    pairs = EvalPairs(folder.name, "people", "test", IDS, IDS, np.ones(N), np.ones(N))

    def run(role, name, right, teacher="", method="", seed=0):
        margins = np.where(np.arange(N) < right + seed, 1.0, -1.0)
        return RunScores(role, name, 2, teacher, method, seed, IDS, margins)

    runs = [run(*each, seed=seed) for seed in (0, 1, 2) for each in (
        ("teacher", "m-L5", 600), *(("ceiling", name, ceiling) for name in students),
        *(("student", name, 600 + gain, "m-L5", "soft") for name in students))]
    folder.mkdir()
    tables.scores_table(runs, pairs).to_csv(folder / "scores.csv", index=False)
    (folder / "meta.json").write_text(json.dumps({"experiment": folder.name, "data": "people",
                                                  "split": "test"}))


def test_every_share_has_its_ceiling_gain_and_pgr(tmp_path, capsys):
    for share, ceiling, gain in ((5, 800, 100), (0, 800, 0), (50, 900, 200)):
        write(tmp_path / f"demo_verdicts_{share}", ceiling, gain)
    assert in_process("src.analysis", "--what", "saliency", "--results_dir", str(tmp_path),
                      "--experiment", *(f"demo_verdicts_{share}" for share in (5, 0, 50))) == 0
    said = capsys.readouterr().out
    table, trend = (pd.read_csv(tmp_path / "saliency" / f"{name}.csv")
                    for name in ("saliency", "trend"))
    assert table.share.tolist() == [0, 5, 50]
    assert table.pgr.tolist() == pytest.approx([0, 0.5, 2 / 3])
    assert table.ceiling.tolist() == pytest.approx([0.801, 0.801, 0.901])
    assert (table.ceiling_low < table.ceiling).all()
    steps = trend.set_index("figure").step
    assert steps.to_dict() == pytest.approx({"ceiling": 0.05, "gain": 0.1, "gap": 0.05})
    assert "With 0% verdict documents, soft: no gain is told from 0" in said
    assert "soft: gain rises with the share" in said
    assert (tmp_path / "saliency" / "figures" / "saliency.png").stat().st_size > 10_000


@pytest.mark.parametrize(("pgr", "texts"), [(0.5, []), (np.nan, ["undefined at every share"])])
def test_a_panel_without_a_figure_says_why(pgr, texts, monkeypatch):
    values = {"weak": 0.6, "ceiling": 0.61, "gain": 0.0, "pgr": pgr}
    bounds = {f"{name}{end}": value for name, value in values.items()
              for end in ("", "_low", "_high")}
    table = pd.DataFrame([{"share": share, "method": "soft", "n": N, "seeds": "0 1", **bounds}
                          for share in (0, 50)])
    figure, *_ = saliency_figure(table, 0.95)
    assert [text.get_text() for text in figure.axes[2].texts if "share" in text.get_text()] == texts
    check_texts(figure, monkeypatch)


def test_a_slope_is_one_a_seed_with_student_s_interval():
    rows = [{"share": share, "method": "soft", "seed": seed, "ceiling": 0.8, "gap": 0.1,
             "gain": seed * step} for seed in (1, 2, 3) for step, share in enumerate((0, 1, 20))]
    trend = trend_table(pd.DataFrame(rows), 0.95).set_index("figure")
    assert trend.step["gain"] == pytest.approx(2) and trend.step_low["gain"] < 0
    assert trend.step["ceiling"] == pytest.approx(0)


def test_what_is_no_dial_is_refused(tmp_path):
    write(tmp_path / "demo_verdicts_0", 800, 50)
    write(tmp_path / "demo_verdicts_5", 800, 50, students=("m-L6", "m-L8"))
    with pytest.raises(UserError, match="expected two shares"):
        write_saliency(["demo_verdicts_0"], tmp_path, tmp_path / "saliency")
    with pytest.raises(UserError, match="demo: expected a name that ends with the share"):
        write_saliency(["demo", "demo_verdicts_0"], tmp_path, tmp_path / "saliency")
    with pytest.raises(UserError, match="found 2 such cells"):
        write_saliency(["demo_verdicts_0", "demo_verdicts_5"], tmp_path, tmp_path / "saliency")
    assert not (tmp_path / "saliency").exists()
