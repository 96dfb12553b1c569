"""Tokenizers and templates: the pitfalls that made public reward models read the wrong token."""

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from data.tokens.formatting import (
    TemplateRefusal,
    cut_left,
    encode_pair,
    encode_pairs,
    load_tokenizer,
    tokenizer_key,
)
from src.common.errors import UserError
from tests.tiny_data import TURNS, WITH_BOS, byte_tokenizer, gpt2_like, llama_like, save

PROMPT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi?"}]
NO_SYSTEM = ("{% for m in messages %}{% if m['role'] == 'system' %}"
             "{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}" + TURNS)


def test_pad_is_not_eos_nor_any_token_a_response_ends_with(tmp_path):  # pitfall 1
    for i, tokenizer in enumerate([llama_like(), llama_like(pad_token="<|end|>")]):
        loaded = load_tokenizer(save(tokenizer, tmp_path / str(i)))
        _, chosen, rejected = encode_pair(loaded, PROMPT, "Hello!", "Go away.")
        assert loaded.pad_token_id not in (None, loaded.eos_token_id, chosen[-1], rejected[-1])
        assert loaded.pad_token == "<|finetune_right_pad_id|>"


def test_tokenizer_with_a_single_special_token_pads_with_one_that_text_never_gives(tmp_path):
    loaded = load_tokenizer(save(gpt2_like(), tmp_path), "plain.jinja")
    assert loaded.pad_token_id not in (None, loaded.eos_token_id)
    every_char = "".join(map(chr, [*range(0xff), *range(0x100, 0x2000)]))
    assert loaded.pad_token_id not in loaded(every_char, add_special_tokens=False)["input_ids"]


def test_choosing_a_pad_token_never_grows_the_vocabulary(tmp_path):  # pitfall 11
    for name, tokenizer, template in (("a", llama_like(), ""), ("b", gpt2_like(), "plain.jinja")):
        loaded = load_tokenizer(save(tokenizer, tmp_path / name), template)
        assert len(loaded) == len(tokenizer)
        assert loaded.pad_token_id < len(tokenizer)


def test_tokenizer_without_any_token_to_pad_with_is_refused(tmp_path):
    tokenizer = llama_like()
    folder = save(tokenizer, tmp_path)
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace("<|finetune_right_pad_id|>", "<|other|>")
                        .replace('"\u00ff"', '"\u0178\u0178"').replace('"\\u00ff"', '"zz"'))
    with pytest.raises(UserError, match="no token to pad with"):
        load_tokenizer(folder)


def test_pad_token_survives_saving_with_a_checkpoint(tmp_path):  # pitfall 2
    loaded = load_tokenizer(save(gpt2_like(), tmp_path / "base"), "plain.jinja")
    again = AutoTokenizer.from_pretrained(save(loaded, tmp_path / "run"))
    assert again.pad_token_id == loaded.pad_token_id
    assert again.padding_side == "right"


@pytest.mark.parametrize("side", ["left", "right"])
def test_library_reads_the_last_token_of_each_row_whatever_the_padding_side(tmp_path, side):
    """Pitfall 3: a pair's scores alone equal its scores in a padded batch."""
    tokenizer = load_tokenizer(save(llama_like(padding_side="left"), tmp_path))
    assert tokenizer.padding_side == "right"
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(config).eval()
    prompt, *answers = encode_pair(tokenizer, PROMPT, "Hello, how are you today?", "No.")
    rows = [torch.tensor([prompt + answer]) for answer in answers]
    batch = tokenizer.pad({"input_ids": [row[0].tolist() for row in rows]}, padding_side=side,
                          return_tensors="pt")
    with torch.no_grad():
        alone = torch.cat([model(input_ids=row).logits for row in rows])
        together = model(**batch).logits
    assert alone[0] != alone[1]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_bos_stands_once_at_the_start_when_the_template_writes_it(tmp_path):  # pitfall 8
    tokenizer = llama_like()
    tokenizer._tokenizer.post_processor = _adds_bos(tokenizer)
    loaded = load_tokenizer(save(tokenizer, tmp_path))
    assert loaded("x")["input_ids"][0] == loaded.bos_token_id  # it would be doubled
    prompt, chosen, _ = encode_pair(loaded, PROMPT, "Hello!", "Go away.")
    assert (prompt + chosen).count(loaded.bos_token_id) == 1
    assert prompt[0] == loaded.bos_token_id


def _adds_bos(tokenizer):
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<|begin|> $A", special_tokens=[
        ("<|begin|>", tokenizer.bos_token_id)])


def test_template_without_bos_gives_none(tmp_path):
    loaded = load_tokenizer(save(llama_like(TURNS), tmp_path))
    prompt, chosen, _ = encode_pair(loaded, PROMPT, "Hello!", "Go away.")
    assert loaded.bos_token_id not in prompt + chosen


@pytest.mark.parametrize("template", [WITH_BOS, TURNS])
def test_prompt_plus_answer_are_the_ids_of_the_whole_conversation(tmp_path, template):
    loaded = load_tokenizer(save(llama_like(template), tmp_path))
    cases = [("Hello!", "Hello, you."), ("a", "ab"), ("Yes \u00fc\U0001f600", "No\n\n")]
    for chosen, rejected in cases:
        prompt_ids, chosen_ids, rejected_ids = encode_pair(loaded, PROMPT, chosen, rejected)
        for ids, answer in ((chosen_ids, chosen), (rejected_ids, rejected)):
            whole = loaded.apply_chat_template(
                [*PROMPT, {"role": "assistant", "content": answer}], return_dict=False)
            assert prompt_ids + ids == whole
        assert loaded.decode(prompt_ids).endswith("assistant\n")
        assert loaded.decode(chosen_ids) == f"{chosen}<|end|>"


def test_a_token_across_the_border_belongs_to_the_answers(tmp_path):
    tokenizer = gpt2_like("{% for m in messages %}{{ m['content'] }}{% endfor %}"
                          "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
    from tokenizers import Tokenizer, models

    vocabulary = {**tokenizer.get_vocab(), "?N": 900}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("?", "N")]))
    backend.pre_tokenizer = None
    backend.add_special_tokens(["<|endoftext|>"])
    end = "<|endoftext|>"
    merged = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end,
                                                  bos_token=end)
    merged.chat_template = tokenizer.chat_template
    prompt = [{"role": "user", "content": "Hi?"}]
    prompt_ids, chosen_ids, rejected_ids = encode_pair(merged, prompt, "No", "Yes")
    assert merged.convert_ids_to_tokens(prompt_ids) == ["H", "i"]
    assert merged.convert_ids_to_tokens(chosen_ids) == ["?N", "o", end]
    assert merged.convert_ids_to_tokens(rejected_ids) == ["?", "Y", "e", "s", end]


def test_ids_do_not_depend_on_the_day(tmp_path):
    """Llama 3.2's template writes today's date where the library offers it."""
    dated = "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'none' }}" + TURNS
    loaded = load_tokenizer(save(llama_like(dated), tmp_path / "base"))
    prompt, _, _ = encode_pair(loaded, PROMPT, "Hello!", "Go away.")
    assert loaded.decode(prompt).startswith("26 Jul 2024<|start|>system")
    again = load_tokenizer(save(loaded, tmp_path / "run"))
    assert tokenizer_key(again) == tokenizer_key(loaded)
    plain = AutoTokenizer.from_pretrained(str(tmp_path / "run"))
    assert plain.apply_chat_template(PROMPT, tokenize=False).startswith("26 Jul 2024<")


def test_many_pairs_are_encoded_as_each_alone(tmp_path):
    loaded = load_tokenizer(save(llama_like(), tmp_path))
    pairs = [(PROMPT, f"Good {i}.", "B" * i + "ad.") for i in range(5)]
    assert encode_pairs(loaded, pairs) == [encode_pair(loaded, *pair) for pair in pairs]


def test_conversation_that_the_template_refuses_is_told_apart(tmp_path):
    loaded = load_tokenizer(save(llama_like(NO_SYSTEM), tmp_path))
    encode_pair(loaded, PROMPT[1:], "Hello!", "Go away.")
    with pytest.raises(TemplateRefusal, match="System role not supported"):
        encode_pair(loaded, PROMPT, "Hello!", "Go away.")


MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    "{%- for turn in turns %}{%- if turn['role'] == 'user' %}[INST] "
    "{%- if loop.last and system is defined %}{{ system + ' ' }}{%- endif %}"
    "{{ turn['content'] }}[/INST]{%- else %}{{ turn['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}")
"""As Mistral 7B v0.3 has it: a system message stands in the last user turn, if that is the end."""


def test_a_system_message_that_no_answer_follows_is_a_refusal_and_not_left_out(tmp_path):
    """Else all such prompts are alike, and what the reward model reads is no whole prompt."""
    tokenizer = load_tokenizer(save(llama_like(MISTRAL), tmp_path))
    asked = [{"role": "user", "content": "What is 2+2?"}]
    system = [{"role": "system", "content": "Answer in words."}]
    prompt, chosen, _ = encode_pair(tokenizer, asked, "four", "five")
    assert tokenizer.decode(prompt).endswith("[/INST]") and "four" in tokenizer.decode(chosen)
    with pytest.raises(TemplateRefusal, match="leaves out the system message"):
        encode_pair(tokenizer, system + asked, "four", "five")


def test_missing_template_folder_and_tokenizer_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="has no chat template.*plain.jinja"):
        load_tokenizer(save(gpt2_like(), tmp_path / "base"))
    with pytest.raises(UserError, match="no chat template 'none.jinja'"):
        load_tokenizer(tmp_path / "base", "none.jinja")
    with pytest.raises(UserError, match="download.py"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no readable tokenizer"):
        load_tokenizer(tmp_path / "empty")
    (tmp_path / "base" / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match="no readable tokenizer"):
        load_tokenizer(tmp_path / "base", "plain.jinja")


def test_key_depends_on_vocabulary_and_template_but_not_on_the_folder(tmp_path):
    first = load_tokenizer(save(llama_like(), tmp_path / "a"))
    copied = load_tokenizer(save(first, tmp_path / "elsewhere"))
    other_template = load_tokenizer(save(llama_like(TURNS), tmp_path / "b"))
    larger = byte_tokenizer("<|begin|>", "<|start|>", "<|end|>", "<|finetune_right_pad_id|>",
                            "<|more|>", bos_token="<|begin|>", eos_token="<|end|>")
    larger.chat_template = WITH_BOS
    other_vocabulary = load_tokenizer(save(larger, tmp_path / "c"))
    assert tokenizer_key(first) == tokenizer_key(copied)
    assert len({tokenizer_key(t) for t in (first, other_template, other_vocabulary)}) == 3
    assert len(tokenizer_key(first)) == 12


@pytest.mark.parametrize("name", ["plain.jinja", "mistral.jinja"])
def test_bundled_template_closes_every_assistant_turn_with_eos(tmp_path, name):
    tokenizer = byte_tokenizer("<s>", "</s>", "<pad>", bos_token="<s>", eos_token="</s>",
                               pad_token="<pad>")
    loaded = load_tokenizer(save(tokenizer, tmp_path), name)
    talk = [*PROMPT, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go."}]
    prompt, chosen, rejected = encode_pair(loaded, talk, "Hello!", "Bye.")
    assert (prompt + chosen).count(loaded.bos_token_id) == 1
    assert prompt[0] == loaded.bos_token_id
    assert prompt.count(loaded.eos_token_id) == 1
    assert chosen[-1] == rejected[-1] == loaded.eos_token_id
    assert loaded.decode(chosen) == " Hello!</s>"
    for text in ("Be kind.", "Hi?", "Yes?", "Go."):
        assert text in loaded.decode(prompt)


def test_cut_on_the_left_keeps_the_end_and_the_bos():
    assert cut_left([9, 1, 2, 3, 4], 3, bos_token_id=9) == [9, 3, 4]
    assert cut_left([0, 1, 2, 3, 4], 3, bos_token_id=9) == [2, 3, 4]
    assert cut_left([9, 1, 2], 3, bos_token_id=9) == [9, 1, 2]
    assert cut_left([9, 1, 2], 1, bos_token_id=9) == [2]


def test_a_template_under_which_all_answers_are_alike_is_refused(tmp_path):
    asked_only = TURNS.replace("{% for m in messages %}",
                               "{% for m in messages if m['role'] in ('user', 'model') %}")
    with pytest.raises(UserError, match="all answers are alike.*`assistant`"):
        load_tokenizer(save(llama_like(asked_only), tmp_path))
