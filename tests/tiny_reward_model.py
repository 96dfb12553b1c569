"""A tiny reward model of random weights with a tokenizer of bytes, for tests that score texts."""

from pathlib import Path

import torch

from data.tokens.formatting import load_tokenizer
from model.reload_check import plain_rewards
from model.reward_model import build_reward_model
from tests.families import save_base
from tests.tiny_data import TURNS, llama_like, save

NO_SYSTEM = ("{% for m in messages %}{% if m['role'] == 'system' %}"
             "{{ raise_exception('no system') }}{% endif %}{% endfor %}" + TURNS)
MOST_TOKENS = 128


def make_reward_model(folder: Path, template: str = TURNS, name: str = "model",
                      seed: int = 0) -> Path:
    """A reward model in `folder` / `name` that takes MOST_TOKENS tokens, about as many letters."""
    base = save_base(folder / "base", "llama", vocab_size=260, hidden_size=32, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2,
                     max_position_embeddings=MOST_TOKENS)
    tokenizer = load_tokenizer(save(llama_like(template), folder / name))
    model = build_reward_model(base, (0, 1), seed, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def plain_reward(model: Path, prompt: list[dict], response: str) -> float:
    """The reward that the library's own classifier gives to one conversation alone."""
    messages = [*prompt, {"role": "assistant", "content": response}]
    text = load_tokenizer(model).apply_chat_template(messages, tokenize=False)
    ids = load_tokenizer(model)(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return plain_rewards(model, [ids]).item()
