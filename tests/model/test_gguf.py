"""A GGUF file becomes the checkpoint that it was made of: weights, config, tokens; or an error."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from model.base import gguf_tensors
from model.base.gguf_config import model_config
from model.base.gguf_convert import convert
from model.base.gguf_file import open_gguf
from model.base.gguf_tokenizer import PROBES
from model.base.weights import base_fingerprint, read_config
from model.reward_model import build_reward_model
from src.common.errors import UserError
from tests.tiny_gguf import FAMILIES, IDS, SPECIAL, TEMPLATE, tiny_model, tokens_of, write_gguf

KINDS = [Kind.F16, Kind.BF16, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0]
both = pytest.mark.parametrize("architecture", sorted(FAMILIES))


def converted(path, folder):
    folder.mkdir()
    convert(path, folder, name="tiny", origin="a test", sha256="0" * 64)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Architecture -> (its Q8_0 file, the folder made of it), each made once. Read only."""
    made = {}

    def of(architecture):
        if architecture not in made:
            place = tmp_path_factory.mktemp(architecture)
            path = write_gguf(place / "tiny.gguf", architecture, Kind.Q8_0)
            made[architecture] = path, converted(path, place / "out")
        return made[architecture]

    return of


def library(path):
    """The model as transformers itself reads a GGUF file."""
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                dtype=torch.float32)


@both
def test_an_unrounded_file_gives_the_very_weights_that_it_was_made_of(architecture, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", architecture)
    held = load_file(converted(path, tmp_path / "out") / "model.safetensors")
    wanted = tiny_model(architecture).state_dict()
    assert set(wanted) - set(held) == {"lm_head.weight"}  # tied, and not stored twice
    for name, values in held.items():
        # adding 1 to a norm and taking it away again costs a bit or two
        exact = "norm" not in name or architecture == "llama"
        assert torch.allclose(values, wanted[name], rtol=0, atol=0 if exact else 2e-7), name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@both
def test_every_tensor_is_what_the_library_reads(architecture, kind, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", architecture, kind)
    held = load_file(converted(path, tmp_path / "out") / "model.safetensors")
    theirs = library(path).state_dict()
    assert set(theirs) - set(held) == {"lm_head.weight"}
    assert all(torch.equal(values, theirs[name]) for name, values in held.items())


@both
def test_blocks_of_a_tensor_give_what_the_whole_gives(architecture, folders, monkeypatch, tmp_path):
    path, folder = folders(architecture)
    monkeypatch.setattr(gguf_tensors, "BLOCK_VALUES", 1)
    again = converted(path, tmp_path / "out")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert base_fingerprint(again) == base_fingerprint(folder)


@both
def test_the_model_computes_what_the_one_in_the_file_computed(architecture, tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", architecture)
    ids = torch.arange(20).view(1, -1) + 5
    with torch.no_grad():
        held = AutoModelForCausalLM.from_pretrained(converted(path, tmp_path / "out"))(ids).logits
        assert torch.allclose(held, tiny_model(architecture)(ids).logits, atol=1e-5)


def test_a_matrix_of_its_own_at_the_end_is_kept(tmp_path):
    model = tiny_model("llama", tie_word_embeddings=False)
    path = write_gguf(tmp_path / "tiny.gguf", model=model)
    folder = converted(path, tmp_path / "out")
    assert read_config(folder).tie_word_embeddings is False
    assert torch.equal(load_file(folder / "model.safetensors")["lm_head.weight"],
                       model.lm_head.weight)


@both
def test_the_config_says_what_the_library_reads_and_nothing_of_it_changes_with_versions(
        architecture, folders):
    path, folder = folders(architecture)
    text = (folder / "config.json").read_text()
    held = json.loads(text)
    theirs = AutoConfig.from_pretrained(path.parent, gguf_file=path.name).to_dict()
    assert held.pop("rms_norm_eps") == 1e-6  # theirs has a float32's digits
    assert held.pop("architectures") == [type(tiny_model(architecture)).__name__]
    assert held.pop("dtype") == "float32"
    scalar = held.pop("query_pre_attn_scalar", 32)  # theirs is the class's default
    assert scalar == 32
    assert held == {key: theirs[key] for key in held}
    assert "transformers_version" not in text and str(path.parent) not in text
    assert "quantization_config" not in text


def test_gemma_s_layers_see_everything_each_sixth_time(folders):
    config = read_config(folders("gemma3")[1])
    assert [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5]
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10000.0
    assert config.rope_parameters["full_attention"]["rope_theta"] == 1e6


@both
def test_what_a_file_says_less_of_is_filled_in_as_it_was_meant(architecture, tmp_path):
    unsaid = {"rope.dimension_count": None, "vocab_size": None, "attention.value_length": None}
    held = model_config(open_gguf(write_gguf(tmp_path / "a.gguf", architecture, settings=unsaid)))
    whole = model_config(open_gguf(write_gguf(tmp_path / "b.gguf", architecture)))
    assert held == whole and held["head_dim"] == 32
    local = {"rope.freq_base_swa": 5e4} if architecture == "gemma3" else {}
    path = write_gguf(tmp_path / "c.gguf", architecture, settings=local)
    found = model_config(open_gguf(path))["rope_parameters"].get("sliding_attention")
    assert (found or {}).get("rope_theta", 5e4) == 5e4


@both
def test_a_reward_model_is_built_of_it(architecture, folders):
    model = build_reward_model(folders(architecture)[1], (0, 2, 5), 0, pad_token_id=0)
    assert model.config.num_hidden_layers == 3


@both
def test_tokens_come_back_as_the_text_and_special_ids_are_the_file_s(architecture, folders):
    tokenizer = AutoTokenizer.from_pretrained(folders(architecture)[1])
    for text in PROBES:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    ids = IDS[architecture]
    assert tokenizer.bos_token_id == ids["bos"] and tokenizer.eos_token_id == ids["eos"]
    assert tokenizer.unk_token_id == ids["unk"] and tokenizer.pad_token_id == ids["pad"]
    assert tokenizer.get_vocab() == {
        token if token.strip(" ") else "▁" * len(token): i
        for i, token in enumerate(tokens_of(architecture)[0])}
    for i, token in enumerate(SPECIAL[architecture]):
        assert tokenizer(f"a{token}b", add_special_tokens=False)["input_ids"][1] == i
    assert tokenizer.chat_template == (TEMPLATE if architecture == "llama" else None)


def pieces(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_digits_stand_alone_where_the_file_says_smollm(folders, tmp_path):
    folder = folders("llama")[1]
    assert pieces(folder, "  12") == ["ĠĠ", "1", "2"]
    assert pieces(folder, "\n\n1") == ["ĊĊ", "1"]
    plain = converted(write_gguf(tmp_path / "tiny.gguf", pre="gpt-2"), tmp_path / "out")
    assert pieces(plain, "  12") == ["Ġ", "Ġ1", "2"]
    assert pieces(plain, "\n\n1") == ["Ċ", "Ċ", "1"]


def test_gemma_s_runs_of_white_space_are_as_long_as_they_can_be(folders):
    folder = folders("gemma3")[1]
    assert pieces(folder, f"a{' ' * 70}b") == ["a", "▁" * 31, "▁" * 31, "▁" * 8, "b"]
    assert pieces(folder, f"a{chr(10) * 33}b") == ["a", "\n" * 31, "\n\n", "b"]
    assert pieces(folder, "  the") == ["▁▁", "t", "he"]


def test_the_card_says_what_the_weights_were_rounded_to(folders):
    card = (folders("llama")[1] / "README.md").read_text()
    assert "Dequantised from Q8_0" in card and "0" * 64 in card and "a test" in card


def refused(path, tmp_path, match):
    with pytest.raises(UserError, match=match):
        converted(path, tmp_path / "out")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.9, 0.9999])
def test_a_file_cut_short_is_refused(share, folders, tmp_path):
    whole = folders("llama")[0].read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:int(share * len(whole))])
    refused(path, tmp_path, "cut short.*fetch it again")


def test_a_damaged_length_does_not_go_on_for_ever(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    data = path.read_bytes()
    key = b"tokenizer.ggml.merges"
    place = data.index(key) + len(key) + 4 + 4  # type of the field, type of the list's members
    assert int.from_bytes(data[place:place + 8], "little") == 9
    path.write_bytes(data[:place] + (1 << 40).to_bytes(8, "little") + data[place + 8:])
    refused(path, tmp_path, "beyond the end of the file|not readable")


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "other.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    refused(path, tmp_path, "magic invalid.*no GGUF file")
    (tmp_path / "b").mkdir()
    refused(tmp_path / "none.gguf", tmp_path / "b", "no such file")


def test_another_family_is_refused_by_its_name(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "falcon.gguf", "falcon")
    writer.add_uint32("falcon.block_count", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "falcon.gguf", tmp_path, "architecture falcon.*expected one of llama, gemma")


@pytest.mark.parametrize(("settings", "match"), [
    ({"rope.scaling.type": "linear"}, "setting llama.rope.scaling.type, which is not read"),
    ({"expert_count": 4}, "setting llama.expert_count"),
    ({"attention.sliding_window": 4096}, "setting llama.attention.sliding_window"),
    ({"rope.dimension_count": 16}, "positions turn 16 of a head's 32 numbers"),
    ({"block_count": 6}, r"model.layers.6.*but of the model that its settings describe None"),
    ({"block_count": 8}, r"shape of model.layers.7.*is None"),
    ({"block_count": 2_000_000_000}, "2000000000 layers, but holds 65 tensors"),
    ({"block_count": 7.0}, "block_count is 7.0, where a number"),
    ({"attention.layer_norm_rms_epsilon": float("inf")}, "epsilon is inf"),
    ({"attention.head_count": 0}, "head_count is 0, where a number above 0"),
    ({"embedding_length": 128}, "shape of .* is"),
    ({"feed_forward_length": "many"}, "feed_forward_length is many")])
def test_settings_that_are_not_the_tensors_are_refused(settings, match, tmp_path):
    refused(write_gguf(tmp_path / "tiny.gguf", settings=settings), tmp_path, match)


@pytest.mark.parametrize("name", ["blk.3.attn_q.weight", "output_norm.weight"])
def test_a_missing_tensor_is_named(name, tmp_path):
    refused(write_gguf(tmp_path / "tiny.gguf", drop=name), tmp_path,
            "shape of model.*is None")


def test_a_tensor_that_no_such_model_has_is_refused(tmp_path):
    factors = {"rope_freqs.weight": np.ones(16, np.float32)}  # of Llama 3.1 and later
    refused(write_gguf(tmp_path / "tiny.gguf", tensors=factors), tmp_path,
            "tensor rope_freqs.weight, which is not read here")


def test_an_embedding_that_is_not_of_the_vocabulary_is_refused(tmp_path):
    model = tiny_model("llama", vocab_size=300)
    refused(write_gguf(tmp_path / "tiny.gguf", model=model), tmp_path,
            "tokenizer has 268 tokens, but its embedding 300 rows")


def with_tokens(monkeypatch, path, architecture, change):
    """A file whose vocabulary `change` has made out of the usual (token, type) pairs."""
    changed = change(list(zip(*tokens_of(architecture), strict=True)))
    lists = [token for token, _ in changed], [kind for _, kind in changed]
    monkeypatch.setattr("tests.tiny_gguf.tokens_of", lambda architecture: lists)
    return write_gguf(path, architecture)


def test_a_vocabulary_that_loses_text_is_refused(tmp_path, monkeypatch):
    path = with_tokens(monkeypatch, tmp_path / "tiny.gguf", "gemma3", lambda pairs: [
        (token, kind) for token, kind in pairs if kind != gguf.TokenType.BYTE])
    refused(path, tmp_path, "tokenizer made of it turns 'The quick brown fox.' into '.*he quick")


def test_two_tokens_of_one_spelling_are_refused(tmp_path, monkeypatch):
    path = with_tokens(monkeypatch, tmp_path / "tiny.gguf", "llama",
                       lambda pairs: [*pairs, pairs[100]])
    refused(path, tmp_path, "269 tokens in the file, but 26[0-9] in the tokenizer")


def test_special_ids_outside_the_vocabulary_are_refused(tmp_path):
    refused(write_gguf(tmp_path / "tiny.gguf", ids={"eos": 9999}), tmp_path,
            "eos_token has the id 9999, but there are 268 tokens")


def test_a_way_of_splitting_that_is_unknown_is_refused(tmp_path):
    refused(write_gguf(tmp_path / "tiny.gguf", pre="granite-docling"), tmp_path,
            "splits text as 'granite-docling', which is not known here")


def test_a_kind_of_rounding_that_is_unknown_is_refused(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q4_1)
    data = path.read_bytes()
    place = data.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 16
    assert data[place:place + 4] == (3).to_bytes(4, "little")
    path.write_bytes(data[:place] + (250).to_bytes(4, "little") + data[place + 4:])
    refused(path, tmp_path, "250.*of a kind that the package gguf does not know")
    path = write_gguf(tmp_path / "second.gguf", kind=Kind.Q4_1)

    def unknown(data, kind):
        raise NotImplementedError("of this kind")

    monkeypatch.setattr(gguf, "dequantize", unknown)
    (tmp_path / "second").mkdir()
    refused(path, tmp_path / "second", "is stored as Q4_1, which the package gguf does not")


def test_numbers_that_are_none_are_refused(tmp_path):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3, 5] = float("nan")
    refused(write_gguf(tmp_path / "tiny.gguf", model=model), tmp_path,
            r"blk.2.ffn_up.weight holds NaN or infinite")


def test_a_file_made_by_hand_is_called_by_what_most_of_it_is(tmp_path):
    file = open_gguf(write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q5_1))
    assert file.quantisation == "Q5_1"
    assert model_config(file)["vocab_size"] == 268
