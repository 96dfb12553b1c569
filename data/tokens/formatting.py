"""Tokenizers and chat templates: the only file that knows either.

A pair becomes token ids on one path: chat template to text, text to ids with no special token
added, so that no BOS is doubled or lost. Knows nothing of files of pairs or of batches.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from configs.schema import CONFIG_ROOT
from data.records import Message
from src.common.errors import UserError, reading
from src.common.pretrained import from_folder

TokenIds = list[int]

PAD_TOKENS = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|PAD_TOKEN|>",
              "<|endoftext|>", "<unk>", "[UNK]", "<|reserved_special_token_0|>", "[control_8]",
              "<unused0>")
"""Tokens to pad with, best first, where the tokenizer's own will not do."""
NEVER_PRODUCED = "\u00ff"
"""Byte 0xFF in a byte-level vocabulary: no UTF-8 text contains that byte."""
TEMPLATE_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
                   ValueError)
"""What Python raises on the way through a template that adds a text to a number, say."""
FIXED_DATE = "{%- macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""In front of a template that writes today's date (Llama 3.2): ids must not depend on the day, and
scores not on the day they are asked for. The date is that template's own where it knows none."""
PROBE = ({"role": "user", "content": "Which one?"},)
PROBE_TEXT = "The quick brown fox, 1234: \u00fcber na\u00efve\n\n  x=y"


class TemplateRefusal(Exception):
    """The chat template raises for this conversation, for example for a system message."""


def load_tokenizer(path: str | Path, chat_template: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, ready for reward modelling.

    Padding is on the right with a token of the vocabulary (no embedding is ever resized) that no
    response ends with: where pad equals the last token, a reward read by searching for padding is
    the reward of the wrong token.

    Args:
        path: folder with the tokenizer's files.
        chat_template: file in configs/templates that replaces the tokenizer's own, or "".
    Raises:
        UserError: no such folder or tokenizer; no chat template; no token to pad with.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"no tokenizer at {folder}: expected a model folder; fetch one with "
                        "python model/download.py --model NAME")
    try:
        tokenizer = from_folder(AutoTokenizer, str(folder))
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise UserError(f"{folder}: no readable tokenizer in it: {error}") from error
    if not isinstance(tokenizer.model_max_length, int | float):
        raise UserError(f"{folder}: model_max_length {tokenizer.model_max_length!r} in "
                        "tokenizer_config.json: expected a number")
    if chat_template:
        tokenizer.chat_template = read_template(chat_template)
    if not isinstance(tokenizer.chat_template, str) or not tokenizer.chat_template.strip():
        known = ", ".join(sorted(p.name for p in (CONFIG_ROOT / "templates").glob("*.jinja")))
        raise UserError(f"{folder}: the tokenizer has no chat template: name one of configs/"
                        f"templates ({known}) as chat_template in the model's config, or copy it "
                        f"to {folder / 'chat_template.jinja'}")
    if "strftime_now" in tokenizer.chat_template and FIXED_DATE not in tokenizer.chat_template:
        tokenizer.chat_template = FIXED_DATE + tokenizer.chat_template
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "left"
    _require_answers(tokenizer, folder)
    _set_pad_token(tokenizer, folder)
    return tokenizer


def _require_answers(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """UserError where the chat template shows nothing of an answer: all rewards would be equal."""
    render = renderer(tokenizer)
    try:
        texts = {render([{"role": "user", "content": "Which one?"},
                         {"role": "assistant", "content": answer}])
                 for answer in ("The first.", "The second.")}
    except TemplateRefusal:
        return  # of this prompt, and maybe of no other: what is refused is counted
    if len(texts) == 1:
        raise UserError(f"{folder}: under its chat template all answers are alike: it leaves out "
                        "what the role `assistant` says; name another template")


def read_template(name: str) -> str:
    """The text of a Jinja file in configs/templates, or of a path."""
    for candidate in (CONFIG_ROOT / "templates" / name, Path(name)):
        if candidate.is_file():
            with reading(candidate, "write it as UTF-8 text"):
                return candidate.read_text(encoding="utf-8")
    known = ", ".join(sorted(p.name for p in (CONFIG_ROOT / "templates").glob("*.jinja")))
    raise UserError(f"no chat template {name!r}: expected one of {known} in configs/templates")


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """12 hex digits of what decides the ids of a conversation: vocabulary, splitting, template.

    No name or path enters: the same tokenizer in another folder has the same key.
    """
    parts = [sorted(tokenizer.get_vocab().items()), tokenizer.chat_template,
             tokenizer.bos_token, tokenizer.eos_token,
             tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], chosen: str,
                rejected: str) -> tuple[TokenIds, TokenIds, TokenIds]:
    """Token ids of the prompt and of each answer; see encode_pairs."""
    return encode_pairs(tokenizer, [(prompt, chosen, rejected)])[0]


def encode_pairs(tokenizer: PreTrainedTokenizerBase,
                 pairs: Sequence[tuple[Sequence[Message], str, str]]
                 ) -> list[tuple[TokenIds, TokenIds, TokenIds]]:
    """Token ids (prompt_ids, chosen_ids, rejected_ids) of many pairs, see encode_answers.

    An ABSENT answer has no ids.
    """
    encoded = encode_answers(tokenizer, [(prompt, (chosen or rejected, rejected or chosen))
                                         for prompt, chosen, rejected in pairs])
    return [(prompt_ids, chosen_ids if chosen else [], rejected_ids if rejected else [])
            for (_, chosen, rejected), (prompt_ids, (chosen_ids, rejected_ids))
            in zip(pairs, encoded, strict=True)]


def encode_answers(tokenizer: PreTrainedTokenizerBase,
                   questions: Sequence[tuple[Sequence[Message], Sequence[str]]]
                   ) -> list[tuple[TokenIds, list[TokenIds]]]:
    """Token ids (prompt_ids, ids of each answer) of many prompts with one or more answers each.

    prompt_ids + the ids of an answer are exactly the ids of the whole templated conversation. The
    prompt ends where the conversations and the prompt with its generation header part, so a token
    that spans the border belongs to the answers.

    Raises:
        TemplateRefusal: the chat template does not take a conversation.
    """
    texts, render = [], renderer(tokenizer)
    for prompt, answers in questions:
        texts.append(render(prompt, True))
        texts += [render([*prompt, {"role": "assistant", "content": answer}])
                  for answer in answers]
    ids = iter(tokenizer(texts, add_special_tokens=False, return_attention_mask=False,
                         verbose=False)["input_ids"])
    encoded = []
    for _, answers in questions:
        head, *whole = itertools.islice(ids, 1 + len(answers))
        shared = _common_length(head, whole)
        encoded.append((whole[0][:shared], [each[shared:] for each in whole]))
    return encoded


def answer_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer: the one that the chat template closes every turn with, or
    where it writes none, the tokenizer's end of text.

    Raises:
        UserError: there is neither: a language model could not say that it is done.
    """
    one, other = (encode_pair(tokenizer, PROBE, answer, "b")[1] for answer in ("This.", "a"))
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    special -= {tokenizer.unk_token_id}  # which is what some read of any answer
    after = [a for a, b in zip(reversed(one), reversed(other), strict=False) if a == b]
    closing = [token for token in reversed(after) if token in special]
    if not closing and tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: its chat template closes no turn and it has no "
                        "eos_token: no answer would ever end; set eos_token in "
                        "tokenizer_config.json")
    return closing[0] if closing else tokenizer.eos_token_id


def cut_left(prompt_ids: TokenIds, room: int, bos_token_id: int | None) -> TokenIds:
    """The last `room` tokens of a prompt; a BOS in front stays in front."""
    if len(prompt_ids) <= room:
        return prompt_ids
    if prompt_ids[0] == bos_token_id and room > 1:
        return [bos_token_id, *prompt_ids[len(prompt_ids) - room + 1:]]
    return prompt_ids[len(prompt_ids) - room:]


def renderer(tokenizer: PreTrainedTokenizerBase) -> Callable[..., str]:
    """A function of a conversation, and whether the header of an answer follows: its text as the
    chat template writes it, or TemplateRefusal where that does not take the conversation.

    The tokenizer's names are looked up once; in its apply_chat_template, which looks them up for
    each conversation, half of the time went there.
    """
    template, names = tokenizer.chat_template, tokenizer.special_tokens_map

    def written(messages: Sequence[Message], generation: bool = False) -> str:
        try:
            texts, _ = render_jinja_template([list(messages)], chat_template=template,
                                             add_generation_prompt=generation, **names)
        except (jinja2.TemplateError, *TEMPLATE_ERRORS) as error:
            raise TemplateRefusal(f"{error}" or type(error).__name__) from error
        return texts[0]

    @functools.cache
    def loses_system() -> bool:
        """Mistral's templates write the system message only where the last turn is the user's."""
        asked = [{"role": "system", "content": "Be brief."}, *PROBE]
        answered = [*asked, {"role": "assistant", "content": "This one."}]
        return "Be brief" in written(asked, True) and "Be brief" not in written(answered)

    def text_of(messages: Sequence[Message], generation: bool = False) -> str:
        text = written(messages, generation)
        if any(message["role"] == "system" for message in messages) and loses_system():
            raise TemplateRefusal("it leaves out the system message where an answer follows")
        return text

    return text_of


def _common_length(head: TokenIds, whole: Sequence[TokenIds]) -> int:
    """Length of the common prefix of all sequences, at least one token short of each answer."""
    limit = min(len(head), *(len(each) - 1 for each in whole))
    first, last = min(head, *whole), max(head, *whole)  # what these two share, all share
    for i in range(limit):
        if first[i] != last[i]:
            return i
    return limit


def _set_pad_token(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Choose a pad token that is in the vocabulary and ends no response."""
    try:
        ends = {encode_pair(tokenizer, PROBE, *answers)[side][-1]
                for answers in (("This.", "That."), ("a", "b")) for side in (1, 2)}
    except TemplateRefusal as error:
        raise UserError(f"{folder}: the chat template refuses a plain question and answer: "
                        f"{error}") from error
    vocabulary = tokenizer.get_vocab()
    if len(ends) > 1:  # the template does not close a turn: a response may end with any word
        ends.add(tokenizer.unk_token_id)
    own = [tokenizer.pad_token] if tokenizer.pad_token is not None else []
    for token in (*own, *PAD_TOKENS, NEVER_PRODUCED):
        if token in vocabulary and vocabulary[token] not in {*ends, tokenizer.eos_token_id,
                                                             tokenizer.bos_token_id}:
            tokenizer.pad_token = token
            return
    raise UserError(f"{folder}: no token to pad with that ends no response: set pad_token in "
                    "tokenizer_config.json to a token of the vocabulary that text never contains")
