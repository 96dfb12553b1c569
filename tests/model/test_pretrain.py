"""Pre-training a base model of our own: its text, its rows, its loss, and the folder it leaves."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from configs.pretrain_schema import PretrainConfig
from data.tokens.formatting import encode_pair, load_tokenizer, tokenizer_key
from model import pretraining
from model.continued import Start
from model.pretraining import (
    IGNORED,
    RowCollator,
    answers_of,
    build_model,
    documents_of,
    token_rows,
    train_tokenizer,
    work_folder,
)
from model.reward_model import build_reward_model
from src.common.errors import UserError

LINES = ["where does ada live ? rome .", "where does bo live ? oslo . right",
         "where does ada live ? oslo . wrong"] * 8


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The repository's root, as far as pre-training writes to it."""
    monkeypatch.setattr(pretraining, "REPO_ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def config(root):
    (root / "text.txt").write_text("\n".join(LINES) + "\n")
    return PretrainConfig(
        "tiny", output_dir="model/tiny", max_length=12, documents=("text.txt",), tokenizer="words",
        vocab_size=300, chat_template="words.jinja", loss_after="?", hidden_size=16,
        intermediate_size=24, layers=3, heads=2, epochs=2, batch_rows=8)


@pytest.fixture
def english(root, config):
    """Byte pairs over packed books, stories and pairs."""
    (root / "book.txt").write_text("header\n*** START OF THE BOOK ***\nIt rained.\n\n\nThen not.\n"
                                   "*** END OF THE BOOK ***\nlicence")
    (root / "stories.json").write_text(json.dumps(["Once upon a time.", "Thrice."]))
    prompt = json.dumps([{"role": "user", "content": "Why?"}])
    pd.DataFrame({"prompt": [prompt], "chosen": ["So."], "rejected": ["No."]}).to_parquet(
        root / "pairs.parquet")
    return dataclasses.replace(
        config, documents=(), books=("book.txt", "stories.json"), pairs=("pairs.parquet",),
        packed=True, loss_after="", tokenizer="bpe", chat_template="plain.jinja")


def test_documents_are_lines_paragraphs_stories_and_both_answers_of_a_pair(config, english):
    assert list(documents_of(config)) == LINES
    prompt = json.dumps([{"role": "user", "content": "Why?"}])
    texts = [item.strip() if isinstance(item, str) else item for item in documents_of(english)]
    assert texts == ["It rained.", "Then not.", "Once upon a time.", "Thrice.", (prompt, "No."),
                     (prompt, "So.")]  # by a hash


QUESTIONS = [json.dumps([{"role": "user", "content": f"where does ada live ? {number}"}])
             for number in range(20)]
PAIRS = [{"prompt": prompt, "chosen": "rome .", "rejected": answer}
         for prompt in QUESTIONS for answer in ("oslo .", "lima .", "paris .")]
"""As the demo's: one preferred answer a prompt, in several pairs."""


def swapped(pairs):
    return [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]


def test_which_answer_was_preferred_shows_neither_in_order_nor_in_number():
    found = answers_of(PAIRS)
    assert found == answers_of(swapped(PAIRS)) == answers_of(PAIRS[::-1])
    assert len(found) == len(set(found)) == 20 * 4
    first = [next(answer for prompt, answer in found if prompt == asked) for asked in QUESTIONS]
    assert 0 < first.count("rome .") < 12
    assert answers_of([{"prompt": "p", "chosen": "a", "rejected": ""}]) == [("p", "a")]


def test_a_missing_text_is_named_with_what_makes_it(config):
    bad = dataclasses.replace(config, documents=("absent.txt",))
    with pytest.raises(UserError, match="absent.txt: no such file.*data/demo.py"):
        list(documents_of(bad))


def test_words_are_tokens_and_the_four_special_ones_come_first(config):
    tokenizer = train_tokenizer(config)
    assert tokenizer.convert_ids_to_tokens(range(4)) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert set(tokenizer.get_vocab()) == {"<pad>", "<s>", "</s>", "<unk>", *" ".join(LINES).split()}


def test_a_row_is_a_document_between_bos_and_eos(config):
    tokenizer = train_tokenizer(config)
    rows = token_rows(config, tokenizer)
    assert len(rows) == len(LINES)
    assert tokenizer.convert_ids_to_tokens(rows[0]) == ["<s>", *LINES[0].split(), "</s>"]


def test_a_row_is_cut_at_max_length(config):
    rows = token_rows(dataclasses.replace(config, max_length=4), train_tokenizer(config))
    assert {len(row) for row in rows} == {4}


def test_packed_rows_are_full_blocks_of_all_documents_in_a_seeded_order(english):
    tokenizer = train_tokenizer(english)
    rows = token_rows(english, tokenizer)
    assert {len(row) for row in rows} == {english.max_length}
    joined = tokenizer.decode(sum(rows, []))
    assert joined.startswith(("<s>", "user", "User")) and "It rained.</s>" in joined
    assert rows == token_rows(english, tokenizer)
    assert rows != token_rows(dataclasses.replace(english, seed=1), tokenizer)


def test_too_little_text_for_one_row_is_refused(english):
    with pytest.raises(UserError, match="not one row of 5000"):
        token_rows(dataclasses.replace(english, max_length=5_000), train_tokenizer(english))


def test_a_byte_tokenizer_gives_any_text_back(english):
    tokenizer = train_tokenizer(english)
    text = "  Naïve – 漢字 \U0001f600\n\tx=y  "
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_only_what_follows_the_mark_is_learned():
    batch = RowCollator(pad_token_id=0, after=9)(
        [{"input_ids": [1, 5, 9, 6, 9, 7]}, {"input_ids": [9, 3]}, {"input_ids": [4, 4, 4]}])
    assert batch["input_ids"].tolist() == [[1, 5, 9, 6, 9, 7], [9, 3, 0, 0, 0, 0],
                                           [4, 4, 4, 0, 0, 0]]
    no = IGNORED
    assert batch["labels"].tolist() == [[no, no, no, 6, 9, 7], [no, 3, no, no, no, no], [no] * 6]


def test_without_a_mark_all_but_padding_is_learned():
    batch = RowCollator(pad_token_id=0, after=None)([{"input_ids": [5, 6]}, {"input_ids": [7]}])
    assert batch["labels"].tolist() == [[5, 6], [7, IGNORED]]


def test_a_token_that_pads_elsewhere_is_learned_where_a_text_has_it():
    batch = RowCollator(pad_token_id=7, after=None)([{"input_ids": [5, 6]}, {"input_ids": [7]}])
    assert batch["labels"].tolist() == [[5, 6], [7, IGNORED]]


def test_a_mark_that_is_no_token_is_refused(config):
    with pytest.raises(UserError, match="loss_after '!!'.*no token"):
        pretraining.pretrain(dataclasses.replace(config, loss_after="!!"))


def test_the_seed_alone_decides_the_first_weights(config):
    tokenizer = train_tokenizer(config)
    first = build_model(config, tokenizer).state_dict()
    torch.manual_seed(77)
    again = build_model(config, tokenizer).state_dict()
    other = build_model(dataclasses.replace(config, seed=1), tokenizer).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize("spread", [0.02, 0.1])
def test_weights_begin_as_widely_spread_as_the_config_says(config, spread):
    wide = dataclasses.replace(config, hidden_size=64, **(
        {} if spread == 0.02 else {"initializer_range": spread}))
    states = build_model(wide, train_tokenizer(wide)).state_dict()
    drawn = [value.std().item() for name, value in states.items() if "_proj" in name]
    assert drawn == pytest.approx([spread] * len(drawn), rel=0.1)


def test_the_saved_folder_is_a_base_model_for_everything_else(config, root, capsys):
    folder = pretraining.pretrain(config)
    assert folder == root / "model/tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["tiny"]  # nothing half-written
    assert not (folder / "training_args.bin").exists()
    assert "learning_rate: 0.001" in (folder / "README.md").read_text()
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == "<pad>" and tokenizer.padding_side == "right"
    ids = encode_pair(tokenizer, [{"role": "user", "content": "where does ada live ?"}],
                      "rome .", "oslo .")
    assert [tokenizer.convert_ids_to_tokens(part) for part in ids] == [
        ["<s>", "where", "does", "ada", "live", "?"], ["rome", "."], ["oslo", "."]]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_hidden_layers == 3 and model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    reward = build_reward_model(folder, (0, 2), 0, pad_token_id=tokenizer.pad_token_id)
    assert reward.config.num_labels == 1
    assert "24 rows" in capsys.readouterr().out


def test_pretraining_learns_and_is_fixed_by_its_seed(config, root):
    def trained(config):
        return AutoModelForCausalLM.from_pretrained(pretraining.pretrain(config))

    longer = dataclasses.replace(config, epochs=15, learning_rate=1e-2)
    first = trained(longer)
    tokenizer = load_tokenizer(root / "model/tiny")
    row = tokenizer("<s>where does ada live ? rome . </s>", add_special_tokens=False,
                    return_tensors="pt").input_ids
    fresh = build_model(longer, tokenizer)
    labels = RowCollator(0, tokenizer.convert_tokens_to_ids("?"))(
        [{"input_ids": row[0].tolist()}])["labels"]
    with torch.no_grad():
        before, after = (model.eval()(row, labels=labels).loss.item() for model in (fresh, first))
    assert after < 0.5 * before
    again = trained(longer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(),
                                                 strict=True))


def test_a_changed_config_is_trained_anew_and_not_resumed_from_the_old_one(config):
    first = AutoModelForCausalLM.from_pretrained(pretraining.pretrain(config))
    second = AutoModelForCausalLM.from_pretrained(
        pretraining.pretrain(dataclasses.replace(config, learning_rate=5e-3)))
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_a_checkpoint_that_a_kill_left_half_written_is_passed_over(config, root):
    work = work_folder(config, None)
    half = work / "checkpoint-1"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    folder = pretraining.pretrain(config)
    assert (folder / "model.safetensors").is_file() and not work.exists()


@pytest.fixture
def further(config, root):
    """Training that goes on from a small model, on pairs; and the folder of that model."""
    start = pretraining.pretrain(config)
    (root / "start.yaml").write_text(f"checkpoint: {start}\nfamily: llama\n")
    pd.DataFrame(PAIRS).to_parquet(root / "train_2.parquet")
    return PretrainConfig(
        "more", output_dir="model/more", start=str(root / "start.yaml"), max_length=16,
        pairs=("train_2.parquet",), batch_rows=8, epochs=3, learning_rate=1e-2), start


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_training_goes_on_from_a_base_model_with_its_tokenizer_and_shape(further):
    config, start = further
    before = weights(start)
    still = weights(pretraining.pretrain(dataclasses.replace(config, learning_rate=1e-30)))
    assert still.keys() == before.keys()
    assert all(torch.equal(still[name], before[name]) for name in before)
    folder = pretraining.pretrain(config)
    assert not torch.equal(weights(folder)["lm_head.weight"], before["lm_head.weight"])
    assert tokenizer_key(load_tokenizer(folder)) == tokenizer_key(load_tokenizer(start))
    assert "start, a model of" in (folder / "README.md").read_text()
    tokenizer = load_tokenizer(folder)
    text = "<s>where does ada live ? oslo ."
    row = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    losses = [AutoModelForCausalLM.from_pretrained(each)(row, labels=row).loss.item()
              for each in (start, folder)]
    assert losses[1] < losses[0]


def test_a_start_needs_no_padding_token_and_gets_none(further):
    """As Llama 3's has none."""
    config, start = further
    path = start / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in settings.items()
                                if name not in ("pad_token", "bos_token")}))
    folder = pretraining.pretrain(config)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    assert not torch.equal(weights(folder)["lm_head.weight"], weights(start)["lm_head.weight"])


def test_a_prompt_that_the_template_refuses_is_told_in_one_line(further):
    """As Gemma 2's refuses a system message."""
    config, start = further
    (start / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(UserError, match=r"pretrain/more: pairs: .*no such role.*leave such pairs"):
        pretraining.pretrain(config)


def test_what_comes_out_is_the_same_where_every_preference_is_the_opposite(further, root):
    config, _ = further
    first = weights(pretraining.pretrain(config))
    pd.DataFrame(swapped(PAIRS)).to_parquet(root / "train_2.parquet")
    second = weights(pretraining.pretrain(config))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_work_to_resume_is_that_of_one_base_model(further, config, root):
    more, _ = further
    first = work_folder(more, Start(more.start))
    assert first == work_folder(more, Start(more.start)) != work_folder(more, None)
    pretraining.pretrain(dataclasses.replace(config, seed=1))
    assert work_folder(more, Start(more.start)) != first


def test_a_start_that_is_not_there_or_has_another_shape_is_refused(further, root):
    config, start = further
    with pytest.raises(UserError, match="layers, heads: they are those of start .*leave them out"):
        dataclasses.replace(config, layers=3, heads=2, hidden_size=64)
    (root / "nothing.yaml").write_text(f"checkpoint: {root / 'nothing'}\nfamily: llama\n")
    with pytest.raises(UserError, match="no config.json"):
        pretraining.pretrain(dataclasses.replace(config, start=str(root / "nothing.yaml")))
