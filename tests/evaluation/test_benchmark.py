"""A reward model on a benchmark: its rows as they are, its scores, tables and figures."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from configs.schema import CONFIG_ROOT, DataConfig, load_config
from src.common.errors import UserError
from src.common.owned import MARK
from src.evaluation import benchmark
from src.evaluation.benchmark import benchmark_config, evaluate_benchmark
from src.evaluation.benchmark_source import read_rows
from src.measures.benchmarks.scores import benchmark_scores
from src.reports.benchmark import read_report
from src.reports.figures.benchmark import draw_benchmark, ordered, scores_figure
from tests.measures.test_benchmark_scores import RM, TIES, TIES_SCORE, V1, table
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process
from tests.tiny_reward_model import make_reward_model, plain_reward

ROWS = [
    {"prompt": "Why?", "chosen": "Because it is.", "rejected": "No.", "subset": "mt-bench-easy",
     "id": 1},
    {"prompt": "Why?", "chosen": "Because it is.", "rejected": "No.", "subset": "mt-bench-easy",
     "id": 2},
    {"prompt": "Who?", "chosen": "I.", "rejected": "I.", "subset": "mt-bench-med", "id": 3},
    {"prompt": "Where?", "chosen": "x" * 200, "rejected": "Here.", "subset": "donotanswer",
     "id": 4},
    {"prompt": "When?", "chosen": "At noon.", "rejected": "Never, ever.", "subset": "donotanswer",
     "id": 5},
    {"prompt": "Whose?", "rejected": "Mine.", "subset": "donotanswer", "id": 6}]
"""Asked twice; identical sides; too long for the model; sound; without a chosen response."""
NAMED = ("reward_bench", "reward_bench_2", "rm_bench", "judge_bench", "llmbar", "pandalm")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("rm"))


@pytest.fixture
def data(tmp_path):
    return f"reward_bench={write_jsonl(tmp_path / 'rows.jsonl', ROWS)}"


def run(tmp_path, *options) -> pd.DataFrame:
    """eval.py; scores.csv by the parts' names."""
    assert in_process("eval", "--output_dir", str(tmp_path / "out"), *map(str, options)) == 0
    return pd.read_csv(tmp_path / "out" / "scores.csv").set_index("name")


def test_rewards_are_those_of_the_library_s_classifier_and_no_row_is_dropped(model, data,
                                                                             tmp_path):
    found = run(tmp_path, "--model", model, "--data", data)
    rewards = pd.read_parquet(tmp_path / "out" / "rewards.parquet")
    assert rewards["id"].tolist() == [str(i) for i in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    for line in rewards.itertuples():
        row = ROWS[line.row]
        text = row["rejected" if line.response else "chosen"]
        assert (line.value, line.length) == (1 - line.response, len(text))
        if len(text) < 100:
            prompt = [{"role": "user", "content": row["prompt"]}]
            assert line.reward == pytest.approx(plain_reward(model, prompt, text), abs=1e-5)
    assert found.n["mt-bench-easy"] == 2 and found.ties["mt-bench-med"] == 1
    assert (found.score["mt-bench-med"], found.accuracy["mt-bench-med"]) == (0, 0.5)


def test_what_is_in_no_score_is_said(model, data, tmp_path, capsys):
    found = run(tmp_path, "--model", model, "--data", data)
    said = capsys.readouterr().out
    assert (found.n["donotanswer"], found.missing["donotanswer"]) == (1, 1)
    for words in ("rows in no score: 1 (a response is longer than the model's 128 tokens",
                  "left out: 1 missing key chosen", "no row of alpacaeval-easy",
                  "expected 2,985 rows (published), found 6"):
        assert words in said


def test_length_alone_is_scored_beside_the_model_on_the_same_rows(model, data, tmp_path):
    found = run(tmp_path, "--model", model, "--data", data)
    parts = ["mt-bench-easy", "mt-bench-med", "donotanswer", "Chat", "overall"]
    chat = 28 / (28 + 40)
    assert found.longer[parts].tolist() == pytest.approx([1, 0, 0, chat, chat / 2])
    assert found.shorter[parts].tolist() == pytest.approx([0, 0, 1, 0, 1 / 2])


def test_rewards_are_made_once_and_again_for_another_model_or_other_rows(model, data, tmp_path,
                                                                         monkeypatch):
    asked = []
    make = benchmark.reward_table
    monkeypatch.setattr(benchmark, "reward_table",
                        lambda *given: asked.append(given[1]) or make(*given))
    first = run(tmp_path, "--model", model, "--data", data)
    pd.testing.assert_frame_equal(run(tmp_path, "--model", model, "--data", data), first)
    assert len(asked) == 1
    write_jsonl(tmp_path / "rows.jsonl", ROWS[:1])
    assert run(tmp_path, "--model", model, "--data", data).n["overall"] == 1 and len(asked) == 2


@pytest.mark.parametrize(("name", "rows", "score"), [
    ("reward_bench", V1, (90 / 140 + 100 / 137 + 154 / 404 + 1148 / 1312) / 4),
    ("reward_bench_2", [*TIES, ("Math", [1.0], [1.0, 0.0, 0.0])], (TIES_SCORE + 0.5) / 2),
    ("rm_bench", RM, (4 / 9 + 2 / 3 + 2 / 3) / 3)])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_made_score_file_gives_the_scores_worked_out_by_hand(tmp_path, name, rows, score, suffix):
    path = tmp_path / f"made.{suffix}"
    table(*rows).to_csv(path, index=False) if suffix == "csv" else table(*rows).to_parquet(path)
    found = run(tmp_path, "--model", "mine", "--data", name, "--scores", path)
    assert found.score["overall"] == pytest.approx(score)
    assert set(found.model) == {"mine"} and "longer" not in found


@pytest.mark.parametrize("name", NAMED)
def test_every_named_benchmark_reads_its_rows_and_has_a_score(name, tmp_path):
    config = benchmark_config(f"{name}={CONFIG_ROOT.parent / 'data' / 'fixtures' / name}.jsonl")
    rows = read_rows(config)

    class Scorer:
        def rewards(self, questions, title):
            return [np.array([-len(text) for text in texts], np.float32) for _, texts in questions]

    made = benchmark.reward_table(Scorer(), rows, "")
    report = read_report(config, made, "shortest", [], "")
    preferred = [row for row in rows.answers if len(set(row.values)) > 1]
    assert report.overall.n == len(rows.answers if name == "pandalm" else preferred) >= 8
    assert report.baselines["shorter"]["overall"] == pytest.approx(report.overall.score)
    drawn = draw_benchmark(report, tmp_path)
    assert [figure.path.name for figure in drawn] == ["scores.png", "styles.png"][
        :2 if name == "rm_bench" else 1]


def test_the_figure_has_a_line_for_every_part_under_its_section():
    config = load_config(DataConfig, "reward_bench")
    report = read_report(config, table(*V1), "mine", [], "")
    figure, title = scores_figure(report)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["overall", "Chat", "alpacaeval-easy"] and len(names) == 14
    assert names.index("Safety") + 1 == names.index("xstest-should-refuse")
    assert names == [score.name for score in ordered(benchmark_scores("reward_bench", table(*V1)))]
    assert title == "mine on reward_bench: 0.657"


def test_data_without_a_scorer_of_its_own_is_no_benchmark(tmp_path):
    assert benchmark_config("demo") is None and benchmark_config(None) is None
    assert benchmark_config(str(write_jsonl(tmp_path / "rows.jsonl", ROWS))) is None


def test_a_scorer_without_code_is_refused_by_name(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"path: {write_jsonl(tmp_path / 'rows.jsonl', ROWS)}\nscorer: elo\n")
    with pytest.raises(UserError, match="data/mine: scorer 'elo' is none of accuracy, subsets"):
        benchmark_config(str(config))


@pytest.mark.parametrize(("options", "message"), [
    (["--model", "m", "--data", "reward_bench", "--scores", "none.csv"], "no such file"),
    (["--model", "m", "--data", "demo", "--scores", "none.csv"], "the name of a benchmark"),
    (["--model", "m", "--data", "reward_bench"], "neither a folder nor an experiment"),
    (["--model", "demo", "--data", "reward_bench"], "go with one reward model")])
def test_mistakes_are_told_in_a_line(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *options)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_no_number_is_refused_and_an_empty_one_counted(tmp_path, value, suffix):
    """Written as nan; a null of parquet and an empty cell of csv are rewards that are missing."""
    made, path = table(*V1), tmp_path / f"made.{suffix}"

    def write(reward):
        rewards = pa.array([reward, *made["reward"][1:]], from_pandas=False)
        arrow = pa.Table.from_pandas(made.drop(columns="reward"), preserve_index=False)
        arrow = arrow.append_column("reward", rewards)
        if suffix == "parquet":
            pq.write_table(arrow, path)
        else:
            path.write_bytes(b"")
            csv.write_csv(arrow, path)

    write(value)
    with pytest.raises(UserError, match="1 rewards such as (nan|inf) are no numbers"):
        run(tmp_path, "--model", "mine", "--data", "reward_bench", "--scores", path)
    assert not (tmp_path / "out").exists()
    write(None)
    found = run(tmp_path, "--model", "mine", "--data", "reward_bench", "--scores", path)
    assert found.missing["overall"] == 1


def test_a_score_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "made.csv"
    pd.DataFrame({"row": [1], "reward": ["high"]}).to_csv(path, index=False)
    with pytest.raises(UserError, match="row, id, subset, response, value, reward"):
        run(tmp_path, "--model", "mine", "--data", "rm_bench", "--scores", path)


def test_a_run_s_benchmarks_lie_under_its_experiment(finished, data, tmp_path):
    folder = finished.finished("ceilings")[0]
    lines = evaluate_benchmark(folder, benchmark_config(data), tmp_path / "results", None,
                               finished.processed.parent)
    place = tmp_path / "results" / "tiny" / "benchmarks" / folder.name / "reward_bench"
    assert {path.name for path in place.iterdir()} == {MARK, "figures", "meta.json",
                                                       "rewards.parquet", "scores.csv"}
    assert str(place / "scores.csv") in lines


@pytest.mark.parametrize(("name", "rows"), [("pandalm", 2), ("judge_bench", 1)])
def test_rows_in_no_score_are_those_that_the_benchmark_scores(name, rows):
    """PandaLM scores ties too: one without a reward is missing there, and nowhere else."""
    subset = "mmlu-pro-law"
    given = [("whole", (1.0, 0.0), (0.5, 0.2)), ("part", (1.0, 0.0), (0.5, np.nan)),
             ("tied", (1.0, 1.0), (np.nan, 0.2)), ("other", (1.0, 0.0), (0.1, 0.2))]
    lines = [{"row": number, "id": "", "subset": subset, "response": i, "value": values[i],
              "reward": rewards[i]}
             for number, (_, values, rewards) in enumerate(given) for i in range(2)]
    report = read_report(load_config(DataConfig, name), pd.DataFrame(lines), "m", [], "too long")
    assert f"rows in no score: {rows} (a response is too long)" in report.notes
    assert report.overall.missing == rows
