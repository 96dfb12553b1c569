"""eval.py --transfer: the matrix, PGR beside it, and what is dropped, against the runs' scores."""

import dataclasses

import matplotlib
import numpy as np
import pandas as pd
import pytest

from configs.schema import EvalConfig
from data.pairs.pair_files import read_pairs
from data.prepare import TokenizerSpec
from data.records import Pair
from src.common.errors import UserError
from src.common.files import read_json
from src.evaluation.sets import eval_set
from src.measures.bootstrap import interval, nested_replicates, resampled_means
from src.measures.run_scores import EvalPairs, RunScores
from src.measures.transfer import ScoredSet, transfer_table, transfer_tables
from src.reports.figures.style import STYLE
from src.reports.figures.transfer import transfer_heatmap
from tests.figure_texts import check_texts
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process, preference_rows

CONFIG = EvalConfig(bootstrap_samples=200)
N = 60


def made_set(data="own", seed=0, seeds=(0, 1, 2), lift=0.0):
    """Teacher, student and ceiling on N pairs, two a prompt."""
    draw = np.random.default_rng(seed)
    ids = np.array([f"{data}-{i}" for i in range(N)])
    pairs = EvalPairs("made", data, "test", ids, np.array([str(i // 2) for i in range(N)]),
                      draw.integers(1, 9, N), draw.integers(1, 9, N))
    levels = {("teacher", "m-L1", "", ""): 0.3, ("ceiling", "m-L4", "", ""): 2.0 + lift,
              ("student", "m-L4", "m-L1", "soft"): 1.0}
    runs = [RunScores(role, name, 1, teacher, method, one, ids, level + draw.standard_normal(N))
            for (role, name, teacher, method), level in levels.items() for one in seeds]
    return ScoredSet(pairs, runs, own=data == "own")


def test_an_accuracy_is_the_mean_over_seeds_with_seeds_nested_in_its_interval():
    scored = made_set()
    table = transfer_table(scored, CONFIG).set_index("role")
    right = np.stack([run.margins > 0 for run in scored.runs if run.role == "student"]).astype(
        float)
    prompts = scored.pairs.prompt_ids
    over = resampled_means(right.mean(axis=0)[None], prompts, samples=200)
    span = interval(right.mean(), nested_replicates(right[:, None], over, prompts).along([1.0]),
                    0.95)
    row = table.loc["student"]
    assert (row.accuracy, row.low, row.high) == pytest.approx(dataclasses.astuple(span))
    assert (row.seeds, row.n, row.teacher) == ("0 1 2", N, "m-L1")


def test_the_last_row_is_the_rule_that_the_shorter_answer_wins():
    scored = made_set()
    row = transfer_table(scored, CONFIG).iloc[-1]
    shorter = scored.pairs.length_rejected - scored.pairs.length_chosen
    assert (row.role, row.seeds) == ("baseline", "")
    assert row.accuracy == pytest.approx(np.mean(0.5 * (1 + np.sign(shorter))))


def test_seeds_that_disagree_widen_the_interval():
    scored = made_set()
    ids = scored.pairs.pair_ids
    wild = [RunScores("teacher", "m-L1", 1, "", "", one, ids,
                      np.where(np.arange(N) < N * share, 1.0, -1.0))
            for one, share in enumerate((0.2, 0.6, 0.9))]
    calm = [dataclasses.replace(wild[1], seed=seed) for seed in range(3)]
    widths = []
    for runs in (wild, calm):
        row = transfer_table(dataclasses.replace(scored, runs=runs), CONFIG).iloc[0]
        widths.append(row.high - row.low)
    assert widths[0] > 1.5 * widths[1]


def test_pgr_is_undefined_elsewhere_where_the_gap_is_not_there():
    _, pgr = transfer_tables([made_set(), made_set("flat", seed=1, lift=-1.7)], CONFIG)
    status = pgr.set_index("data").status
    assert status["own"] == "ok" and status["flat"] == "undefined"
    assert np.isnan(pgr.set_index("data").pgr["flat"])


@pytest.mark.parametrize("names", [("own", "other"),
                                   ("own", "a_rather_long_data_set_name", "b", "c")])
def test_the_heat_map_shows_every_cell_and_nothing_overlaps(monkeypatch, names):
    table, _ = transfer_tables([made_set(name, seed) for seed, name in enumerate(names)], CONFIG)
    table.loc[table["data"] == names[1], "dropped"] = 12
    with matplotlib.rc_context(STYLE):
        figure, title, caption = transfer_heatmap(table, "[ ]: 95% interval over prompts.")
        words = [text.get_text() for text in figure.axes[0].texts]
        assert len([word for word in words if word.startswith("[")]) == len(table) == (
            4 * len(names))
        assert f"{table.accuracy[0]:.3f}" in words
        ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
        assert ticks[:2] == [f"own\nn = {N}", f"{names[1]}\nn = {N}, 12 dropped"]
        check_texts(figure, monkeypatch)


@pytest.fixture(scope="module")
def transferred(finished, tmp_path_factory):
    """A copy of the finished experiment after the command: 24 new rows and 6 of its training."""
    tiny = finished.copy("transfer")
    rows = [*new_rows(), *training_rows(tiny, 6)]
    data = write_jsonl(tmp_path_factory.mktemp("sets") / "elsewhere.jsonl", rows)
    assert in_process("eval", *tiny.evaluate(), "--transfer", str(data)) == 0
    return tiny, data


def new_rows():
    """24 raw rows whose prompts, which are numbered, are not the experiment's."""
    return preference_rows(154, seed=9)[130:]


def training_rows(tiny, count):
    """Raw rows whose prompts are in train_1."""
    trained = set(read_pairs(tiny.processed, "train_1")["prompt_id"].to_pylist())
    return [row for row in preference_rows(130) if pair_of(row).prompt_id in trained][:count]


def pair_of(row):
    return Pair(tuple(row["chosen"][:-1]), *(row[side][-1]["content"] for side in (
        "chosen", "rejected")))


def read(tiny, name):
    return pd.read_csv(tiny.results / f"{name}.csv", keep_default_na=False,
                       na_values={"pgr": [""], "pgr_low": [""], "pgr_high": [""]})


def test_every_model_has_a_row_per_set_that_its_own_scores_give(transferred):
    tiny, _ = transferred
    table = read(tiny, "transfer")
    assert list(dict.fromkeys(table["data"])) == ["pairs", "elsewhere"]
    assert (table["data"].value_counts() == 2 + 2 + 4 + 1).all()  # students; the baseline
    row = table.query("role == 'ceiling' and model == 'llama-L4' and data == 'elsewhere'").iloc[0]
    assert (row.n, row.dropped, row.seeds) == (24, 6, "0 1")
    wanted = {pair_of(raw).pair_id for raw in new_rows()}
    right = []
    for folder in tiny.finished("ceilings"):
        if folder.name.startswith("llama-L4"):
            path, = (folder / "scores").glob("elsewhere-*.parquet")
            scores = pd.read_parquet(path).set_index("pair_id")
            assert len(scores) == 30  # what is dropped here may count elsewhere
            margins = (scores.reward_chosen - scores.reward_rejected).loc[sorted(wanted)]
            right.append((margins > 0).mean())
    assert len(right) == 2 and row.accuracy == pytest.approx(np.mean(right))


def test_pgr_in_distribution_is_that_of_the_experiment_s_own_evaluation(transferred):
    tiny, _ = transferred
    beside = read(tiny, "transfer_pgr")
    alone = tiny.copy("alone")
    (alone.results / "report.html").unlink(missing_ok=True)  # so that it is made anew
    assert in_process("eval", *alone.evaluate()) == 0
    own = read(alone, "pgr")
    assert not list(alone.results.rglob("transfer*"))  # made from an earlier evaluation
    assert set(beside["data"]) == {"pairs", "elsewhere"}
    columns = ["teacher", "student", "method", "gain", "gap", "status"]
    pd.testing.assert_frame_equal(
        own[columns], beside[beside["data"] == "pairs"][columns].reset_index(drop=True))


def test_the_page_says_what_was_dropped(transferred):
    tiny, _ = transferred
    for name in ("transfer.html", "transfer.md"):
        text = (tiny.results / name).read_text()
        assert "6 pairs dropped whose prompt is in a training split" in text


def test_seeds_that_have_not_run_are_not_named(transferred, finished):
    tiny, data = finished.copy("another_seed", seeds=[0, 1, 7]), transferred[1]
    assert in_process("eval", *tiny.evaluate(), "--transfer", str(data)) == 0
    page = (tiny.results / "transfer.md").read_text()
    assert "Means over seeds 0, 1. " in page and "| seeds | 0 1 |" in page


def test_only_an_experiment_s_test_pairs_are_transferred(transferred):
    tiny, data = transferred
    with pytest.raises(UserError, match="goes with an experiment"):
        in_process("eval", "--model", str(tiny.finished("teachers")[0]), "--transfer", str(data))
    with pytest.raises(UserError, match="compares test pairs alone"):
        in_process("eval", *tiny.evaluate(), "--split", "train_2", "--transfer", str(data))


def test_a_second_call_scores_nothing(transferred, monkeypatch):
    tiny, data = transferred
    monkeypatch.setattr("src.scoring.pairs.score", lambda *arguments: 1 / 0)
    assert in_process("eval", *tiny.evaluate(), "--transfer", str(data)) == 0


def test_the_training_data_is_left_as_it_was(transferred, finished):
    tiny, _ = transferred
    assert read_json(tiny.processed / "manifest.json") == read_json(
        finished.processed / "manifest.json")


def test_sets_that_cannot_be_told_apart_or_are_all_training_are_refused(transferred, tmp_path):
    tiny, _ = transferred
    data = write_jsonl(tmp_path / "mine.jsonl", training_rows(tiny, 6))
    for names, message in (([data, data], "two evaluation sets are called mine"),
                           ([data], "mine: every prompt is in a training split of tiny"),
                           ([tiny.root / "pairs.yaml"], "two evaluation sets are called pairs"),
                           ([tmp_path / "nothing.jsonl"], "nothing.jsonl: no such file")):
        with pytest.raises(UserError, match=message):
            in_process("eval", *tiny.evaluate(), "--transfer", *map(str, names))


def test_a_named_set_is_kept_apart_from_the_data_that_models_train_on(finished, tmp_path):
    spec = [TokenizerSpec("tiny", str(finished.model))]
    config = str(finished.root / "pairs.yaml")
    found = eval_set(config, spec, 200, tmp_path, tmp_path / "work")
    assert found.processed.parent == tmp_path / "evaluation"
    assert found.config.max_length == 200
    before = (found.processed / "manifest.json").stat().st_mtime_ns
    again = eval_set(config, spec, 200, tmp_path, tmp_path / "work")
    assert again.processed == found.processed
    assert (again.processed / "manifest.json").stat().st_mtime_ns == before
