"""The head, padding, saving and loading: one test for each way reward models are known to break."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.integrations.deepspeed import (
    is_deepspeed_zero3_enabled,
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)

from model.base.truncate import check_length, count_parameters
from model.base.weights import base_fingerprint, read_tensors, tensor_files
from model.reward_model import build_reward_model, initial_head, load_reward_model
from src.common.errors import UserError
from tests.families import (
    FAMILIES,
    LAYERS,
    PAD,
    VOCAB,
    Tree,
    plain_batch,
    random_tree,
    save_base,
    tiny_config,
    tree_batch,
)

every_family = pytest.mark.parametrize("family", FAMILIES)
KEPT = (1, 3, 5)
TREES = [random_tree(6, (5, 9), seed=0), random_tree(3, (2, 4, 1), seed=1)]
SEQUENCES = [sequence for tree in TREES for sequence in tree.sequences]


def build(folder, seed=0, **options):
    return build_reward_model(folder, KEPT, seed, pad_token_id=PAD, **options)


def rewards_of(model, trees, **options):
    """(number of responses,) rewards, row by row."""
    batch = tree_batch(trees, **options)
    with torch.no_grad():
        return model(**batch)[batch["last_index"] >= 0]


@pytest.fixture
def saved(base, tmp_path):
    """Folder of a saved Llama reward model, free to be damaged."""
    build(base("llama")).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- what is saved is a plain checkpoint ---

@every_family
def test_saved_model_loads_in_the_auto_class_and_scores_the_same(base, family, tmp_path):
    model = build(base(family))
    model.save_pretrained(tmp_path)
    plain, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert plain.config.architectures == [type(plain).__name__]
    assert type(plain).__module__.startswith("transformers.")
    with torch.no_grad():
        expected = plain(**plain_batch(SEQUENCES)).logits[:, 0]
    torch.testing.assert_close(rewards_of(model, TREES), expected, rtol=0, atol=1e-5)
    assert torch.equal(rewards_of(load_reward_model(tmp_path), TREES), rewards_of(model, TREES))


def test_bare_trunks_and_shards_and_classifiers_serve_as_base(base, tmp_path):
    expected = build(base("gpt2")).state_dict()
    whole = load_file(base("gpt2") / "model.safetensors")
    for name in ("bare", "sharded", "classifier"):
        (tmp_path / name).mkdir()
        shutil.copy(base("gpt2") / "config.json", tmp_path / name)
    bare = {key.removeprefix("transformer."): value for key, value in whole.items()}
    bare["h.1.attn.bias"] = torch.ones(1, 1, 4, 4)  # as the published gpt2 has it
    save_file(bare, tmp_path / "bare" / "model.safetensors")
    build_reward_model(base("gpt2"), tuple(range(LAYERS)), 1, pad_token_id=PAD).save_pretrained(
        tmp_path / "classifier")
    full = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    full.save_pretrained(tmp_path / "sharded", max_shard_size="4KB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").is_file()
    for name in ("bare", "sharded", "classifier"):
        state = build(tmp_path / name).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected), name


def test_only_kept_layers_are_read(base, monkeypatch):
    read = []
    import model.base.weights as weights

    class Spy:
        def __init__(self, inner):
            self.inner = inner

        def __enter__(self):
            self.tensors = self.inner.__enter__()
            return self

        def __exit__(self, *args):
            return self.inner.__exit__(*args)

        def keys(self):
            return self.tensors.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.tensors.get_tensor(name)

    real = weights.safe_open
    monkeypatch.setattr(weights, "safe_open", lambda *args, **kwargs: Spy(real(*args, **kwargs)))
    build(base("llama"))
    layers = {int(name.split(".")[2]) for name in read if ".layers." in name}
    assert layers == set(KEPT)


# --- the twelve pitfalls, as far as they lie here ---

def test_a_response_that_ends_in_the_padding_token_is_read_at_its_end(base, tmp_path):
    """Pitfall 1: searched for by pad id, the reward would be read a token early."""
    model = build(base("llama"))
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tree = Tree([1, 2, 3], [[4, 5, PAD], [4, 5]])
    one, other = rewards_of(model, [tree], extra=3)
    with torch.no_grad():
        states = plain.base_model(torch.tensor([[1, 2, 3, 4, 5, PAD]]),
                                  attention_mask=torch.ones(1, 6)).last_hidden_state
    torch.testing.assert_close(one, model.score(states)[0, 5, 0], rtol=0, atol=1e-5)
    assert abs(one - other) > 1e-3


def test_the_padding_token_is_in_the_saved_config_and_demanded_on_load(saved):
    """Pitfall 2."""
    assert AutoConfig.from_pretrained(saved).pad_token_id == PAD
    edit_config(saved, pad_token_id=None)
    with pytest.raises(UserError, match="no pad_token_id.*add"):
        load_reward_model(saved)


@every_family
def test_padding_and_company_change_no_reward(base, family):
    """Pitfall 3: score(x alone) == score(x in a batch), whichever side the padding is on."""
    model = build(base(family))
    together = rewards_of(model, TREES, extra=4)
    alone = torch.cat([rewards_of(model, [Tree(tree.prompt, [response])])
                       for tree in TREES for response in tree.responses])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    left = {name: value.roll(4, dims=1) if name != "last_index" else value + 4 * (value >= 0)
            for name, value in tree_batch(TREES[:1], extra=4).items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**left)[0], together[:2], rtol=0, atol=1e-5)


def test_a_checkpoint_without_its_head_is_refused_not_given_a_new_one(saved):
    """Pitfall 4."""
    state = load_file(saved / "model.safetensors")
    del state["score.weight"]
    save_file(state, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no tensor score.weight"):
        load_reward_model(saved)


def test_one_label_is_saved_and_demanded(saved):
    """Pitfall 5: the library's default of two gives a random head of another shape."""
    assert AutoConfig.from_pretrained(saved).num_labels == 1
    edit_config(saved, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    with pytest.raises(UserError, match="num_labels is 2"):
        load_reward_model(saved)


def test_the_head_depends_on_its_seed_alone(base):
    """Pitfall 6."""
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one, again, other = (build(base("llama"), seed).score.weight for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(one, build(base("qwen3"), 3).score.weight)
    wide = initial_head(40_000, seed=0)
    assert wide.std().item() == pytest.approx(40_001 ** -0.5, rel=0.02)


def test_a_partitioned_or_cut_save_is_refused(saved):
    """Pitfall 7: ZeRO-3 saved the wrong way leaves empty tensors, or no weights at all."""
    whole = load_file(saved / "model.safetensors")
    save_file({key: torch.empty(0) for key in whole}, saved / "model.safetensors")
    with pytest.raises(UserError, match="of another shape"):
        load_reward_model(saved)
    save_file(whole, saved / "model.safetensors")
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_reward_model(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no such file"):
        load_reward_model(saved)


def test_rewards_are_fp32_whatever_the_weights(base):
    """Pitfall 9: rounded to bf16, rewards of different responses tie."""
    model = build(base("llama"), dtype=torch.bfloat16)
    rewards = rewards_of(model, TREES)
    assert model.dtype == torch.bfloat16 and rewards.dtype == torch.float32
    assert not torch.equal(rewards, rewards.bfloat16().float())
    full = build(base("llama"))
    with torch.autocast("cpu", torch.bfloat16):
        rewards = rewards_of(full, TREES)
    assert rewards.dtype == torch.float32
    assert not torch.equal(rewards, rewards.bfloat16().float())


@pytest.mark.parametrize("family", ["gemma2", "gpt_neo", "qwen2"])
def test_bf16_rewards_are_near_those_of_fp32(base, family):
    rewards = rewards_of(build(base(family), dtype=torch.bfloat16), TREES, extra=2)
    assert torch.allclose(rewards, rewards_of(build(base(family)), TREES), atol=0.15)


def test_embeddings_are_never_resized_for_padding(base):
    """Pitfall 11."""
    assert build(base("llama")).get_input_embeddings().weight.shape[0] == VOCAB
    with pytest.raises(UserError, match=f"pad_token_id {VOCAB} is outside the vocabulary"):
        build_reward_model(base("llama"), KEPT, 0, pad_token_id=VOCAB)


# --- forward ---

def test_an_absent_response_gets_zero_and_no_gradient(base):
    model = build(base("llama"))
    batch = tree_batch(TREES)
    rewards = model(**batch)
    assert batch["last_index"][0, 2] == -1 and rewards[0, 2] == 0
    rewards[0, 2].backward()
    assert not model.score.weight.grad.any()


@every_family
def test_dropout_is_off_in_training(base, family):
    model = build(base(family)).train()
    assert torch.equal(rewards_of(model, TREES), rewards_of(model, TREES))
    assert not any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
    dropouts = {name: value for name, value in model.config.to_dict().items()
                if "drop" in name and isinstance(value, float)}
    assert not any(dropouts.values()), dropouts


# --- bad input ---

def test_weights_that_do_not_fit_the_config_are_refused(saved, base, tmp_path):
    edit_config(saved, num_hidden_layers=5)
    with pytest.raises(UserError, match=r"tensors missing, model\.layers\.3"):
        load_reward_model(saved)
    edit_config(saved, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"tensors unknown, model\.layers\.2"):
        load_reward_model(saved)
    wide = save_base(tmp_path / "wide", "llama")
    edit_config(wide, intermediate_size=48)
    with pytest.raises(UserError, match="of another shape"):
        build(wide)


def test_unreadable_checkpoints_are_refused_with_a_remedy(base, tmp_path):
    with pytest.raises(UserError, match="no config.json.*download"):
        build(tmp_path)
    shutil.copy(base("llama") / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="found pytorch_model.bin.*safetensors only"):
        build(tmp_path)
    edit_config(tmp_path, model_type="bert")
    with pytest.raises(UserError, match="'bert' is not supported"):
        build(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(UserError, match="not readable"):
        build(tmp_path)


def test_a_missing_shard_and_a_broken_index_are_refused(base, tmp_path):
    shutil.copy(base("llama") / "config.json", tmp_path)
    shutil.copy(base("llama") / "model.safetensors", tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "two.safetensors"}}))
    with pytest.raises(UserError, match="two.safetensors: no such file"):
        build(tmp_path)
    index.write_text(json.dumps({"weight_map": {"nowhere": "one.safetensors"}}))
    with pytest.raises(UserError, match="lists nowhere"):
        build(tmp_path)
    index.write_text("{")
    with pytest.raises(UserError, match="not an index of shards"):
        build(tmp_path)


# --- size and identity ---

@every_family
def test_parameters_are_counted_without_building_the_model(base, family):
    model = build(base(family))
    total, rest = count_parameters(tiny_config(family), KEPT)
    assert total == model.num_parameters()
    positions = 40 if family in ("gpt2", "gpt_neo") else 0
    assert total - rest == 16 * (VOCAB + positions)


def test_data_longer_than_the_models_positions_is_refused():
    check_length(tiny_config("gpt2"), 40, "gpt2")
    with pytest.raises(UserError, match="max_length 41 is more than the model's 40 positions"):
        check_length(tiny_config("gpt2"), 41, "gpt2")


def test_a_fingerprint_follows_the_content_not_the_path(base, tmp_path, monkeypatch):
    copied = shutil.copytree(base("llama"), tmp_path / "copy")
    assert base_fingerprint(copied) == base_fingerprint(base("llama"))
    monkeypatch.setattr("model.base.weights.WHOLE_FILE_BYTES", 100)
    monkeypatch.setattr("model.base.weights.EDGE_BYTES", 64)
    sampled = base_fingerprint(copied)
    assert sampled == base_fingerprint(base("llama"))
    data = bytearray((copied / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "model.safetensors").write_bytes(data)
    assert base_fingerprint(copied) != sampled
    monkeypatch.undo()
    assert base_fingerprint(copied) != base_fingerprint(base("llama"))
    edit_config(copied, rms_norm_eps=1e-5)
    assert base_fingerprint(copied) != sampled


def test_a_large_file_s_fingerprint_follows_every_tensor(base, tmp_path, monkeypatch):
    """A model that was tuned in its middle alone is another base model."""
    monkeypatch.setattr("model.base.weights.WHOLE_FILE_BYTES", 100)
    file = shutil.copytree(base("llama"), tmp_path / "copy") / "model.safetensors"
    tensors, whole = load_file(file), base_fingerprint(file.parent)
    for name in tensors:
        save_file({**tensors, name: tensors[name] + 1}, file, {"format": "pt"})
        assert base_fingerprint(file.parent) != whole, name
    save_file(tensors, file, {"format": "pt"})
    assert base_fingerprint(file.parent) == whole


class ZeroConfig:
    """Stands in for the global that transformers keeps while ZeRO-3 is on."""

    def __init__(self, on):
        self.on = on

    def is_zero3(self):
        assert self.on, "asked whether to partition"
        return True


@pytest.mark.parametrize("rank", [0, 1])
def test_under_zero_3_only_the_first_rank_reads_what_is_trained(base, monkeypatch, rank):
    folder, config = base("llama"), ZeroConfig(True)  # made before ZeRO-3 is on
    set_hf_deepspeed_config(config)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: rank)
    monkeypatch.setattr("torch.distributed.broadcast_object_list", lambda box, src: None)
    try:
        files = tensor_files(folder)
        found = read_tensors(files, {name: f"new.{name}" for name in files}, torch.bfloat16)
    finally:
        unset_hf_deepspeed_config()
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert {tensor.device.type for tensor in found.values()} == {("cpu", "meta")[rank]}
    assert {name: tensor.shape for name, tensor in found.items()} == {
        f"new.{name}": tensor.shape for name, tensor in stored.items()}


def test_parameters_are_counted_under_zero_3_as_without_it(base):
    """A run's work is counted when it has been trained, and ZeRO-3 makes no model without data."""
    expected = count_parameters(tiny_config("llama"), KEPT)
    config = ZeroConfig(False)
    set_hf_deepspeed_config(config)
    try:
        assert count_parameters(tiny_config("llama"), KEPT) == expected
    finally:
        unset_hf_deepspeed_config()


def test_a_saved_model_is_loaded_whole_even_under_zero_3(saved):
    config = ZeroConfig(False)
    set_hf_deepspeed_config(config)
    try:
        assert load_reward_model(saved).score.weight.numel() == 16
        with pytest.raises(AssertionError, match="asked whether to partition"):
            is_deepspeed_zero3_enabled()  # and afterwards it is on again
    finally:
        unset_hf_deepspeed_config()
