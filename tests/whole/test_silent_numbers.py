"""What once gave a wrong number and said nothing, asked through commands, configs and tables alone.

Each test goes by what is written or read, not by what is told about it: a refusal passes where no
number is the right answer.
"""

import contextlib
import json
import os
import re
import resource

import pandas as pd
import pytest
import torch
from deepspeed.runtime.config import DeepSpeedConfig

from configs.schema import DataConfig, from_dict
from data.pairs.compare import compared_pairs
from data.read.sources import open_source
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from tests.families import save_base
from tests.tiny_data import llama_like, save, write_jsonl
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data
from tests.tiny_reward_model import make_reward_model, plain_reward


def test_the_better_of_two_answers_numbered_1_and_2_is_the_one_of_that_number(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [
        {"prompt": f"Hi {i}?", "r0": f"a{i}", "r1": f"b{i}", "better": 1 + i % 2}
        for i in range(6)])
    config = from_dict(DataConfig, {"name": "rows", "path": str(path), "columns": ["r0", "r1"],
                                    "compare": {"rule": "by_id"}}, "rows")
    found = [item if isinstance(item, str) else item.chosen
             for _, item in compared_pairs(open_source(str(path), config), "answers", config)]
    assert found == ["a0", "b1", "a2", "b3", "a4", "b5"]


@pytest.mark.parametrize("changes", [{"is_causal": False}, {"rope_parameters": {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64}}], ids=["sees ahead", "turned by the longest"])
def test_a_model_that_is_not_computed_here_gets_the_library_s_rewards_or_none(tmp_path, changes):
    model = make_reward_model(tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
    said = ["So it is.", "No. " * 18]
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Why?", "responses": said}])
    out = tmp_path / "out.parquet"
    with contextlib.suppress(UserError):
        in_process("src.scoring", "--model", str(model), "--data", str(data), "--out",
                   str(out))
    ask = [{"role": "user", "content": "Why?"}]
    assert not out.exists() or pd.read_parquet(out).reward.tolist() == pytest.approx(
        [plain_reward(model, ask, response) for response in said], abs=1e-4)


def test_different_answers_get_no_equal_rewards_from_a_template_that_leaves_them_out(tmp_path):
    model = make_reward_model(tmp_path)
    (model / "chat_template.jinja").write_text(
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}<|end|>")
    data = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Why?", "responses": ["So.", "No!"]}])
    out = tmp_path / "out.parquet"
    with contextlib.suppress(UserError):
        in_process("src.scoring", "--model", str(model), "--data", str(data), "--out",
                   str(out))
    assert not out.exists() or pd.read_parquet(out).reward.nunique() == 2


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_zero_sums_gradients_in_fp32_over_micro_batches_and_over_ranks(name):
    values = json.loads((REPO_ROOT / "configs" / "hardware" / f"{name}.json").read_text())
    values |= {"bf16": {"enabled": True}, "gradient_clipping": 1.0, "train_batch_size": 1,
               "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    values["zero_optimization"] = {key: value for key, value in values["zero_optimization"].items()
                                   if value != "auto"}
    read = DeepSpeedConfig(values)
    assert (read.grad_accum_dtype, read.communication_data_type) == ("fp32", torch.float32)
    assert read.zero_config.overlap_comm and read.zero_config.contiguous_gradients
    assert name == "zero2" or 0 < read.zero_config.param_persistence_threshold < 1e5


@pytest.fixture
def tiny(tmp_path):
    """An experiment of one teacher, its data prepared."""
    tiny = make_experiment(tmp_path, train_pairs=16, layers=([4], [4]))
    prepare_data(tiny)
    return tiny


def test_a_run_too_big_for_the_machine_is_not_trained(tiny, monkeypatch):
    ask = os.sysconf
    monkeypatch.setattr("os.sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else ask(name))
    with contextlib.suppress(UserError):
        in_process("src.train", *tiny.train("teachers"))
    assert tiny.finished("teachers") == [] and not tiny.runs_dir.exists()


def test_a_run_s_peak_is_not_what_the_process_took_before(tiny):
    before = torch.ones(128 << 20)  # 512 MiB that the run has nothing to do with
    del before
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    assert in_process("src.train", *tiny.train("teachers")) == 0
    folder, = tiny.finished("teachers")
    facts = json.loads((folder / "manifest.json").read_text())
    assert 0 < facts["peak_memory_mib"] < high - 250


def peaks(tiny):
    """Rung -> MiB at most, as the manifests say."""
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return {facts["name"]: facts["peak_memory_mib"] for facts in
            (json.loads((folder / "manifest.json").read_text())
             for folder in tiny.finished("teachers"))}


def test_a_small_run_s_peak_is_not_that_of_a_big_one_before_it_in_one_process(tmp_path):
    """What a run has freed may stay with the process, and in what is resident."""
    tiny = make_experiment(tmp_path, train_pairs=8, test_pairs=8, layers=([1], [1]))
    big = save_base(tmp_path / "big", "llama", vocab_size=260, hidden_size=768,
                    intermediate_size=3072, num_hidden_layers=4, max_position_embeddings=512)
    save(llama_like(pad_token="<|end|>"), big)
    (tmp_path / "big.yaml").write_text(f"checkpoint: {big}\nfamily: llama\n")
    small, = tiny.settings()["teachers"]
    tiny.write_config(tiny.settings(), teachers=[{"model": str(tmp_path / "big.yaml")}, small])
    prepare_data(tiny)
    found = peaks(tiny)
    weights = (big / "model.safetensors").stat().st_size >> 20
    # in fp32, with gradients and two moments of Adam
    assert found["big-L4-s0"] - found["llama-L1-s0"] > 3 * weights, (found, weights)


def test_a_run_s_peak_is_left_open_where_the_system_cannot_tell_it(tiny, tmp_path, monkeypatch):
    """macOS knows only the process's."""
    monkeypatch.setattr("src.common.memory._PROCESS", tmp_path / "nowhere")
    assert peaks(tiny) == {"llama-L4-s0": None}


SPEED = re.compile(r"\| hidden size (\d+), (\d+) layers.*?\| `?(\w+).*? \| ([\d.]+)x \| ([\d.]+)x ")


def test_the_scoring_ratios_that_we_state_name_width_and_baseline_and_are_those_measured():
    """A careful loop sorts by length: the ratio to that one stands first."""
    text = (REPO_ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    told = SPEED.findall(text)
    assert [int(width) for width, *_ in told] == [128, 576]
    assert "| against batches sorted by length | against batches in the data's order |" in text
    folder = REPO_ROOT / "speed" / "results"
    for name, (width, layers, mix, careful, plain) in zip(
            ("score", "score_smollm2_shape"), told, strict=True):
        rows = [row for row in json.loads((folder / f"{name}.json").read_text())
                if (row["hidden"], row["layers"]) == (int(width), int(layers))
                and row["mix"].startswith(mix[:5])]
        speed = {row["system"]: row["pairs_per_s"] for row in rows}
        ours = rows[-1]
        assert f"{ours['pairs_per_s'] / speed['the same, sorted by length']:.1f}" == careful
        assert f"{ours['ratio']:.1f}" == plain
