"""Pre-train a small Llama of our own, so that experiments run where no checkpoint can be fetched;
or train a base model further on text (continued.py).

Tokenizer and model come out as one plain Hugging Face folder. The training loop is
transformers.Trainer's; a stopped run goes on from its newest checkpoint.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import torch
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from configs.identity import facts
from configs.pretrain_schema import PretrainConfig
from configs.schema import CONFIG_ROOT
from model.continued import Start
from src.common.checkpoints import newest_whole
from src.common.distributed import require_one_gpu
from src.common.errors import UserError, reading
from src.common.files import REPO_ROOT, require_space
from src.common.hashing import content_hash
from src.common.lock import lock
from src.common.owned import CHECKPOINT, MARK, claim, clear, require_ours

IGNORED = -100
KIND = "a model that was pre-trained here"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GUTENBERG = re.compile(r"\*\*\* ?START OF.*?\*\*\*(.*?)\*\*\* ?END OF", re.DOTALL)


def source_path(path: str) -> Path:
    """A config's path, absolute; UserError where there is no such file."""
    raw_dir = os.environ.get("RAW_DIR", str(REPO_ROOT / "data" / "raw"))
    full = REPO_ROOT / path.replace("${RAW_DIR}", raw_dir)
    if not full.is_file():
        raise UserError(f"{full}: no such file to pre-train on: `python data/demo.py --text` makes "
                        "the demo's, data/preprocess.py makes pairs, RAW_DIR names the folder of "
                        "raw data")
    return full


def documents_of(config: PretrainConfig) -> Iterator[tuple[str, str] | str]:
    """Every document: plain text, or (prompt as JSON messages, answer) of a prepared pair."""
    for path in map(source_path, config.documents):
        with reading(path, "expected UTF-8 text, a document a line"):
            lines = path.read_text(encoding="utf-8").split("\n")
        yield from (lines if lines[-1] else lines[:-1])
    for path in map(source_path, config.books):
        with reading(path, "expected UTF-8 text, or a JSON list of texts"):
            text = path.read_text(encoding="utf-8")
            stories = json.loads(text) if path.suffix == ".json" else []
            if not isinstance(stories, list) or not all(isinstance(s, str) for s in stories):
                raise ValueError("no list of texts")
        yield from stories
        if path.suffix != ".json":  # without Project Gutenberg's header and licence
            body = GUTENBERG.search(text)
            yield from re.split(r"\n\s*\n", body[1] if body else text)
    for path in map(source_path, config.pairs):
        with reading(path, "expected the pairs/<split>.parquet of prepared data"):
            pairs = pq.read_table(path, columns=["prompt", "chosen", "rejected"]).to_pylist()
            for pair in pairs:
                json.loads(pair["prompt"])
        yield from answers_of(pairs)


def answers_of(pairs: list[dict[str, str]]) -> list[tuple[str, str]]:
    """(prompt, answer), each that there is once, in the order of a hash of the two.

    Neither place nor number tells which answer was preferred: that of several pairs with one prompt
    is often the same one, and would otherwise be met more often than those beside it.
    """
    found = {(pair["prompt"], answer) for pair in pairs
             for answer in (pair["chosen"], pair["rejected"]) if answer}  # one may be absent
    return sorted(found, key=content_hash)


def train_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, or of byte pairs, over the config's text; with chat template."""
    special = list(SPECIAL.values())
    if config.tokenizer == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(vocab_size=config.vocab_size, special_tokens=special)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=config.vocab_size, special_tokens=special,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    text = (item if isinstance(item, str) else item[1] for item in documents_of(config))
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **SPECIAL)
    template = CONFIG_ROOT / "templates" / config.chat_template
    with reading(template, f"pretrain/{config.name}: chat_template is a file of configs/templates"):
        fast.chat_template = template.read_text(encoding="utf-8")
    return fast


def token_rows(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Rows of at most max_length token ids: documents, or blocks of joined documents."""
    found = list(documents_of(config))
    with reading(f"pretrain/{config.name}: pairs", "the chat template refuses a prompt of them: "
                 "name another as chat_template in the start's config, or leave such pairs out"):
        documents = [
            (tokenizer.bos_token or "") + item + tokenizer.eos_token if isinstance(item, str) else
            tokenizer.apply_chat_template(
                [*json.loads(item[0]), {"role": "assistant", "content": item[1]}], tokenize=False)
            for item in found]
    if not documents:
        raise UserError(f"pretrain/{config.name}: no text in any of its documents, books and pairs")
    rows = tokenizer(documents, add_special_tokens=False).input_ids
    if not config.packed:
        return [ids[: config.max_length] for ids in rows]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(config.seed)).tolist()
    joined = [token for i in order for token in rows[i]]
    blocks = range(0, len(joined) - config.max_length + 1, config.max_length)
    if not blocks:
        raise UserError(f"pretrain/{config.name}: {len(joined)} tokens of text are not one row of "
                        f"{config.max_length}: give more text or lower max_length")
    return [joined[start : start + config.max_length] for start in blocks]


class RowCollator:
    """Rows -> input_ids and labels, right-padded; padding and all up to `after` is not learned."""

    def __init__(self, pad_token_id: int, after: int | None):
        self.pad_token_id = pad_token_id
        self.after = after

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        rows = [torch.tensor(example["input_ids"]) for example in examples]
        input_ids = torch.nn.utils.rnn.pad_sequence(rows, True, self.pad_token_id)
        labels = torch.nn.utils.rnn.pad_sequence(rows, True, IGNORED)
        if self.after is not None:
            seen = (input_ids == self.after).cumsum(1) - (input_ids == self.after).long()
            labels = labels.masked_fill(seen == 0, IGNORED)
        return {"input_ids": input_ids, "labels": labels}


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(config.seed)  # the library's initialiser knows no other generator
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.heads,
        max_position_embeddings=2048, tie_word_embeddings=True,
        initializer_range=config.initializer_range,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id))


CARD = """\
# {name}

{kind} of {parameters:,} parameters, trained here with transformers {version}:

    python -m model.pretrain --config {name}

on {rows:,} rows of {tokens:,} tokens in all, under this config:

```yaml
{config}```
"""


def pretrain(config: PretrainConfig) -> Path:
    """Tokenizer, rows, training, and the finished folder; only a finished model ends up there.

    Raises:
        UserError: an output folder of somebody else, texts that cannot be read, several GPUs.
    """
    output_dir = REPO_ROOT / config.output_dir
    require_ours(output_dir, KIND, f"pretrain/{config.name}: output_dir", _was_made_here)
    require_one_gpu()
    with lock(output_dir):
        try:
            return _pretrain(config, output_dir)
        except Exception:
            require_space(output_dir.parent)
            raise


def _pretrain(config: PretrainConfig, output_dir: Path) -> Path:
    start = Start(config.start) if config.start else None
    work = work_folder(config, start)
    tokenizer = start.tokenizer() if start else train_tokenizer(config)
    after = _mark(config, tokenizer)
    rows = token_rows(config, tokenizer)
    claim(work, "checkpoints of a pre-training", "pre-training",
          lambda folder: any(folder.glob("checkpoint-*")))
    model = start.model() if start else build_model(config, tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens in the vocabulary, "
          f"{len(rows):,} rows of {sum(map(len, rows)):,} tokens")
    data = [{"input_ids": row, "length": len(row)} for row in rows]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work), num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch_rows, learning_rate=config.learning_rate,
            lr_scheduler_type="cosine", warmup_steps=0.02, weight_decay=0.01, adam_beta2=0.98,
            seed=config.seed, data_seed=config.seed, logging_steps=100, save_steps=1000,
            save_total_limit=2, report_to="none", bf16=torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            train_sampling_strategy="random" if config.packed else "group_by_length"),
        train_dataset=data,
        data_collator=RowCollator(tokenizer.eos_token_id if tokenizer.pad_token_id is None else
                                  tokenizer.pad_token_id, after),  # which nothing looks at
    )
    newest = newest_whole(work, 1)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    partial = output_dir.with_name(f".{output_dir.name}.partial")
    claim(partial, KIND, "the unfinished model")
    trainer.save_model(str(partial))
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(CARD.format(
        name=config.name, kind=f"{start.config.name}, a model" if start else "A Llama",
        parameters=model.num_parameters(), version=transformers.__version__,
        rows=len(rows), tokens=sum(map(len, rows)),
        config=yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False)))
    (partial / "training_args.bin").unlink(missing_ok=True)
    _put_in_place(partial, output_dir)
    shutil.rmtree(work)
    return output_dir


def work_folder(config: PretrainConfig, start: Start | None) -> Path:
    """Where checkpoints to resume from lie: of this config and this base model alone."""
    entering = [facts(config), start.fingerprint] if start else facts(config)
    return REPO_ROOT / "runs" / "pretrain" / f"{config.name}-{content_hash(entering, 8)}"


def _was_made_here(folder: Path) -> bool:
    """Whether a folder without a mark holds a model that was made before there were marks."""
    card = folder / "README.md"
    return card.is_file() and "python -m model.pretrain --config" in card.read_text(
        encoding="utf-8", errors="replace")


def _put_in_place(partial: Path, output_dir: Path) -> None:
    """The finished model instead of an earlier one; what else lies there stays."""
    clear(output_dir, (*CHECKPOINT, MARK))
    if not output_dir.exists():
        partial.rename(output_dir)
        return
    for path in partial.iterdir():
        path.replace(output_dir / path.name)
    partial.rmdir()


def _mark(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id of `loss_after`; None where there is none."""
    if config.loss_after and config.loss_after not in tokenizer.get_vocab():
        raise UserError(f"pretrain/{config.name}: loss_after {config.loss_after!r} is no token of "
                        "the text: name one, or leave it out")
    return tokenizer.convert_tokens_to_ids(config.loss_after) if config.loss_after else None
