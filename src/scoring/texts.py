"""A reward model + prompts with any number of responses, as texts -> a reward for each response.

For texts that no data set was prepared from: any file, a benchmark, what a person types. Rewards
are those of src/scoring/pairs.py: a prompt is computed once for all its responses.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.schema import RuntimeConfig
from data.records import Message
from data.tokens.formatting import (
    TemplateRefusal,
    TokenIds,
    encode_answers,
    load_tokenizer,
    tokenizer_key,
)
from data.tokens.tokenised import IDS
from model.base.truncate import positions
from model.base.weights import read_config, weights_fingerprint
from src.runs.folders import read_run
from src.runs.freed import require_weights
from src.scoring.pairs import load_scorer, precision_of, score

Question = tuple[Sequence[Message], Sequence[str]]
"""A prompt and the responses to it."""
NO_REWARD = "longer than the model's {most:,} tokens, or refused by its chat template"


class Responses:
    """What src/batches/trees.py reads of a TokenisedSplit, over responses in memory.

    Each response is a pair with itself: the trees find that the two are one, and it costs once.
    """

    def __init__(self, prompts: list[TokenIds], responses: list[TokenIds], prompt_of: list[int]):
        """R responses; `prompt_of` (R,) is the number of each one's prompt."""
        self._prompts = [np.asarray(ids, np.int32) for ids in prompts]
        self._responses = [np.asarray(ids, np.int32) for ids in responses]
        self.prompt_ids = np.asarray(prompt_of)

    def __len__(self) -> int:
        return len(self._responses)

    def ids(self, rows: Sequence[int], columns: Sequence[int]) -> list[np.ndarray]:
        """Token ids of column columns[k] (0 prompt, else the response) of row rows[k]."""
        return [self._responses[row] if column else self._prompts[self.prompt_ids[row]]
                for row, column in zip(rows, columns, strict=True)]

    def lengths(self) -> np.ndarray:
        """(R, 3) int64: tokens of prompt, response and response."""
        columns = range(len(IDS))
        return np.array([[len(ids) for ids in self.ids([row] * len(columns), columns)]
                         for row in range(len(self))], np.int64)


class TextScorer:
    """A reward model and its tokenizer.

    Args:
        folder: a finished reward model, ours or anybody's with one label.
        chat_template: file in configs/templates that replaces the tokenizer's own, or "".
    Raises:
        UserError: no tokenizer or chat template; not a reward model; an unfinished run, or one
            whose weights were freed.
    """

    def __init__(self, folder: Path, chat_template: str = ""):
        require_weights(folder)
        self.folder, self.runtime, self.run = folder, RuntimeConfig(), read_run(folder)
        self.tokenizer = load_tokenizer(folder, chat_template)
        self.most_tokens = min(positions(read_config(folder), str(folder)),
                               self.tokenizer.model_max_length)
        """Tokens of prompt and response that the model takes."""
        self._model = None

    @property
    def identity(self) -> dict[str, str]:
        """What a reward depends on beside the texts: weights, what they are computed in, vocabulary
        and chat template."""
        return {"model": weights_fingerprint(self.folder), "precision": precision_of(self.run),
                "tokenizer": tokenizer_key(self.tokenizer)}

    def rewards(self, questions: Sequence[Question], title: str = "") -> list[np.ndarray]:
        """A reward for each response, (responses of the question,) float32 for every question.

        NaN where prompt and response are longer than the model takes, which is never cut, or where
        the chat template refuses the conversation.
        """
        found = [np.full(len(texts), np.nan, np.float32) for _, texts in questions]
        prompts, responses, prompt_of, places = [], [], [], []
        for number, encoded in enumerate(self._encode(questions)):
            prompt_ids, answers = encoded or ([], [])
            prompts.append(prompt_ids)
            for i, ids in enumerate(answers):
                if len(prompt_ids) + len(ids) <= self.most_tokens:
                    responses.append(ids)
                    prompt_of.append(number)
                    places.append(i)
        if responses:
            split = Responses(prompts, responses, prompt_of)
            scored = score(self._loaded(), split, self.runtime, title)[:, 0]
            for number, i, reward in zip(prompt_of, places, scored, strict=True):
                found[number][i] = reward
        return found

    def _loaded(self):
        """The model, read when there is something to score."""
        if self._model is None:
            self._model = load_scorer(self.folder, self.runtime, self.run)
        return self._model

    def _encode(self, questions: Sequence[Question]
                ) -> list[tuple[TokenIds, list[TokenIds]] | None]:
        """Token ids of every question; None where the chat template refuses it."""
        try:
            return encode_answers(self.tokenizer, questions)
        except TemplateRefusal:
            return [self._encode_or_none(question) for question in questions]

    def _encode_or_none(self, question: Question) -> tuple[TokenIds, list[TokenIds]] | None:
        try:
            return encode_answers(self.tokenizer, [question])[0]
        except TemplateRefusal:
            return None
