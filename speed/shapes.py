"""The model that every system of a benchmark trains or scores with: a Llama of random weights."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from model.reward_model import initial_head


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama; `head_dim` is hidden / heads."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 448
    vocab: int = 4096

    @property
    def pad(self) -> int:
        """The padding id: the vocabulary's last, which no pair holds."""
        return self.vocab - 1

    @property
    def parameters(self) -> int:
        """Weights of the decoder layers' matrices: what a token costs, embeddings aside."""
        attention = self.hidden * self.hidden * (2 + 2 * self.kv_heads / self.heads)
        return int(self.layers * (attention + 3 * self.hidden * self.intermediate))

    def with_layers(self, layers: int) -> "Shape":
        return dataclasses.replace(self, layers=layers)

    def with_hidden(self, hidden: int) -> "Shape":
        """Another width, with the feed-forward layer in proportion."""
        return dataclasses.replace(self, hidden=hidden,
                                   intermediate=self.intermediate * hidden // self.hidden)


SHAPES = {
    "small": Shape(),
    "smollm2_135m": Shape(576, 30, 9, 3, 1536, 49152),
    "llama_3_2_1b": Shape(2048, 16, 32, 8, 8192, 128256),
}


def config_of(shape: Shape) -> LlamaConfig:
    """One label, no dropout; weights spread so that attention matters and rewards differ."""
    return LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, max_position_embeddings=8192,
        initializer_range=shape.hidden**-0.5, pad_token_id=shape.pad, bos_token_id=None,
        eos_token_id=None, num_labels=1, use_cache=False)


def write_model(shape: Shape, folder: Path, seed: int) -> Path:
    """A classifier of this shape saved in `folder`; the same weights for the same seed."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config_of(shape), dtype=torch.float32)
    model.score.weight.data.copy_(initial_head(shape.hidden, seed))
    model.save_pretrained(folder)
    return folder


def load_classifier(folder: Path, attention: str = "sdpa") -> PreTrainedModel:
    """The saved model as the library's own class, in fp32: what the peers train and score with."""
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32,
                                                              attn_implementation=attention)
