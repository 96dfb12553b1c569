"""PairRM (llm-blender/PairRM-hf): which of two answers to a prompt is better, from a local folder.

A DeBERTa reads prompt and both answers at once and scores each answer from the states of two
marking tokens; a comparison is the difference of the two scores. It prefers a place as well as an
answer, so both orders are asked. The library alone reads it here: the package llm-blender does not
import beside transformers 5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, DebertaV2Model

from model.base.weights import read_config, read_tensors, tensor_files
from src.common.distributed import device
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

MARKS = {"source_prefix_id": "<|source|>", "cand1_prefix_id": "<|candidate1|>",
         "cand2_prefix_id": "<|candidate2|>"}
"""Keys of its config, and the tokens that they are the ids of."""
TRUNK, HEAD = "pretrained_model.", {"head_layer.1.": "0.", "head_layer.4.": "2."}
"""Beginnings of its tensors; those of the head and what they are here, without its dropout."""
MOST_TOKENS, PROMPT_TOKENS = 2048, 1224
BATCH = 8


class PairRM:
    """Reads the folder at once.

    Raises:
        UserError: not a PairRM; tensors that it lacks or that nobody knows.
    """

    def __init__(self, folder: Path):
        remedy = "name a folder that holds llm-blender/PairRM-hf"
        config = read_config(folder)
        if config.model_type != "deberta-v2" or not all(hasattr(config, key) for key in MARKS):
            raise UserError(f"{folder}: a {config.model_type} whose config.json names no "
                            f"{', '.join(MARKS)}: no PairRM: {remedy}")
        with reading(folder, remedy):
            self.tokenizer = from_folder(AutoTokenizer, folder)
        self._marks = [getattr(config, key) for key in MARKS]
        self.trunk, width = DebertaV2Model(config), config.hidden_size
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(),
                                  nn.Linear(width, config.n_tasks))
        files = tensor_files(folder)
        try:
            self.trunk.load_state_dict(_renamed(files, {TRUNK: ""}))
            self.head.load_state_dict(_renamed(files, HEAD))
        except RuntimeError as error:
            raise UserError(f"{folder}: its tensors are not PairRM's ({error}): "
                            f"{remedy}") from error
        for part in (self.trunk, self.head):
            part.to(device()).eval()

    def logits(self, prompts: Sequence[str], ours: Sequence[str], others: Sequence[str],
               title: str = "") -> np.ndarray:
        """(n,) float64, above 0 where ours is the better answer: the mean of both orders."""
        first, second = (self._asked(prompts, *sides, title)
                         for sides in ((ours, others), (others, ours)))
        return (first - second) / 2

    def _asked(self, prompts: Sequence[str], left: Sequence[str], right: Sequence[str],
               title: str) -> np.ndarray:
        rows = [self._ids(*texts) for texts in zip(prompts, left, right, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.zeros(len(rows))
        starts = range(0, len(rows), BATCH)
        for start in tqdm(starts, title, unit="batch", disable=not title, leave=False):
            own = order[start : start + BATCH]
            found[own] = self._compared([rows[i] for i in own]).double().cpu().numpy()
        return found

    def _ids(self, prompt: str, left: str, right: str) -> list[int]:
        """Prompt and answers, each behind its mark and cut at its end, with the tokenizer's own
        ends; answers share what the prompt leaves."""
        marks = list(MARKS.values())
        found = self._cut(marks[0] + prompt, PROMPT_TOKENS)
        room = (MOST_TOKENS - len(found)) // 2
        return found + self._cut(marks[1] + left, room) + self._cut(marks[2] + right, room)

    def _cut(self, text: str, most: int) -> list[int]:
        return self.tokenizer.encode(text, max_length=most, truncation=True)

    @torch.inference_mode()
    def _compared(self, rows: list[list[int]]) -> Tensor:
        """(B,): how much better the left answer of each row is."""
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True,
                                        self.tokenizer.pad_token_id).to(device())
        lengths = torch.tensor([len(row) for row in rows], device=device())
        mask = (torch.arange(ids.shape[1], device=device()) < lengths[:, None]).long()
        states = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        source, left, right = (self._at(states, ids, mark) for mark in self._marks)
        scores = [self.head(torch.cat([source, side], dim=-1)) for side in (left, right)]
        return (scores[0] - scores[1]).mean(dim=-1)

    @staticmethod
    def _at(states: Tensor, ids: Tensor, mark: int) -> Tensor:
        """(B, d): behind the first of these tokens in each row."""
        place = (ids == mark).int().argmax(dim=1)
        return states[torch.arange(len(ids), device=ids.device), place]


def _renamed(files: dict[str, Path], beginnings: dict[str, str]) -> dict[str, Tensor]:
    names = {name: new + name.removeprefix(old) for old, new in beginnings.items()
             for name in files if name.startswith(old)}
    return read_tensors(files, names, torch.float32)
