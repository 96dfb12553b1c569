"""Scoring any file: rewards are the library's, nothing is scored twice, lost or cut."""

import io
import json
import os

import numpy as np
import pandas as pd
import pytest

from data.read.sources import named_data
from src.common.errors import UserError
from src.scoring import file
from src.scoring.file import ranks
from src.scoring.texts import TextScorer
from tests.tiny_data import messages_row, write_jsonl
from tests.tiny_experiment import command, in_process
from tests.tiny_reward_model import NO_SYSTEM, make_reward_model, plain_reward

ROWS = [
    {"prompt": "Why is the sky blue?", "responses": ["Rayleigh.", "", "It is not.", "Rayleigh."],
     "id": 17},
    {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
     "response": "Because."},
    {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]},
    messages_row("Where?", "Here.", "There."),
    {"prompt": "How?", "responses": [[{"role": "assistant", "content": "So."}], "x" * 200]},
    {"prompt": "No response here."},
    {"prompt": "Whose?", "responses": ["Mine."]},
]
"""Forms of rows; row 5 has a response that is too long, row 6 none at all."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("rm"))


@pytest.fixture
def data(tmp_path):
    return write_jsonl(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def forwards(monkeypatch):
    """Sizes of the questions that a model was asked, a list for each call."""
    asked = []
    rewards = TextScorer.rewards

    def counted(self, questions, title=""):
        asked.append([len(texts) for _, texts in questions])
        return rewards(self, questions, title)

    monkeypatch.setattr(TextScorer, "rewards", counted)
    return asked


def run(model, data, out, *options) -> pd.DataFrame:
    assert in_process("src.scoring", "--model", str(model), "--data", str(data),
                      "--out", str(out), *options) == 0
    return pd.read_parquet(out)


def test_rewards_are_those_of_the_library_s_classifier_one_response_at_a_time(model, data,
                                                                              tmp_path):
    table = run(model, data, tmp_path / "out.parquet").set_index(["row", "response"])
    alone = {(1, i): ([{"role": "user", "content": "Why is the sky blue?"}], text)
             for i, text in enumerate(ROWS[0]["responses"])}
    alone |= {(2, 0): (ROWS[1]["prompt"], "Because."),
              (3, 0): ([{"role": "user", "content": "Who?"}], "Me."),
              (4, 0): ([{"role": "user", "content": "Where?"}], "Here."),
              (4, 1): ([{"role": "user", "content": "Where?"}], "There."),
              (5, 0): ([{"role": "user", "content": "How?"}], "So."),
              (7, 0): ([{"role": "user", "content": "Whose?"}], "Mine.")}
    assert set(table.index) == {*alone, (5, 1)}
    for place, (prompt, text) in alone.items():
        assert table.reward[place] == pytest.approx(plain_reward(model, prompt, text), abs=1e-5)


def test_a_response_that_is_too_long_has_no_reward_and_is_counted(model, data, tmp_path, capsys):
    table = run(model, data, tmp_path / "out.parquet").set_index(["row", "response"])
    assert table[table.reward.isna()].index.tolist() == [(5, 1)]
    assert table["rank"].isna().tolist() == table.reward.isna().tolist()
    said = capsys.readouterr().out
    assert "without a reward: 1 (longer than the model's 128 tokens" in said
    assert "left out: 1 no columns to score" in said


def test_a_conversation_that_the_template_refuses_has_no_reward(data, tmp_path):
    table = run(make_reward_model(tmp_path, NO_SYSTEM), data, tmp_path / "out.parquet")
    assert table[table.reward.isna()].row.tolist() == [2, 5]


def test_rank_1_is_the_best_response_and_equal_ones_share_it(model, data, tmp_path):
    table = run(model, data, tmp_path / "out.parquet")
    own = table[table.row == 1]
    assert own["rank"].tolist() == [1 + sum(other > reward for other in own.reward)
                                    for reward in own.reward]
    assert own["rank"].iloc[0] == own["rank"].iloc[3]
    assert own["id"].tolist() == ["17"] * 4 and table[table.row == 2]["id"].isna().all()
    np.testing.assert_array_equal(ranks(np.array([1.0, 3, np.nan, 3, 2])), [4, 1, np.nan, 1, 3])


def test_best_of_n_keeps_each_prompt_s_best_response(model, data, tmp_path):
    table = run(model, data, tmp_path / "out.parquet", "--best", str(tmp_path / "best.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [f"rows.jsonl:{row}" for row in (1, 2, 3, 4, 5, 7)]
    for line, (_, own) in zip(lines, table.groupby("row"), strict=True):
        assert line["reward"] == own.reward.max() and line["of"] == len(own)
    assert lines[0]["response"] == ROWS[0]["responses"][int(table.reward[:4].argmax())]
    assert lines[1]["prompt"] == ROWS[1]["prompt"] and lines[0]["id"] == "17"


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet"])
def test_other_kinds_of_file_give_the_same_table(model, tmp_path, suffix):
    rows = [{"prompt": f"Question {i}?", "responses": [f"A {i}", "B"], "id": str(i)}
            for i in range(3)]
    first = run(model, write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "first.parquet")
    path = tmp_path / f"rows.{suffix}"
    table = pd.DataFrame(rows)
    if suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "csv":
        table.assign(responses=table.responses.map(json.dumps)).to_csv(path, index=False)
    else:
        table.to_parquet(path)
    other = run(model, path, tmp_path / "other.parquet")
    pd.testing.assert_frame_equal(other.drop(columns="file"), first.drop(columns="file"))


def test_a_finished_table_is_not_made_again_and_other_rows_are(model, data, tmp_path, forwards):
    first = run(model, data, tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(run(model, data, tmp_path / "out.parquet"), first)
    assert forwards == [[4, 1, 1, 2, 2, 1]]
    write_jsonl(data, ROWS[:2])
    assert len(run(model, data, tmp_path / "out.parquet")) == 5 and len(forwards) == 2


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_killed_call_goes_on_after_its_last_part_and_ends_the_same(model, tmp_path, monkeypatch,
                                                                     forwards, at):
    data = write_jsonl(tmp_path / "rows.jsonl", [
        {"prompt": f"Question {i}?", "responses": ["yes", f"no {i}"]} for i in range(10)])
    monkeypatch.setattr(file, "CHUNK_PROMPTS", 4)
    whole = run(model, data, tmp_path / "whole.parquet")
    written = []

    def killed(path, table, inputs):
        if len(written) == at:
            raise KeyboardInterrupt
        written.append(path)
        score_file_write(path, table, inputs)

    score_file_write = file.write_table
    monkeypatch.setattr(file, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    monkeypatch.setattr(file, "write_table", score_file_write)
    forwards.clear()
    pd.testing.assert_frame_equal(run(model, data, tmp_path / "out.parquet"), whole)
    assert [len(chunk) for chunk in forwards] == [4, 4, 2][at:]
    assert sorted(os.listdir(tmp_path)) == ["out.parquet", "rows.jsonl", "whole.parquet"]


def test_parts_of_other_rows_are_not_taken(model, tmp_path, monkeypatch, forwards):
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    monkeypatch.setattr(file, "_join", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(model, data, tmp_path / "out.parquet")
    monkeypatch.undo()
    write_jsonl(data, [{"prompt": "Another?", "response": "Yes."}])
    assert run(model, data, tmp_path / "out.parquet").row.tolist() == [1]


def test_rows_are_held_a_chunk_at_a_time(model, tmp_path, monkeypatch):
    """Of a thousand rows no more than a chunk is ever read ahead of what is scored."""
    monkeypatch.setattr(file, "CHUNK_PROMPTS", 50)
    read, ahead = [], []

    def rows():
        for number in range(1, 1001):
            read.append(number)
            yield number, file.Answers(({"role": "user", "content": "?"},), ("a",), (0.0,),
                                             source=f"rows:{number}")

    class Scorer:
        identity = {}

        def rewards(self, questions, title):
            ahead.append(len(questions))
            assert len(read) == sum(ahead)
            return [np.zeros(1, np.float32)] * len(questions)

    summary = file.score_rows(Scorer(), rows(), "hash", tmp_path / "out.parquet")
    assert (summary.prompts, ahead) == (1000, [50] * 20)


def test_a_person_types_a_prompt_and_responses(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("Why?\nBecause.\nNo.\n" + "x" * 200 + "\n\n"))
    assert in_process("src.scoring", "--model", str(model), "--interactive") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "  " in line]
    rewards = {text: plain_reward(model, [{"role": "user", "content": "Why?"}], text)
               for text in ("Because.", "No.")}
    best, worst = sorted(rewards, key=rewards.get, reverse=True)
    assert [words[2] for words in lines[:2]] == [best, worst]
    assert [words[0] for words in lines[:2]] == ["1.", "2."]
    assert [float(words[1]) for words in lines[:2]] == pytest.approx(
        [rewards[best], rewards[worst]], abs=1e-4)
    assert lines[2][:2] == ["no", "reward"]


def test_a_data_set_is_scored_by_its_name_or_from_a_file_of_that_name_s_form(model, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "Why?", "good": "So.", "bad": "No."}])
    (tmp_path / "mine.yaml").write_text(
        f"path: {tmp_path / 'rows.jsonl'}\nform: prompt_answers\n"
        "keys: {prompt: question, chosen: good, rejected: bad}\n")
    (tmp_path / "other.jsonl").write_text((tmp_path / "rows.jsonl").read_text() * 2)
    assert len(run(model, tmp_path / "mine.yaml", tmp_path / "one.parquet")) == 2
    named = f"{tmp_path / 'mine.yaml'}={tmp_path / 'other.jsonl'}"
    assert len(run(model, named, tmp_path / "two.parquet")) == 4
    assert named_data(named).files == {"test": str(tmp_path / "other.jsonl")}


def refuse(message, model, *options):
    with pytest.raises(UserError, match=message):
        in_process("src.scoring", "--model", str(model), *map(str, options))


def test_mistakes_are_told_in_a_line(model, data, tmp_path):
    refuse("give --data, or --interactive", model)
    refuse("needs --out", model, "--data", data)
    refuse("nothing.jsonl: no such file", model, "--data", "nothing.jsonl", "--out", tmp_path / "o")
    refuse("is the data itself", model, "--data", data, "--out", data)
    (tmp_path / "notes.txt").write_text("keep me")
    refuse("holds no scores", model, "--data", data, "--out", tmp_path / "notes.txt")
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"text": "nothing"}])
    refuse("nothing to score: 1 no columns", model, "--data", empty, "--out",
           tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


def test_the_command_goes_by_the_name_of_the_scoring_module(model, data, tmp_path):
    out = tmp_path / "out.parquet"
    done = command("python", "-m", "src.scoring", "--model", str(model), "--data", str(data),
                   "--out", str(out))
    assert done.returncode == 0 and f"{out}: 11 responses to 6 prompts" in done.stdout, done.stderr


@pytest.mark.parametrize("positions", [0, -1])
def test_a_model_of_no_position_is_refused_and_gives_no_table_of_missing_rewards(
        data, tmp_path, positions):
    model = make_reward_model(tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    with pytest.raises(UserError, match=f"max_position_embeddings {positions}"):
        run(model, data, tmp_path / "out.parquet")
    assert not list(tmp_path.glob("out*"))


def test_a_model_whose_weights_were_replaced_at_the_same_size_is_asked_again(data, tmp_path):
    model, other = make_reward_model(tmp_path), make_reward_model(tmp_path / "other", seed=1)
    first = run(model, data, tmp_path / "out.parquet")
    (model / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    second = run(model, data, tmp_path / "out.parquet")
    assert (first.reward.dropna() != second.reward.dropna()).all()
    prompt = [{"role": "user", "content": "Whose?"}]
    assert second.reward.iloc[-1] == pytest.approx(plain_reward(other, prompt, "Mine."), abs=1e-5)
