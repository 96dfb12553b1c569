"""The base model that a pre-training goes on from, with its tokenizer, instead of fresh ones.

Language modelling of a data set's prompts and answers, before a reward head is put on, is the
generative fine-tuning of Burns et al. 2023 (arXiv 2312.09390, figure 10). No preference enters:
student and ceiling are cut from the one model that comes out.
"""

from functools import cached_property

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from configs.model_schema import ModelConfig
from configs.schema import CONFIG_ROOT, load_config
from model.base.weights import base_fingerprint, read_config
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder


class Start:
    """A base model on disk, by the name of its config.

    Raises:
        UserError: no such config; the model is not there, or no language model with a tokenizer.
    """

    def __init__(self, name: str):
        self.config = load_config(ModelConfig, name)
        read_config(self.config.path)  # or say how it is had

    @cached_property
    def fingerprint(self) -> str:
        return base_fingerprint(self.config.path)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Its own, with the chat template that its config names."""
        path = self.config.path
        with reading(path, "fetch or train it again"):
            tokenizer = from_folder(AutoTokenizer, path)
        if self.config.chat_template:
            template = CONFIG_ROOT / "templates" / self.config.chat_template
            with reading(template, "chat_template is a file of configs/templates"):
                tokenizer.chat_template = template.read_text(encoding="utf-8")
        if not tokenizer.chat_template:
            raise UserError(f"{path}: its tokenizer has no chat template: name one of "
                            "configs/templates as chat_template in the model's config")
        tokenizer.padding_side = "right"
        return tokenizer

    def model(self) -> PreTrainedModel:
        """Its language model in fp32."""
        with reading(self.config.path, "expected a language model's checkpoint"):
            return from_folder(AutoModelForCausalLM, self.config.path, dtype=torch.float32)
