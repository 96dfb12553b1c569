"""Splits are disjoint, and the sides of a pair differ, as the models see them: token by token."""

import json
import unicodedata

import pytest

from configs.schema import DataConfig
from data.manifest import config_differences, read_manifest
from data.pairs.pair_files import read_pairs
from data.prepare import TokenizerSpec, prepare
from data.records import SPLITS, Pair
from data.samples import print_summary
from data.tokens.tokenised import open_split
from src.common.hashing import content_hash
from tests.tiny_data import TURNS, llama_like, messages_row, save, write_jsonl

TRIMMED = TURNS.replace("m['content']", "m['content'] | trim")
LOWER = TURNS.replace("m['content']", "m['content'] | lower")
NO_SYSTEM = ("{% for m in messages %}{% if m['role'] != 'system' %}<|start|>{{ m['role'] }}\n"
             "{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
             "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
ANSWER_ALONE = TURNS.replace(
    "{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}")
"""As the templates of models that reason have it: what leads to an answer is no part of it."""


@pytest.fixture
def ready(tmp_path):
    """Prepare rows for tokenizers with these templates; the folder and its manifest."""
    def run(rows, *templates, out="out", **choices):
        raw = write_jsonl(tmp_path / "raw.jsonl", rows)
        specs = [TokenizerSpec(f"model {i}", save(llama_like(template), tmp_path / f"model {i}"))
                 for i, template in enumerate(templates)]
        config = DataConfig("made", path=str(raw), **{"test_pairs": 40, "val_pairs": 10, **choices})
        manifest, _ = prepare(config, tmp_path / out, specs)
        return tmp_path / out, manifest
    return run


def prompts(folder, manifest, key) -> dict[str, set[tuple[int, ...]]]:
    """Split -> its distinct prompts, as one tokenizer reads them."""
    return {name: {tuple(row["prompt_ids"]) for row in open_split(folder, key, name).rows(
        range(manifest["splits"][name]["pairs"]))} for name in manifest["splits"]}


def assert_disjoint(folder, manifest):
    for key in manifest["tokenizers"]:
        found = list(prompts(folder, manifest, key).values())
        assert sum(map(len, found)) == len(set().union(*found)) > 0


def spaced(count: int) -> list[dict]:
    """Each question four times: as it is, with white space around, and in two Unicode forms."""
    forms = (str, lambda text: f" {text}\n", lambda text: unicodedata.normalize("NFD", text),
             lambda text: f"\t{unicodedata.normalize('NFD', text)} ")
    return [messages_row(form(f"Où est le café {i} ?"), f"Là {i}{k}.", f"Ici {i}{k}.")
            for i in range(count) for k, form in enumerate(forms)]


def test_prompts_that_differ_in_outer_space_or_unicode_form_stay_in_one_split(ready):
    folder, manifest = ready(spaced(40), TRIMMED)
    assert sum(entry["pairs"] for entry in manifest["splits"].values()) == 160
    of_split = {}
    for name in SPLITS:
        for text in read_pairs(folder, name)["prompt"].to_pylist():
            asked = unicodedata.normalize("NFC", json.loads(text)[0]["content"]).strip()
            assert of_split.setdefault(asked, name) == name
    assert len(of_split) == 40
    assert_disjoint(folder, manifest)


def test_a_prompt_in_normal_form_keeps_its_id_and_another_form_of_it_shares_it():
    def pair(text: str) -> Pair:
        return Pair(({"role": "user", "content": text},), "Yes.", "No.")

    assert pair("Where is the café?").prompt_id == content_hash([["user", "Where is the café?"]])
    other = unicodedata.normalize("NFD", " Where is the café?\n")
    assert pair(other).prompt_id == pair("Where is the café?").prompt_id
    assert pair(other).pair_id == pair("Where is the café?").pair_id
    assert pair("where is the café?").prompt_id != pair("Where is the café?").prompt_id


@pytest.mark.parametrize("template", [LOWER, NO_SYSTEM])
def test_prompts_that_become_one_under_a_template_are_no_leak(ready, template, capsys):
    rows = []
    for i in range(60):
        question = messages_row(f"Which One {i}?", f"This {i}.", f"That {i}.")
        twin = messages_row(f"which one {i}?", f"It {i}.", f"None {i}.")
        if template is NO_SYSTEM:
            twin = messages_row(f"Which One {i}?", f"It {i}.", f"None {i}.")
            for side in ("chosen", "rejected"):
                twin[side].insert(0, {"role": "system", "content": f"Be {i}."})
        rows += [question, twin]
    folder, manifest = ready(rows, template)
    assert_disjoint(folder, manifest)
    gone = manifest["leaked"]["count"]
    assert gone == len(manifest["leaked"]["pair_ids"]) > 20
    assert sum(entry["pairs"] for entry in manifest["splits"].values()) == 120 - gone
    stored = {pair for name in SPLITS for pair in read_pairs(folder, name)["pair_id"].to_pylist()}
    assert not stored & set(manifest["leaked"]["pair_ids"])
    print_summary(folder, manifest)
    said = f"{gone} prompt also in another split, as a tokenizer reads it"
    assert said in capsys.readouterr().out


def test_the_test_split_loses_nothing_to_a_leak(ready):
    rows = [messages_row(text.format(i), f"This {i}{k}.", f"That {i}{k}.") for i in range(60)
            for k, text in enumerate(("Which One {}?", "which one {}?"))]
    folder, manifest = ready(rows, TURNS)
    before = manifest["splits"]["test"]
    _, manifest = ready(rows, TURNS, LOWER)  # a tokenizer that is added later is judged as well
    assert manifest["leaked"]["count"] > 20 and manifest["splits"]["test"] == before
    assert_disjoint(folder, manifest)


def reasoned(count: int) -> list[dict]:
    """Every third pair differs in what led to the answer alone."""
    return [messages_row(f"Question {i}?", f"<think>right {i}</think>Answer {i}.",
                         f"<think>wrong</think>{'Answer' if i % 3 == 0 else 'Nothing'} {i}.")
            for i in range(count)]


def test_sides_that_are_equal_after_the_template_are_dropped_and_counted(ready, capsys):
    folder, manifest = ready(reasoned(120), ANSWER_ALONE)
    assert manifest["identical"]["count"] == len(manifest["identical"]["pair_ids"]) == 40
    key, = manifest["tokenizers"]
    for name in SPLITS:
        rows = open_split(folder, key, name)
        assert all(row["chosen_ids"] != row["rejected_ids"] for row in rows.rows(range(len(rows))))
    print_summary(folder, manifest)
    assert "40 identical after the chat template" in capsys.readouterr().out


def test_sides_that_one_of_two_tokenizers_finds_equal_go_for_both(ready):
    folder, manifest = ready(reasoned(120), TURNS)
    assert manifest["identical"]["count"] == 0
    _, manifest = ready(reasoned(120), TURNS, ANSWER_ALONE)
    assert manifest["identical"]["count"] == 40
    for key in manifest["tokenizers"]:
        assert sum(len(open_split(folder, key, name)) for name in SPLITS) == 80


def test_a_set_all_of_whose_sides_are_equal_says_so(ready):
    from src.common.errors import UserError
    rows = [messages_row(f"Question {i}?", f"<think>{i}</think>Yes.", "<think>no</think>Yes.")
            for i in range(60)]
    with pytest.raises(UserError, match="60 identical after the chat template"):
        ready(rows, ANSWER_ALONE)


def test_lone_answers_have_no_second_side_to_be_equal_to(ready):
    _, manifest = ready(reasoned(120), ANSWER_ALONE, pointwise=True)
    assert manifest["identical"]["count"] == 0


def test_a_folder_that_was_prepared_before_a_key_was_known_is_still_that_of_its_config(ready):
    folder, manifest = ready(reasoned(120), TURNS)
    old = read_manifest(folder)
    for key in ("identical", "leaked", "notes"):
        old.pop(key, None)
    for key in ("wrong_move", "ngram", "part_files"):
        del old["config"][key]
    del old["config"]["compare"]["pairs_per_prompt"]
    (folder / "manifest.json").write_text(json.dumps(old))
    again, worked = ready(reasoned(120), TURNS)[1], (folder / "manifest.json").read_text()
    assert json.loads(worked) == old and again == old
    config = DataConfig("made", path="p", **{"test_pairs": 40, "val_pairs": 10})
    assert config_differences(old["config"], config) == []
    assert config_differences(old["config"], DataConfig("made", path="p", ngram=7)) != []
