"""The tokenizer that a GGUF file describes, and whether it does what the file says.

A GGUF file holds the vocabulary and names the way to split text before it is merged; the rest of a
tokenizer is code. transformers has it, but does not know every name: a way that is unknown to it
becomes GPT-2's without a word (findings/gguf_tokenizer_pre.sh).
"""

import json
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.base.gguf_file import REMEDY, GgufFile
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

SPLITS = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])}
"""`tokenizer.ggml.pre` of byte-level vocabularies -> how text is split first."""
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
PROBES = (
    "The quick brown fox.", " one space before, one behind ", "two  three   four    spaces",
    "a line\nanother\n\n\nand after three", "a tab\tand\t\ttwo", "  \n \t \n x",
    "0 1 12 123 1234567890", "in  2  rooms\n\n3 of 10,000.50", "3rd x2 2x 1's",
    "don't, we'll: (\"quoted\") [a] {b} <c> a_b-c/d\\e @f #g $h %i ^j &k *l",
    "français, naïve, Straße, señor", "привет, мир", "你好，世界。", "こんにちは", "안녕하세요",
    "مرحبا بالعالم", "नमस्ते दुनिया", "🙂👩‍👩‍👧‍👦🏳️‍🌈", "ﬁ ½ ² № ™", "e\u0301 combining",
    "def f(x):\n    return x ** 2\n", "<|not|> <a> &lt; </s>")
"""What a text goes through: spaces, newlines, digits, code, other scripts, bytes."""


def read_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """The tokenizer, checked against the file's metadata and on PROBES.

    Raises:
        UserError: no tokenizer, one of a kind that is not read here, special tokens that are not
            the file's, or text that does not survive encoding.
    """
    with reading(file.path, f"no tokenizer can be made of it; {REMEDY}"):
        library = from_folder(AutoTokenizer, file.path.parent, gguf_file=file.path.name)
        backend = library.backend_tokenizer
    if file.get("tokenizer.ggml.model") == "gpt2":
        pre = file.get("tokenizer.ggml.pre")
        if pre not in SPLITS:
            raise UserError(f"{file.path}: its tokenizer splits text as {pre!r}, which is not "
                            f"known here: expected one of {', '.join(SPLITS)}; {REMEDY}")
        backend.pre_tokenizer = SPLITS[pre]()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=file.setting("context_length"),
        clean_up_tokenization_spaces=False,
        **{name: str(token) for name, token in library.special_tokens_map.items()
           if name in SPECIAL})
    tokenizer.chat_template = file.get("tokenizer.chat_template")
    check_tokenizer(tokenizer, file)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, file: GgufFile) -> None:
    """UserError unless ids are those of the file, and text comes back from them."""
    tokens = file.get("tokenizer.ggml.tokens")
    if len(tokenizer) != len(tokens):
        raise UserError(f"{file.path}: {len(tokens)} tokens in the file, but {len(tokenizer)} in "
                        f"the tokenizer made of it; {REMEDY}")
    for name, key in SPECIAL.items():
        told = file.get(f"tokenizer.ggml.{key}_token_id")
        held = getattr(tokenizer, f"{name}_id")
        if told != held:
            raise UserError(f"{file.path}: {name} has the id {told} in its metadata, but {held} in "
                            f"the tokenizer made of it; {REMEDY}")
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if back != text:
            raise UserError(f"{file.path}: the tokenizer made of it turns {text!r} into {back!r}; "
                            f"{REMEDY}")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja, read once more.

    Raises:
        UserError: what comes back from the folder is another tokenizer.
    """
    tokenizer.save_pretrained(folder)
    again = from_folder(AutoTokenizer, folder)
    one, other = (json.loads(each.backend_tokenizer.to_str()) for each in (tokenizer, again))
    if one != other:
        part = next(key for key in one if one[key] != other.get(key))
        raise UserError(f"{folder}: its tokenizer comes back with another {part}: this version of "
                        "transformers is not the one that this was written for")
