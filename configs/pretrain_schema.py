"""The config of a small base model of our own, and of one that goes on from another."""

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field

from configs.field_types import Epochs, Name, Positive, Seed, Several, Size
from configs.strict_yaml import config, require

SHAPE = ("tokenizer", "vocab_size", "chat_template", "hidden_size", "intermediate_size", "layers",
         "heads", "initializer_range")
"""Keys of PretrainConfig that a base model to go on from decides."""


@config
class PretrainConfig:
    """A small base model of our own: `configs/pretrain/<name>.yaml`."""

    name: Name
    output_dir: str
    max_length: Size
    """Tokens of a row: a document's limit, or the length of a block where documents are packed."""
    start: str = ""
    """The config of a base model to go on from: its weights, its tokenizer and its shape. Empty for
    a fresh small Llama of the shape that this config gives."""
    documents: Several[str] = ()
    """Text files of one document a line. `${RAW_DIR}` is the environment's, or data/raw."""
    books: Several[str] = ()
    """Text files of running English, or JSON lists of stories."""
    pairs: Several[str] = ()
    """pairs/<split>.parquet of prepared data: each prompt with each of its answers is a document,
    once; neither order nor number tells which answer was preferred."""
    packed: bool = False
    """Documents are joined and cut into blocks; otherwise each is a row of its own."""
    loss_after: str = ""
    """Only what follows this token of a row is learned; empty for everything."""
    tokenizer: Literal["words", "bpe"] = "bpe"
    vocab_size: Annotated[Size, Field(ge=256)] = 4096
    """One for each byte at least."""
    chat_template: str = "plain.jinja"
    hidden_size: Size = 64
    intermediate_size: Size = 192
    layers: Size = 6
    heads: Size = 4
    epochs: Epochs = 1.0
    batch_rows: Size = 64
    learning_rate: Positive = 1e-3
    seed: Seed = 0
    initializer_range: Positive = 0.02
    """Standard deviation of the weights at first. Narrow models learn facts sooner from near
    1/sqrt(hidden_size): four layers of width 64 knew 85 to 100% of what 30 people of the demo's
    world do after 33,000 documents from 0.1, and 16% after 50,000 from 0.02 (at another rate)."""

    def __post_init__(self):
        require(bool(self.documents or self.books or self.pairs),
                "give some documents, books or pairs to train on")
        own = [each.name for each in fields(self) if each.name in SHAPE
               and getattr(self, each.name) != each.default]
        require(not (self.start and own), f"{', '.join(own)}: they are those of start {self.start}:"
                " leave them out")
        require(self.hidden_size % (2 * self.heads) == 0, f"hidden_size {self.hidden_size} must be "
                f"a multiple of twice its {self.heads} heads")
