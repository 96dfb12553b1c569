"""Base models on disk, with what an experiment needs to know of each."""

from functools import cached_property
from pathlib import Path

from configs.model_schema import ModelConfig
from configs.schema import load_config
from data.tokens.formatting import load_tokenizer, tokenizer_key
from model.base.language_head import head_name
from model.base.truncate import check_family, count_parameters
from model.base.weights import base_fingerprint, read_config
from src.common.errors import UserError


class BaseModel:
    """A base checkpoint; what takes time is read once, when it is asked for."""

    def __init__(self, key: str):
        self.key = key
        """What experiments call it: the name of its config, or the config's path."""
        self.config = load_config(ModelConfig, key)
        if not (self.path / "config.json").is_file():
            raise UserError(f"base model {self.config.name} is not at {self.path}: run `python "
                            f"model/download.py --model {self.config.name}` first (the experiment "
                            "`demo` needs no download)")
        self.hf_config = read_config(self.path)
        check_family(self.hf_config, str(self.path), self.config.family)
        self.layers = self.hf_config.num_hidden_layers
        self._parameters: dict[tuple[int, ...], tuple[int, int]] = {}

    @property
    def path(self) -> Path:
        return self.config.path

    def parameters(self, kept: tuple[int, ...]) -> int:
        """Of a reward model on the `kept` layers, without embeddings: what a forward costs."""
        return self._counted(kept)[1]

    def all_parameters(self, kept: tuple[int, ...]) -> int:
        """The same with embeddings: what is saved."""
        return self._counted(kept)[0]

    def _counted(self, kept: tuple[int, ...]) -> tuple[int, int]:
        if kept not in self._parameters:
            self._parameters[kept] = count_parameters(self.hf_config, kept)
        return self._parameters[kept]

    @cached_property
    def fingerprint(self) -> str:
        return base_fingerprint(self.path)

    @property
    def has_language_head(self) -> bool:
        """Whether the checkpoint is a whole language model's."""
        return head_name(self.path) is not None

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.path, self.config.chat_template)

    @cached_property
    def tokenizer_key(self) -> str:
        return tokenizer_key(self.tokenizer)
