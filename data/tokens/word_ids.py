"""Texts -> token ids, every distinct word encoded once: the tokenizer's ids, several times as fast.

Most tokenizers never let a token reach over the space between two words: a text's ids are those of
its words, one after the other. `parts_at_spaces` says of which tokenizers that is known, by how
they are built. Knows no chat template.
"""

import json
import re
from array import array
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

EDGE = r"[!-;=?-~]"
"""What stands on both sides of a cut: visible ASCII, but < and >: Gemma has the token `> <`."""
CUT = re.compile(rf" (?={EDGE})(?<={EDGE}.)")
"""A lone space between two words; it goes with the second one."""
FIRST = "\n"
"""In front of a text's first word: no word after a cut begins so."""
MOST_WORDS = 100_000
"""Words that are kept: about 25 MB."""

_WORD = (r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
          r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
KNOWN_PATTERNS = {_CONTRACTED + _WORD % r"\p{N}{1,3}", _CONTRACTED + _WORD % r"\p{N}", _CASED}
"""How Llama 3, Qwen and Mistral (tekken) part a text. In each, as in GPT-2's, a match may begin
with a space or be nothing but space; it never has a space after anything else."""

SPACE_AS_LETTER = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
"""Gemma's normalizer."""


class WordIds:
    """The ids of texts under one tokenizer that parts_at_spaces."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer.backend_tokenizer
        self._ids: dict[str, bytes] = {}

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text, without special tokens of the tokenizer's own, as int32s."""
        words = [CUT.split(FIRST + text) for text in texts]
        found = [list(map(self._ids.get, each)) for each in words]
        new = {word for each, ids in zip(words, found, strict=True) if None in ids
               for word, known in zip(each, ids, strict=True) if known is None}
        self._learn(list(new))
        encoded = [b"".join(ids if None not in ids else map(self._ids.__getitem__, each))
                   for each, ids in zip(words, found, strict=True)]
        if len(self._ids) > MOST_WORDS:
            self._ids.clear()
        return encoded

    def _learn(self, words: list[str]) -> None:
        texts = [word.removeprefix(FIRST) if word[:1] == FIRST else f" {word}" for word in words]
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        self._ids.update((word, array("i", each.ids).tobytes())
                         for word, each in zip(words, found, strict=True))


def last_cut(text: str) -> int:
    """Where the last word of a text begins, its space included; 0 where nothing can be cut."""
    place = text.rfind(" ")
    while place > 0 and not CUT.match(text, place):
        place = text.rfind(" ", 0, place)
    return max(place, 0)


def parts_at_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text's ids are known to be those of its parts at every CUT, one after the other."""
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return False
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if any(token["lstrip"] or token["rstrip"] or token["single_word"]
           or set(token["content"]) & {" ", "\u2581"} for token in state["added_tokens"]):
        return False
    model, normalizer = state["model"], state["normalizer"] or {"type": None}
    if model["type"] == "Unigram" or model.get("dropout"):
        return False
    if normalizer["type"] in (None, "NFC"):  # which joins no letter with a space
        return _splits_words(_steps(state["pre_tokenizer"]))
    return normalizer == SPACE_AS_LETTER and _joins_no_words(model, state["pre_tokenizer"])


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [
        pre_tokenizer]


def _splits_words(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether all steps keep to words, and one of them parts a text at every CUT."""
    parts = False
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel" and not step["add_prefix_space"]:
            parts |= step["use_regex"]
        elif kind == "Split" and step["pattern"].get("Regex") in KNOWN_PATTERNS and (
                step["behavior"] == "Isolated" and not step["invert"]) or kind == "WhitespaceSplit":
            parts = True
        elif kind != "Digits":
            return False
    return parts


def _joins_no_words(model: dict[str, Any], pre_tokenizer: dict[str, Any] | None) -> bool:
    """Whether a BPE that reads a space as a letter has no token across a CUT, and so no merge:
    so it is with Gemma's."""
    steps = _steps(pre_tokenizer)
    at_space = {"type": "Split", "pattern": {"String": " "}}  # of which none is left by then
    if model["type"] != "BPE" or not all(at_space.items() <= step.items() for step in steps):
        return False
    across = re.compile(f"{EDGE}\u2581")
    letters = {"\u2581", *filter(re.compile(EDGE).match, map(chr, range(128)))}
    return letters <= model["vocab"].keys() and not any(map(across.search, model["vocab"]))
