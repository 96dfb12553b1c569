"""Questions with several answers, one of them right: the data of the tax's tasks in configs/tax.

Each task names its data under `metadata: {data: ...}`: a config of configs/data, or NAME=FILE. What
is prepared is data/processed/tax/<task>.jsonl, a question a line: question, choices, gold (the
number of the right choice).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from configs.schema import CONFIG_ROOT, DataConfig
from data.manifest import MANIFEST
from data.pairs.pair_files import read_pairs
from data.read.answers import Answers
from data.read.sources import find_form, named_data, open_source, read_answers
from data.records import prompt_id_of
from src.common.errors import UserError

TASKS = CONFIG_ROOT / "tax"
FOLDER = Path("tax")
"""Of the prepared questions, below data/processed."""
NOT_ONE = "not one right answer among several"


def task_names() -> list[str]:
    """The tasks of configs/tax."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))


def questions(data: str, data_dir: Path) -> tuple[list[dict], Counter[str]]:
    """The questions of a data set, in its order, and why others were left out.

    Args:
        data: a config of configs/data, or NAME=FILE; `${RAW_DIR}` is the environment's.
    Raises:
        UserError: no such data, or no question in it.
    """
    config = named_data(data)
    if config is None:
        raise UserError(f"{data}: a file alone does not say what its columns mean: name a config "
                        "of configs/data, or NAME=FILE")
    untaught, found, left_out = _test_prompts(config, data_dir), [], Counter()
    for item in _answers(config):
        reason = item if isinstance(item, str) else _unusable(item, untaught)
        if reason:
            left_out[reason] += 1
        else:
            found.append({"question": item.prompt[-1]["content"], "choices": list(item.texts),
                          "gold": item.values.index(max(item.values))})
    if not found:
        raise UserError(f"{data}: no question with one right answer among several: left out "
                        f"{dict(left_out)}; name another data set")
    return found, left_out


def _answers(config: DataConfig) -> Iterator[Answers | str]:
    for path in config.files.values() or [config.path]:
        source = open_source(path, config)
        yield from (item for _, item in read_answers(source, find_form(source, config), config))


def _unusable(item: Answers, untaught: set[str] | None) -> str:
    if len(item.prompt) != 1 or len(item.texts) < 2 or item.values.count(max(item.values)) != 1:
        return NOT_ONE
    if not all(text.strip() for text in item.texts):
        return "empty answer"
    if untaught is not None and prompt_id_of(item.prompt) not in untaught:
        return "in no test pair of the prepared data, so models may have been taught it"
    return ""


def _test_prompts(config: DataConfig, data_dir: Path) -> set[str] | None:
    """Prompts of the test split, where the data set was prepared for training; else None."""
    folder = data_dir / config.name
    if not (folder / MANIFEST).is_file():
        return None
    return set(read_pairs(folder, "test", ["prompt_id"])["prompt_id"].to_pylist())
