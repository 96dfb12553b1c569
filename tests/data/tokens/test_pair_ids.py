"""Words looked up one by one give the tokenizer's own ids, for texts as odd as they come."""

import json
import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.tokens import pair_ids
from data.tokens.formatting import TemplateRefusal, encode_pair, renderer
from data.tokens.pair_ids import PairEncoder
from data.tokens.word_ids import KNOWN_PATTERNS, SPACE_AS_LETTER, WordIds, last_cut, parts_at_spaces
from tests.tiny_data import TURNS, gpt2_like, llama_like

END = "<|end|>"
PIECES = ["a", "of the", "Don't", "THE'LL", "x", "42", "3.14", " ", " ", "  ", "\n", "\n\n", " \n",
          "\t", ".", "...", "!?", "(", "\u201cquoted\u201d", "caf\u00e9", "cafe\u0301", "\u0301",
          "\u65e5\u672c", "\U0001f600", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u200d",
          "<b>", "> <", "</p>", END, f" {END} ", "<|start|>", "\u2581", "\u2581\u2581", "'", "'s",
          "_", "~", "\r\n", "/"]
CORPUS = ["the cat sat on the mat, didn't it? 1234 > </b> of the of the",
          "caf\u00e9 of the \u65e5\u672c",
          "a b c d e f of the of the of  the\n\nof the\n the", "x > </p> > </p> > </p>"] * 5


def trained(pre_tokenizer, normalizer=None, **model):
    """A BPE of a few hundred merges: across words too, where the pre-tokenizer lets it."""
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer, backend.normalizer = pre_tokenizer, normalizer
    alphabet = [*pre_tokenizers.ByteLevel.alphabet(), *map(chr, range(32, 127)), "\u2581"]
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=alphabet))
    backend.add_special_tokens([END, "<|start|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})


def split_by(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    byte_level(use_regex=False)])


def gemma_like(token_across=False):
    """Spaces are letters and nothing parts a text; no merge reaches over a space between words."""
    tokenizer = trained(pre_tokenizers.Metaspace(prepend_scheme="never"))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["normalizer"] = SPACE_AS_LETTER
    state["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "},
                              "behavior": "MergedWithPrevious", "invert": False}
    if token_across:
        state["model"]["vocab"]["e\u2581o"] = 5_000
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def words_only():
    words = {word: i for i, word in enumerate(["<unk>", "of", "the", "a", "Don't", "x"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([END])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


PARTED = {"gpt2": lambda: trained(byte_level()),
          "smollm": lambda: trained(pre_tokenizers.Sequence(
              [pre_tokenizers.Digits(individual_digits=True), byte_level()])),
          "words": words_only, "gemma": gemma_like,
          **{f"pattern_{i}": lambda pattern=pattern: trained(split_by(pattern), normalizers.NFC())
             for i, pattern in enumerate(sorted(KNOWN_PATTERNS))}}


@pytest.mark.parametrize("name", PARTED)
def test_ids_of_words_are_the_ids_of_the_whole_text(name):
    tokenizer = PARTED[name]()
    assert parts_at_spaces(tokenizer)
    draw = random.Random(0)
    texts = ["", " ", "a", " a", *("".join(draw.choices(PIECES, k=draw.randint(1, 25)))
                                   for _ in range(3_000))]
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    words = WordIds(tokenizer)
    for _ in range(2):  # the second time every word is known
        assert [list(memoryview(ids).cast("i")) for ids in words.encode(texts)] == whole
    for text, ids in zip(texts, whole, strict=True):
        cut = last_cut(text)
        both = words.encode([text[:cut], text[cut:]])
        assert list(memoryview(b"".join(both)).cast("i")) == ids


def with_added(**options):
    tokenizer = trained(byte_level())
    tokenizer.backend_tokenizer.add_tokens([AddedToken(**{"content": "<x>", **options})])
    return tokenizer


@pytest.mark.parametrize("tokenizer", [
    trained(byte_level(), dropout=0.1),
    trained(pre_tokenizers.Metaspace()),
    trained(None),
    trained(byte_level(add_prefix_space=True)),
    trained(byte_level(), normalizers.Lowercase()),
    trained(split_by(r"\w+ \w+|\s+")),
    trained(pre_tokenizers.Digits()),
    gemma_like(token_across=True),
    with_added(lstrip=True), with_added(rstrip=True), with_added(single_word=True),
    with_added(content="of the")])
def test_a_tokenizer_of_which_it_is_not_known_is_given_whole_texts(tokenizer):
    assert not parts_at_spaces(tokenizer)


def rows_of(draw, count):
    for number in range(count):
        words = "".join(draw.choices(PIECES, k=9))
        prompt = [{"role": "user", "content": f"{number // 2} {words}"}]
        chosen, rejected = ("".join(draw.choices(PIECES, k=6)) for _ in range(2))
        absent = number % 7
        yield (json.dumps(prompt), "" if absent == 0 else chosen, "" if absent == 1 else rejected)


NO_HEADER = ("{% for m in messages %}{{ m['content'] | trim }}"
             "{% if loop.last %} {% else %}! {% endif %}{% endfor %}")
SOME_REFUSED = ("{% if '42' in messages[0]['content'] %}{{ raise_exception('no') }}{% endif %}"
                + TURNS)


@pytest.mark.parametrize("template", [TURNS, NO_HEADER, SOME_REFUSED])
@pytest.mark.parametrize("name", ["gpt2", "gemma", "words"])
def test_pairs_have_the_ids_that_each_has_alone(name, template):
    tokenizer = PARTED[name]()
    tokenizer.chat_template = template
    rows = [row for row in rows_of(random.Random(1), 300) if row[1] or row[2]]
    found = PairEncoder(tokenizer).encode(*zip(*rows, strict=True))
    refused = 0
    for (prompt, chosen, rejected), ids in zip(rows, found, strict=True):
        try:
            expected = encode_pair(tokenizer, json.loads(prompt), chosen, rejected)
        except TemplateRefusal:
            expected, refused = ([], [], []), refused + 1
        assert tuple(list(memoryview(each).cast("i")) for each in ids) == expected
    assert (refused > 0) == (template == SOME_REFUSED)


def test_words_are_not_trusted_where_a_sample_shows_other_ids(monkeypatch):
    monkeypatch.setattr(pair_ids, "parts_at_spaces", lambda tokenizer: True)
    tokenizer = trained(split_by(r"\w+ \w+|\s+|."))
    tokenizer.chat_template = TURNS
    rows = [(json.dumps([{"role": "user", "content": "of the of the cat"}]), "of the", "the")] * 5
    encoder = PairEncoder(tokenizer)
    with pytest.warns(UserWarning, match="encoded whole"):
        found = encoder.encode(*zip(*rows, strict=True))
    expected = encode_pair(tokenizer, json.loads(rows[0][0]), *rows[0][1:])
    assert [list(memoryview(ids).cast("i")) for ids in found[4]] == list(expected)


def test_words_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr("data.tokens.word_ids.MOST_WORDS", 50)
    tokenizer = PARTED["gpt2"]()
    words = WordIds(tokenizer)
    for start in range(0, 400, 20):
        texts = [f"w{i} of the w{i + 1}" for i in range(start, start + 20)]
        whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert [list(memoryview(ids).cast("i")) for ids in words.encode(texts)] == whole
        assert len(words._ids) <= 50


def test_tiny_tokenizers_of_the_tests_are_parted():
    for tokenizer in (llama_like(), gpt2_like(TURNS)):
        assert parts_at_spaces(tokenizer)
        assert renderer(tokenizer)([{"role": "user", "content": "Hi"}]).startswith("<|")
