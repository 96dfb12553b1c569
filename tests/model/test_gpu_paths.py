"""What a GPU does, as far as a CPU can show it: compiled lengths, host copies, visible devices."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import AutoConfig

from configs.schema import ExperimentConfig, RuntimeConfig, load_config
from data.tokens.tokenised import IDS
from model.attention import attend, flex
from model.attention.attend import choose_backend
from model.attention.flex import flex_length, flex_lengths
from model.reward_model import build_reward_model
from src.batches.collate import MODEL_INPUTS, PairDataset, TreeCollator
from src.batches.packing import Budget
from src.batches.steps import StepSampler
from src.batches.trees import trees_of
from src.common import distributed, gpus
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.memory import peak_memory_mib, reset_peak
from tests.batches.test_batching import tree_pairs
from tests.families import PAD, tiny_config
from tests.tiny_experiment import command
from tests.tiny_pairs import MemorySplit

CUDA = torch.device("cuda")


def rows_of_an_epoch(pairs: int) -> list[int]:
    """Tokens of the packed rows of an epoch of llama_3_2_1b, for pairs of prompts and answers whose
    lengths are spread as those of chats are, up to the 2,048 tokens that a pair may have."""
    runtime, train = RuntimeConfig(), load_config(ExperimentConfig, "llama_3_2_1b").train
    rng = np.random.default_rng(0)
    prompt = np.clip(rng.lognormal(5, 1, pairs), 4, 1024).astype(int)
    answers = np.clip(rng.lognormal(5.3, 0.9, (2, pairs)), 2, 1024).astype(int)
    split = MemorySplit([{"pair_id": f"{i}", "prompt_id": f"{i}",
                          **{name: rng.integers(0, 9999, size).tolist() for name, size in
                             zip(IDS, sizes, strict=True)}}
                         for i, sizes in enumerate(zip(prompt, *answers, strict=True))])
    trees = trees_of(split, share_prompt=True)
    sampler = StepSampler(trees, train.batch_pairs, Budget(runtime.micro_batch_tokens, True), 0, 1,
                          seed=0)
    return [trees.tokens(micro.pairs, micro.unit) for step in sampler
            for micro in step.micro_batches]


def test_an_epoch_of_llama_3_2_1b_compiles_at_most_three_lengths():
    rows = rows_of_an_epoch(2_000)
    assert len(set(rows)) > 50 and max(rows) <= 8192
    padded = {flex_length(row, "cuda") for row in rows}
    assert len(padded) <= 3 and padded <= set(flex_lengths(8192, "cuda"))


@pytest.fixture
def compiled(monkeypatch):
    """FlexAttention compiled by a back end that counts what it is asked to compile."""
    torch._dynamo.reset()
    versions = []

    def count(graph, inputs):
        versions.append([tuple(each.shape) for each in inputs if hasattr(each, "shape")][0])
        return graph.forward

    module = sys.modules["torch.nn.attention.flex_attention"]
    monkeypatch.setattr(module, "_validate_device", lambda *given: None)  # no backward on CPUs
    kernel = torch.compile(flex_attention, backend=count, dynamic=False)
    monkeypatch.setattr(flex, "_compiled", lambda device: kernel)
    yield versions
    torch._dynamo.reset()


@pytest.mark.parametrize("softcap", [None, 0.5])
def test_after_the_warm_up_an_epoch_compiles_nothing(base, compiled, softcap):
    family = "llama" if softcap is None else "gemma2"
    model = build_reward_model(base(family), (0, 1, 2), 0, pad_token_id=PAD, attention="flex",
                               last_layer_shortcut=False)
    config = model.config
    compiled.clear()
    torch._dynamo.reset()
    window = getattr(config, "sliding_window", None)
    flex.warm_up(
        flex_lengths(512, "cpu"), config.num_attention_heads, config.num_key_value_heads,
        attend.head_size(config), [None, window] if window else [None], softcap,
        torch.device("cpu"), torch.float32)
    warm = len(compiled)
    assert 0 < warm <= 3 * 2 * (2 if window else 1)  # lengths, with and without gradients, windows
    collator = TreeCollator(PAD)
    for pairs in (2, 5, 9, 12, 20):
        split = tree_pairs(pairs, 3)
        data = PairDataset(split, np.ones(len(split)))
        batch = collator.collate(data.read(np.arange(len(split)), np.zeros(len(split), int)))
        if batch["input_ids"].shape[1] > 512:
            break
        model(**{name: batch[name] for name in MODEL_INPUTS}).sum().backward()
        with torch.no_grad():
            model(**{name: batch[name] for name in MODEL_INPUTS})
    assert len(compiled) == warm, compiled[warm:]


def test_reaching_the_limit_of_compiled_versions_is_an_error(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        flex._compiled.cache_clear()
        flex._compiled("cuda")
        flex._compiled.cache_clear()
        assert torch._dynamo.config.recompile_limit == flex.MOST_COMPILED
        assert torch._dynamo.config.fail_on_recompile_limit_hit


@pytest.mark.parametrize(("family", "changes", "asked", "chosen"), [
    ("llama", {"head_dim": 64}, "auto", "flex"), ("llama", {}, "auto", "dense"),
    ("gpt2", {}, "auto", "dense"), ("gpt2", {"n_embd": 64}, "auto", "flex"),
    ("llama", {"head_dim": 64}, "dense", "dense")])
def test_auto_takes_flex_on_cuda_where_heads_are_wide_enough(family, changes, asked, chosen,
                                                             monkeypatch):
    monkeypatch.setattr(attend, "can_compile", lambda device: True)
    assert choose_backend(asked, CUDA, tiny_config(family, **changes)) == chosen
    assert choose_backend("auto", torch.device("cpu"), tiny_config(family, **changes)) == "dense"


def test_flex_with_narrow_heads_is_refused_on_cuda():
    with pytest.raises(UserError, match="heads of 8"):
        choose_backend("flex", CUDA, tiny_config("llama"))


def test_without_a_compiler_auto_is_dense_with_a_warning(monkeypatch):
    def fail(*given):
        raise RuntimeError("no triton here\nand more")

    monkeypatch.setattr(flex, "warm_up", fail)
    flex.can_compile.cache_clear()
    with pytest.warns(UserWarning, match="cannot be compiled here .*no triton here.*dense"):
        assert choose_backend("auto", CUDA, tiny_config("llama", head_dim=64)) == "dense"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # tried, and told, once
        assert choose_backend("auto", CUDA, tiny_config("llama", head_dim=64)) == "dense"
    flex.can_compile.cache_clear()


@pytest.mark.parametrize("backend", ["dense", "varlen"])
@pytest.mark.parametrize("pack", [True, False])
def test_a_forward_with_what_the_collator_knows_asks_the_device_for_nothing(base, backend, pack,
                                                                           monkeypatch):
    model = build_reward_model(base("llama"), (0, 1, 2), 0, pad_token_id=PAD, attention=backend)
    split = tree_pairs(6, 3)
    data = PairDataset(split, np.ones(len(split)))
    batch = TreeCollator(PAD, pack).collate(data.read(np.arange(len(split)), np.zeros(
        len(split), int)))
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    asked = []
    for name in ("cpu", "item", "tolist", "numpy", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, counting(name, asked))
    with torch.no_grad():
        expected = model(**inputs)
        assert asked  # as it was: copies to the host, in every forward
        asked.clear()
        found = model(**inputs, host=batch["host"])
    own = [each for each in asked if each not in ("__bool__",)]
    monkeypatch.undo()
    assert torch.equal(found, expected)
    if backend == "dense":
        assert own == []
    else:  # on a CPU each sequence is computed alone, which asks for their sizes; CUDA's does not
        assert set(own) <= {"tolist"}


def counting(name: str, asked: list[str]):
    """A tensor's method that says when it is called."""
    method = getattr(torch.Tensor, name)

    def ask(self, *given, **more):
        asked.append(name)
        return method(self, *given, **more)
    return ask


def test_what_the_collator_knows_is_what_the_tensors_say():
    split = tree_pairs(6, 3)
    data = PairDataset(split, np.ones(len(split)))
    for pack in (True, False):
        batch, _ = TreeCollator(PAD, pack).lay_out(data.read(np.arange(18), np.zeros(
            18, int)).ids)
        from model.attention.tree import Layout
        facts = [batch[name] for name in MODEL_INPUTS[1:]]
        told, asked = Layout(*facts, "dense", batch["host"]), Layout(*facts, "dense")
        for row in range(len(batch["tree"])):
            assert told.segments(row) == asked.segments(row)
            assert told.read_of_row(row).tolist() == asked.read_of_row(row).tolist()
        assert told.longest == asked.longest


def test_gpus_that_are_listed_and_not_usable_are_an_error_and_not_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for ask in (gpus.usable_gpus, distributed.device):
        with pytest.raises(UserError, match="8 GPUs are listed.*driver unknown, torch .* built"):
            ask()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus.usable_gpus() == 0 and distributed.device().type == "cpu"


STUB = """#!/usr/bin/env bash
case "$*" in
  *"-m src.common.gpus"*) {gpus} ;;
  *"-m src.training.command_line"*) exit 0 ;;
  *) memory="alloc=${{PYTORCH_ALLOC_CONF}} pages=${{GLIBC_TUNABLES}}"
     echo "visible=${{CUDA_VISIBLE_DEVICES-unset}} ${{memory}} $*" >> {log} ;;
esac
"""


@pytest.mark.parametrize(("hardware", "listed", "given", "visible", "config"), [
    ("gpu", 4, None, "0", "gpu"), ("gpu", 4, "2,3", "2", "gpu"), ("gpu", 1, None, "unset", "gpu"),
    ("cpu", 4, None, "", "cpu"), ("cpu", 4, "1", "", "cpu"),
    ("multi_gpu", 4, None, "unset", "multi_gpu")])
def test_the_scripts_show_each_hardware_the_devices_that_it_is_for(
        tmp_path, hardware, listed, given, visible, config):
    told = launched(tmp_path, hardware, f"echo {listed}", given)
    assert told.returncode == 1  # the stub tells no status
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines and all(f"visible={visible} " in line for line in lines), lines
    assert all(f"configs/hardware/{config}.yaml" in line for line in lines)
    assert all("alloc=expandable_segments:True pages=glibc.malloc.hugetlb=1 " in line
               for line in lines)


def test_an_old_driver_stops_the_scripts(tmp_path):
    told = launched(tmp_path, "auto", "echo 'error: 8 GPUs are listed, but' >&2; exit 2", None)
    assert told.returncode == 2 and told.stderr.startswith("error: 8 GPUs are listed")
    assert not (tmp_path / "log").exists()


def test_the_scripts_take_as_many_runs_as_there_are_cores_and_at_most_99(tmp_path):
    for cores, workers in ((2, 2), (128, 99)):
        told = launched(tmp_path / str(cores), "cpu", "echo 0", None, WORKERS="", cores=cores)
        assert f", {workers} run(s) at a time" in told.stdout, told


def launched(folder: Path, hardware: str, gpus_say: str, given: str | None, cores: int = 2,
             **changes: str):
    """weak_to_strong.sh with a stand-in for Python and a box that has nvidia-smi."""
    repository = folder / "repository"
    (repository / "src").mkdir(parents=True)
    root = REPO_ROOT
    for name in ("weak_to_strong.sh", "src/shell.sh"):
        (repository / name).write_bytes((root / name).read_bytes())
        (repository / name).chmod(0o755)
    (repository / "configs").symlink_to(root / "configs")
    for name, text in ((".venv/bin/python", STUB.format(gpus=gpus_say, log=folder / "log")),
                       ("bin/nvidia-smi", "#!/usr/bin/env bash\n"),
                       ("bin/getconf", f"#!/usr/bin/env bash\necho {cores}\n")):
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    settings = {"HARDWARE": hardware, "PATH": f"{repository / 'bin'}:/usr/bin:/bin", "WORKERS": "1",
                **changes}
    devices = [f"CUDA_VISIBLE_DEVICES={given}"] if given else ["-u", "CUDA_VISIBLE_DEVICES"]
    return command("env", *devices, str(repository / "weak_to_strong.sh"), "demo", **settings)


def test_a_peak_is_that_of_the_work_since_the_last_reset():
    before = torch.zeros(64 << 20)  # 256 MiB, touched
    high = peak_memory_mib()
    del before
    reset_peak()
    assert peak_memory_mib() < high - 150


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("backend", ["flex", "varlen"])
def test_on_a_gpu_the_back_ends_agree_in_bf16_with_their_gradients(backend, tmp_path):
    config = AutoConfig.for_model("llama", **{**tiny_config("llama").to_dict(), "hidden_size": 128,
                                              "head_dim": 64})
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    split = tree_pairs(20, 3)
    data = PairDataset(split, np.ones(len(split)))
    batch = TreeCollator(PAD).collate(data.read(np.arange(60), np.zeros(60, int)))
    found = []
    for name in ("dense", backend):
        model = build_reward_model(tmp_path, (0, 1, 2), 0, pad_token_id=PAD, attention=name).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            rewards = model(**{key: batch[key].cuda() for key in MODEL_INPUTS}, host=batch["host"])
        rewards.sum().backward()
        found.append((rewards.detach(), model.model.layers[0].self_attn.q_proj.weight.grad))
    for ours, reference in zip(*found, strict=True):
        assert (ours - reference).abs().max() <= 0.05 * reference.abs().max()
