"""The tokenizer that a GGUF file describes, and whether it does what the file says.

A GGUF file holds the vocabulary, and only names the way that text is split before anything is
merged. transformers makes a tokenizer of it, but not always the model's own: a name that it does
not know becomes GPT-2's way without a word, and Gemma's long runs of spaces are merged in another
order (findings/gguf_by_transformers.sh). Both are put right here.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model.base.gguf_file import REMEDY, GgufFile
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

SPLITS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])}
"""`tokenizer.ggml.pre` of byte-level vocabularies -> how text is split first."""
BLANKS = "\n\t▁"
"""White space of which Gemma's vocabulary holds whole runs."""
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
PROBES = (
    "The quick brown fox.", " one space before, one behind ", "two  three   four    spaces",
    f"{' ' * 40}after forty, {' ' * 100}a hundred", "a line\nanother\n\n\nand after three",
    "a tab\tand\t\ttwo", "  \n \t \n x", "0 1 12 123 1234567890",
    "in  2  rooms\n\n3 of 10,000.50", "3rd x2 2x 1's",
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
    tokens, kind = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.model")
    special = {name: file.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL.items()}
    for name, number in special.items():
        if number is not None and number not in range(len(tokens)):
            raise UserError(f"{file.path}: {name} has the id {number}, but there are {len(tokens)} "
                            f"tokens: the two are not of one model; {REMEDY}")
    pre = file.get("tokenizer.ggml.pre", "default")
    if kind == "gpt2" and pre not in SPLITS:
        raise UserError(f"{file.path}: its tokenizer splits text as {pre!r}, which is not known "
                        f"here: expected one of {', '.join(SPLITS)}; {REMEDY}")
    with reading(file.path, f"no tokenizer can be made of it; {REMEDY}"):
        backend = from_folder(AutoTokenizer, file.path.parent,
                              gguf_file=file.path.name).backend_tokenizer
    if kind == "gpt2":
        backend.pre_tokenizer = SPLITS[pre]
    elif file.architecture == "gemma3":
        backend = _longest_runs_first(backend)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=file.setting("context_length"),
        clean_up_tokenization_spaces=False,
        **{name: tokens[number] for name, number in special.items() if number is not None})
    tokenizer.chat_template = file.get("tokenizer.chat_template")
    _check(tokenizer, file, special)
    return tokenizer


def _longest_runs_first(backend: Tokenizer) -> Tokenizer:
    """The tokenizer with its merges of white space as in Gemma's own: 40 spaces are 31 and 9, not
    16 and 24."""
    state = json.loads(backend.to_str())
    runs, others = [], []
    for left, right in state["model"]["merges"]:
        is_run = left[0] in BLANKS and set(left + right) == {left[0]}
        (runs if is_run else others).append((left, right))
    runs.sort(key=lambda merge: (-len(merge[0]), -len(merge[1])))
    state["model"]["merges"] = runs + others
    return Tokenizer.from_str(json.dumps(state))


def _check(tokenizer: PreTrainedTokenizerFast, file: GgufFile,
           special: dict[str, int | None]) -> None:
    """UserError unless ids are those of the file, and text comes back from them."""
    tokens = file.get("tokenizer.ggml.tokens")
    if len(tokenizer) != len(tokens):
        raise UserError(f"{file.path}: {len(tokens)} tokens in the file, but {len(tokenizer)} in "
                        f"the tokenizer made of it; {REMEDY}")
    for name, told in special.items():
        held = getattr(tokenizer, f"{name}_id")
        if told != held:
            raise UserError(f"{file.path}: {name} has the id {told} in its metadata, but {held} in "
                            f"the tokenizer made of it; {REMEDY}")
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids)
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
                        "transformers reads it in a way that is not known here; install the one of "
                        "requirements.txt")
