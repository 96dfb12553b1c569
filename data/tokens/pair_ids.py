"""Pairs of texts -> their token ids: what `formatting.encode_pairs` gives, several times as fast.

What the prompt and its answers begin with in common is encoded once, and every word is looked up,
not encoded (`word_ids`). Where a tokenizer is not known to allow that, and where a sample shows
that it does not, encode_pairs does the work.
"""

import json
import os
import warnings
from array import array
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.tokens.formatting import TemplateRefusal, cut_left, encode_pairs, renderer
from data.tokens.word_ids import WordIds, last_cut, parts_at_spaces

Ids = bytes
"""Token ids as int32s, one after the other."""
WIDTH = 4
"""Bytes of an id."""
SAMPLE = 3
"""Pairs of each call that are encoded both ways."""
NOTHING = (b"", b"", b"")


class PairEncoder:
    """Encodes pairs under one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._words = WordIds(tokenizer) if parts_at_spaces(tokenizer) else None

    def encode(self, prompts: Sequence[str], chosen: Sequence[str],
               rejected: Sequence[str]) -> list[tuple[Ids, Ids, Ids]]:
        """Ids of prompt, chosen and rejected of each pair; NOTHING of one that the chat template
        refuses.

        Args:
            prompts: JSON texts of message lists.
        """
        rows = list(zip(prompts, chosen, rejected, strict=True))
        if self._words is None:
            return self._encode_whole(rows)
        encoded = self._encode_words(rows)
        if encoded[:SAMPLE] != self._encode_whole(rows[:SAMPLE]):
            warnings.warn("this tokenizer's words are not what they were taken for: texts are "
                          "encoded whole, which takes longer", stacklevel=2)
            self._words = None
            return self._encode_whole(rows)
        return encoded

    def cut_left(self, pair: tuple[Ids, Ids, Ids], length: int) -> tuple[Ids, Ids, Ids]:
        """The pair, its prompt cut so that it has `length` ids together with the longer answer."""
        prompt, *answers = pair
        room = max(length - max(map(len, answers)) // WIDTH, 1)
        if len(prompt) <= WIDTH * room:
            return pair
        ids = np.frombuffer(prompt, np.int32).tolist()
        cut = cut_left(ids, room, self._tokenizer.bos_token_id)
        return (array("i", cut).tobytes(), *answers)

    def _encode_whole(self, rows: Sequence[tuple[str, str, str]]) -> list[tuple[Ids, Ids, Ids]]:
        pairs = [(json.loads(prompt), *answers) for prompt, *answers in rows]
        try:
            encoded = encode_pairs(self._tokenizer, pairs)
        except TemplateRefusal:
            if len(rows) == 1:
                return [NOTHING]
            return [ids for row in rows for ids in self._encode_whole([row])]
        return [tuple(array("i", ids).tobytes() for ids in each) for each in encoded]

    def _encode_words(self, rows: Sequence[tuple[str, str, str]]) -> list[tuple[Ids, Ids, Ids]]:
        texts = self._rendered(rows)
        starts = [last_cut(_beginning(each)) for each in texts]
        shared = [each[0][:start] for each, start in zip(texts, starts, strict=True) if each]
        distinct = dict.fromkeys(shared)
        for text, ids in zip(distinct, self._words.encode(list(distinct)), strict=True):
            distinct[text] = ids
        ends = iter(self._words.encode([text[start:] for each, start
                                        in zip(texts, starts, strict=True) for text in each]))
        encoded, shared = [], iter(shared)
        for (_, chosen, rejected), each in zip(rows, texts, strict=True):
            if not each:
                encoded.append(NOTHING)
                continue
            before, head, one, other = distinct[next(shared)], next(ends), next(ends), next(ends)
            length = WIDTH * _common_length(head, one, other)
            encoded.append((before + one[:length], one[length:] if chosen else b"",
                            other[length:] if rejected else b""))
        return encoded

    def _rendered(self, rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, ...]]:
        """Prompt with its generation header, and the two conversations; () where refused. Of an
        ABSENT answer, the other one's."""
        render = renderer(self._tokenizer)
        texts, last, messages, head = [], None, [], ""
        for prompt, chosen, rejected in rows:
            try:
                if prompt != last:  # pairs of a prompt stand together
                    last, messages = prompt, json.loads(prompt)
                    head = render(messages, True)
                texts.append((head, *(
                    render([*messages, {"role": "assistant", "content": answer}], False)
                    for answer in (chosen or rejected, rejected or chosen))))
            except TemplateRefusal:
                texts.append(())
                last = None
        return texts


def _beginning(texts: Sequence[str]) -> str:
    """What all of the texts begin with; "" of none."""
    if texts and all(text.startswith(texts[0]) for text in texts[1:]):
        return texts[0]
    return os.path.commonprefix(texts)


def _common_length(head: Ids, one: Ids, other: Ids) -> int:
    """Ids that all three begin with, at least one short of each answer: as
    `formatting.encode_answers` has it."""
    limit = min(len(head), len(one) - WIDTH, len(other) - WIDTH)
    if head[:limit] == one[:limit] == other[:limit]:
        return limit // WIDTH
    ids = [np.frombuffer(each[:limit], np.int32) for each in (head, one, other)]
    return int(np.argmax((ids[0] != ids[1]) | (ids[0] != ids[2])))
