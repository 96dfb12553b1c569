"""Tiny tokenizers and preference files for the tests of the data part: nothing is downloaded."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TURNS = ("{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>"
         "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
"""A chat template like Llama 3's; with_bos puts the BOS in front, as Llama 3's does."""
WITH_BOS = "{{ bos_token }}" + TURNS


def byte_tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes plus special tokens; `named` are bos_token=..., pad_token=..."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, *special])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def llama_like(template: str = WITH_BOS, **named: str) -> PreTrainedTokenizerFast:
    """Llama 3's traits: a BOS that the template writes, eos = end of turn, no pad token."""
    tokenizer = byte_tokenizer("<|begin|>", "<|start|>", "<|end|>",
                               "<|finetune_right_pad_id|>",
                               **{"bos_token": "<|begin|>", "eos_token": "<|end|>", **named})
    tokenizer.chat_template = template
    return tokenizer


def gpt2_like(template: str | None = None) -> PreTrainedTokenizerFast:
    """GPT-2's traits: one special token that is bos, eos and unk at once, and no template."""
    end = "<|endoftext|>"
    tokenizer = byte_tokenizer(end, bos_token=end, eos_token=end, unk_token=end)
    tokenizer.chat_template = template
    return tokenizer


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def messages_row(prompt: str, chosen: str, rejected: str) -> dict:
    """A row in preference_700K's form."""
    turn = {"role": "user", "content": prompt}
    return {"chosen": [turn, {"role": "assistant", "content": chosen}],
            "rejected": [turn, {"role": "assistant", "content": rejected}],
            "chosen_score": 1.0, "rejected_score": 0.5}


def text_rows(count: int, per_prompt: int = 2) -> list[dict]:
    """`count` sound rows prompt, chosen, rejected; `per_prompt` rows have the same prompt."""
    return [{"prompt": f"Question {i // per_prompt}?", "chosen": f"A good answer {i}.",
             "rejected": f"A bad one {i}."} for i in range(count)]


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_bytes(b"".join(row + b"\n" if isinstance(row, bytes) else
                              json.dumps(row).encode() + b"\n" for row in rows))
    return path
