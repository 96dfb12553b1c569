"""A search trains on train_1, is judged on train_2, and chooses by nothing else."""

import pandas as pd
import pytest

from src import search
from src.common.errors import UserError
from src.evaluation.experiment import claim_results
from src.scoring import pairs
from tests.tiny_experiment import in_process


def arguments(tiny, *more: str) -> list[str]:
    return ["--experiment", str(tiny.config), "--layers", "1", "2", *tiny.folders,
            "--results_dir", str(tiny.results.parent), *more]


def test_one_teacher_is_searched_for_where_methods_are_of_several(finished, capsys):
    tiny = finished.copy("several")
    methods = [*tiny.settings()["methods"], {"name": "both", "treatment": "mean_margin"}]
    tiny.write_config(tiny.settings(), methods=methods)
    words = arguments(tiny, "--try", "epochs", "1")
    words.remove("2")
    assert in_process("src.search", *words) == 0
    assert "the first line" in capsys.readouterr().out


def test_every_combination_is_trained_once_and_scored_on_train_2_alone(finished, monkeypatch,
                                                                       capsys):
    tiny = finished.copy("search")
    splits, scored = set(), pairs.scores_of

    def watched(folder, run, split, name, *rest):
        splits.add((run.split, name))
        return scored(folder, run, split, name, *rest)

    monkeypatch.setattr(pairs, "scores_of", watched)
    before = set(tiny.finished("teachers"))
    tried = arguments(tiny, "--try", "learning_rate", "1e-3", "1e-2", "--try", "epochs", "1", "2")
    assert in_process("src.search", *tried) == 0
    assert splits == {("train_1", "train_2")}
    table = pd.read_csv(tiny.results / "search.csv")
    assert len(table) == 8 and set(table.layers) == {1, 2}
    assert len(set(tiny.finished("teachers")) - before) == 6  # two are the experiment's own
    assert ((table.low <= table.accuracy) & (table.accuracy <= table.high)).all()
    means = table.groupby(["learning_rate", "epochs"]).accuracy.mean()
    best = capsys.readouterr().out.splitlines()[9].split()
    assert (float(best[0]), float(best[1])) == means.idxmax() or means.nunique() < 4
    assert best[2] == f"{means.max():.4f}"
    after = set(tiny.finished("teachers"))
    assert in_process("src.search", *tried) == 0 and set(tiny.finished("teachers")) == after


@pytest.mark.parametrize(("tried", "message"), [
    (["learning_rate"], "--try learning_rate: give at least one value"),
    (["learning_rates", "1e-3"], "learning_rates"),
    (["epochs", "none"], "epochs"),
    (["lora", "{rank: ["], "--try lora '{rank: \\[': not readable as YAML"),
    (["epochs", "1", "--try", "epochs", "2"], "--try epochs epochs: a key is given twice"),
], ids=["no value", "unknown key", "no number", "no YAML", "twice"])
def test_what_cannot_be_tried_is_refused_before_anything_is_trained(finished, tried, message):
    tiny = finished.copy(f"refused-{len(tried)}-{tried[0]}")
    before = tiny.finished("teachers")
    with pytest.raises(UserError, match=message):
        in_process("src.search", *arguments(tiny, "--try", *tried))
    assert tiny.finished("teachers") == before and not (tiny.results / "search.csv").exists()


def test_a_tried_learning_rate_stands_for_the_ladder_s_own(finished, monkeypatch):
    tiny = finished.copy("ladder-rate")
    ladder = {**tiny.settings()["teachers"][0], "learning_rate": 0.25}
    tiny.write_config(tiny.settings(), teachers=[ladder])

    def rates(*tried):
        monkeypatch.setattr("sys.argv", ["src.search", *arguments(tiny, "--try", *tried)])
        return [{run.train.learning_rate for run in plan.stage("teachers")}
                for plan in search.plans(search.parse_args())]

    assert rates("learning_rate", "1e-3", "1e-2") == [{1e-3}, {1e-2}]
    assert rates("epochs", "1", "2") == [{0.25}, {0.25}]


def test_a_rung_that_a_tried_value_covers_whole_is_filed_under_that_value(finished, capsys):
    tiny = finished.copy("whole-rung")
    tried = arguments(tiny, "--try", "trainable_layers", "null", "1")
    assert in_process("src.search", *tried) == 0
    table = pd.read_csv(tiny.results / "search.csv")
    assert [*zip(table.layers, table.trainable_layers.fillna(0), strict=True)] == [
        (1, 0), (2, 0), (1, 1), (2, 1)]
    means = table.groupby("trainable_layers", dropna=False).accuracy.mean()
    said = capsys.readouterr().out
    assert all(f"{mean:.4f}" in said for mean in means) and "L1, trainable_layers 1," in said


def test_tried_layers_to_train_stand_for_the_ladder_s_own(finished, monkeypatch):
    tiny = finished.copy("ladder-layers")
    ladder = {**tiny.settings()["teachers"][0], "trainable_layers": 1}
    tiny.write_config(tiny.settings(), teachers=[ladder])
    words = arguments(tiny, "--try", "trainable_layers", "1", "2", "3", "null")
    words[words.index("1"):words.index("2") + 1] = ["4"]

    def trained(*words):
        monkeypatch.setattr("sys.argv", ["src.search", *words])
        return [run.train.trainable_layers for plan in search.plans(search.parse_args())
                for run in plan.stage("teachers")]

    assert trained(*words) == [1, 2, 3, None]
    assert trained(*words[:words.index("--try")], "--try", "epochs", "1", "2") == [1, 1]


def test_values_that_have_no_order_are_ranked_together(finished, capsys):
    tiny = finished.copy("no-order")
    tried = arguments(tiny, "--try", "lora", "null", "{rank: 2}", "{rank: 4}")
    tried.remove("2")
    assert in_process("src.search", *tried) == 0
    ranked = capsys.readouterr().out.split("mean accuracy")[1]
    assert [ranked.count(word) for word in ("None", "rank=2", "rank=4")] == [1, 1, 1]
    means = [float(line.split()[-1]) for line in ranked.splitlines() if line.split()[-1:] and
             line.split()[-1].startswith("0.")]
    assert len(means) == 3 and means == sorted(means, reverse=True)


def test_policies_of_the_experiment_do_not_ask_a_search_for_one_teacher(finished, monkeypatch):
    tiny = finished.copy("with-policies")
    tiny.write_config(tiny.settings() | {"policies": {"model": str(tiny.root / "llama.yaml")}})
    monkeypatch.setattr("sys.argv", ["src.search", *arguments(tiny, "--try", "epochs", "1")])
    plan, = search.plans(search.parse_args())
    assert [len(run.kept) for run in plan.stage("teachers")] == [1, 2]


def test_results_that_hold_nothing_but_a_committed_search_are_ours(tmp_path):
    (tmp_path / "search.csv").write_text("a checkout has no mark beside it")
    claim_results(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("search.csv", "thesis.tex"):
        (foreign / name).touch()
    with pytest.raises(UserError, match=r"holds search.csv, thesis.tex, which is not ours"):
        claim_results(foreign)
