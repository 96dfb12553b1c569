"""The tax of a finished run, against the library's own models and an independent scorer."""

import json

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from data.tokens.formatting import load_tokenizer
from model.base.language_head import head_weight
from model.base.language_model import as_language_model
from src.common.errors import UserError
from src.evaluation.tax.harness import load_tasks, task_scores
from src.evaluation.tax.language import read_pair
from src.runs.folders import read_run
from tests.tiny_experiment import in_process

TEXT = "the river and the quiet stone, seven lamps over a bridge; " * 12 + "naïve paper salt\n" * 3
QUESTIONS = [{"question": f"{number}: river or stone?", "choices": choices, "gold": number % 2}
             for number, choices in enumerate([["river", "a quiet stone"], ["salt", "lamp"],
                                               ["seven", "orange window"], ["Yes", "No"]] * 3)]


@pytest.fixture
def student(finished):
    """A finished student that keeps two of the base's four layers."""
    return next(folder for folder in finished.finished("students")
                if len(read_run(folder).kept) == 2)


@pytest.fixture
def asked(finished, tmp_path, monkeypatch):
    """A folder of prepared questions, of one task; what `datasets` keeps of them goes with it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return write_questions(tmp_path / "processed")


def write_questions(folder):
    """QUESTIONS as prepared data of the task boolq below a folder."""
    (folder / "tax").mkdir(parents=True)
    (folder / "tax" / "boolq.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return folder


def by_hand(trunk, head, ids, first):
    """Sum of -log P of ids[first:], each given all before it."""
    with torch.no_grad():
        odds = head(trunk(torch.tensor([ids])).last_hidden_state)[0, first - 1:-1]
    return float(torch.nn.functional.cross_entropy(odds, torch.tensor(ids[first:]),
                                                   reduction="sum"))


def test_nats_and_bits_are_those_of_the_library_s_states_under_the_base_s_head(
        finished, student, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    in_process("src.tax", "--model", str(student), "--base", str(finished.model), "--text",
               str(text), "--window", "64", "--json", str(tmp_path / "tax.json"))
    nats, bits = json.loads((tmp_path / "tax.json").read_text())["rows"]
    tokenizer, whole = load_tokenizer(student), AutoModelForCausalLM.from_pretrained(finished.model)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    windows = [ids[start:start + 64] for start in range(0, len(ids) - 63, 64)]
    kept = read_run(student).kept
    cut = AutoModel.from_pretrained(finished.model)
    cut.layers = torch.nn.ModuleList(cut.layers[place] for place in kept)
    for side, trunk in (("base", cut), ("tuned", AutoModel.from_pretrained(student))):
        sums = [by_hand(trunk, whole.lm_head, window, 1) for window in windows]
        assert nats[side] == pytest.approx(sum(sums) / (63 * len(windows)), rel=1e-5)
        size = sum(len(tokenizer.decode(window[1:]).encode()) for window in windows)
        assert bits[side] == pytest.approx(sum(sums) / np.log(2) / size, rel=1e-5)
        assert nats[f"{side}_low"] < nats[side] < nats[f"{side}_high"]
    assert nats["n"] == len(windows) and nats["difference"] == nats["tuned"] - nats["base"]
    assert "bits per byte" in capsys.readouterr().out


def test_lm_eval_s_accuracy_is_that_of_a_scorer_of_our_own(finished, student, asked):
    """Answers by their log-likelihood after the question, a space between; acc_norm by their
    characters."""
    pair, tasks = read_pair(student, finished.model), load_tasks(["boolq"], asked)
    model = as_language_model(pair.tuned, pair.head)
    scores = {score.metric: score for score in task_scores(model, pair.tokenizer, tasks, None,
                                                           "fp32")}
    trunk, head = AutoModel.from_pretrained(student), torch.nn.Linear(1, 1, bias=False)
    head.weight = torch.nn.Parameter(head_weight(finished.model))
    right = {"acc": [], "acc_norm": []}
    for one in QUESTIONS:
        start = pair.tokenizer(f"{one['question']}\nAnswer:")["input_ids"]
        likely = [-by_hand(trunk, head, pair.tokenizer(f"{one['question']}\nAnswer: {choice}")
                           ["input_ids"], len(start)) for choice in one["choices"]]
        right["acc"].append(np.argmax(likely) == one["gold"])
        right["acc_norm"].append(np.argmax(np.divide(likely, [*map(len, one["choices"])]))
                                 == one["gold"])
    for metric, values in right.items():
        assert scores[metric].each.tolist() == values
        assert scores[metric].estimate == np.mean(values) and scores[metric].chance == 0.5


def test_base_and_tuned_answer_the_same_questions(finished, student, asked, tmp_path, capsys):
    in_process("src.tax", "--model", str(student), "--base", str(finished.model), "--tasks",
               "boolq", "--limit", "5", "--data_dir", str(asked), "--json",
               str(tmp_path / "tax.json"))
    rows = json.loads((tmp_path / "tax.json").read_text())["rows"]
    assert [row["measure"] for row in rows] == ["acc", "acc_norm"]
    assert all(row["n"] == 5 and row["chance"] == 0.5 for row in rows)
    assert all(row["difference_low"] <= row["difference"] <= row["difference_high"] for row in rows)


def test_a_model_that_is_its_base_pays_nothing(finished):
    """The trunk of the whole base under the base's head is the base, bit for bit."""
    pair = read_pair(next(folder for folder in finished.finished("students")
                          if len(read_run(folder).kept) == 4), finished.model)
    ids = torch.arange(30)[None]
    whole = AutoModelForCausalLM.from_pretrained(finished.model).eval()
    with torch.no_grad():
        assert torch.equal(as_language_model(pair.base, pair.head)(ids).logits, whole(ids).logits)


def test_mistakes_are_told_with_their_remedy(finished, student, asked, tmp_path):
    words = ["--model", str(student), "--base", str(finished.model)]
    with pytest.raises(UserError, match="give --text FILE, --tasks NAME"):
        in_process("src.tax", *words)
    with pytest.raises(UserError, match=r"sciq.jsonl: no questions: run `python -m data.multiple"):
        in_process("src.tax", *words, "--tasks", "sciq", "--data_dir", str(asked))
    short = tmp_path / "short.txt"
    short.write_text("few words")
    with pytest.raises(UserError, match="at least one window of 512"):
        in_process("src.tax", *words, "--text", str(short))
    with pytest.raises(UserError, match="--window 513: .* takes 512 tokens"):
        in_process("src.tax", *words, "--text", str(short), "--window", "513")
    with pytest.raises(UserError, match="is not what .* was made from"):
        in_process("src.tax", "--model", str(student), "--base", str(student), "--text", str(short))


@pytest.mark.parametrize("name", ["no_such_task", "arc_easy"])
def test_a_task_that_cannot_be_had_is_one_line(name, asked):
    said = "no such task" if name == "no_such_task" else "fetches its data from a hub"
    with pytest.raises(UserError, match=said):
        load_tasks([name], asked)
