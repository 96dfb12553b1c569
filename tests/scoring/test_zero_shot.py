"""The control without a head: the base's own log-probabilities, as transformers has them."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from src.scoring import zero_shot
from src.scoring.zero_shot import zero_shot_scores
from tests.tiny_experiment import TinyExperiment, in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all

METHODS = [{"name": "soft"}, {"name": "hard", "loss": "hard_bt"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    made = make_experiment(tmp_path_factory.mktemp("zero_shot"), rows=120, train_pairs=20,
                           test_pairs=24, layers=([1], [2]), methods=METHODS)
    prepare_data(made)
    return made


def test_a_reward_is_the_mean_log_probability_of_the_answer_s_tokens_under_the_whole_base(
        tiny, capsys):
    plan = sweep_of(tiny)
    scores, = zero_shot_scores(plan, "test", tiny.runs_dir)
    assert "llama without training on test: 100%" in capsys.readouterr().err  # minutes, if real
    model = AutoModelForCausalLM.from_pretrained(tiny.model).eval()
    split = plan.split(plan.runs[0], "test")
    for row in range(len(split)):
        pair, means = split[row], []
        for side in ("chosen_ids", "rejected_ids"):
            prompt, answer = list(pair["prompt_ids"]), list(pair[side])
            with torch.no_grad():
                found = model(torch.tensor([prompt + answer])).logits[0].log_softmax(dim=-1)
            means.append(np.mean([found[len(prompt) + i - 1, token].item()
                                  for i, token in enumerate(answer)]))
        assert scores.margins[row] == pytest.approx(means[0] - means[1], abs=1e-4)
    assert (scores.role, scores.name) == ("baseline", "zero_shot_llama")
    assert scores.pair_ids.tolist() == split.pair_ids.tolist()


def test_it_is_computed_once_and_stands_in_the_tables_beside_the_rules(tiny, monkeypatch):
    done = tiny.copy("done")
    train_all(done)
    assert in_process("eval", *done.evaluate()) == 0
    monkeypatch.setattr(zero_shot, "_rewards", None)
    (done.results / "report.html").unlink()
    assert in_process("eval", *done.evaluate()) == 0
    table = pd.read_csv(done.results / "accuracy.csv")
    assert table[table.role == "baseline"].name.tolist() == ["length_only", "tfidf",
                                                             "zero_shot_llama"]
    found, = zero_shot_scores(sweep_of(done), "test", done.runs_dir)
    row = table[table.name == "zero_shot_llama"].iloc[0]
    assert row.accuracy == pytest.approx(((np.sign(found.margins) + 1) / 2).mean())


def test_one_method_is_no_comparison_and_a_base_without_a_head_has_no_row(tiny):
    assert not zero_shot_scores(sweep_of(tiny.copy("one", methods=METHODS[:1])), "test",
                                tiny.runs_dir)
    path = tiny.model / "model.safetensors"
    whole = load_file(path)
    try:
        save_file({name: value for name, value in whole.items() if "lm_head" not in name}, path,
                  {"format": "pt"})
        assert not zero_shot_scores(sweep_of(tiny), "test", tiny.runs_dir)
    finally:
        save_file(whole, path, {"format": "pt"})
