"""What a column that names the better answer means, where the config does not say.

Codes of two answers that leave no doubt are recognised, over all rows of the source, and told: a
column of 1 and 2 read as 0 and 1 would turn half of the preferences round.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator

from configs.schema import DataConfig
from data.files.raw_arrow import meaning
from data.files.raw_json import RawRow
from data.read.fields import column, optional_text
from data.read.messages import BadRow
from src.common.errors import UserError

CODES = (("0", "1"), ("1", "2"), ("A", "B"), ("a", "b"))
"""What the first and the second answer are called. A column that holds 1 alone may be either of the
first two. True and false are none: they mean the reverse where the column asks the reverse."""
BOOLEANS = {"True", "False"}
MOST_VALUES = 20
VALUES_SHOWN = 6


def with_names(config: DataConfig, rows: Iterator[RawRow], where: str) -> DataConfig:
    """The config with `compare.names`, and a line about them where they were recognised.

    Args:
        rows: all rows of a source, read only where the names have to be found.
        where: what the source is called.
    Raises:
        UserError: the values are none of CODES, nor the names of the answers' columns.
    """
    compare = config.compare
    if compare.rule != "by_id" or compare.names:
        return config
    found = _values(rows, config)
    values = set(found) - set(compare.ties)
    if not values:  # each row is counted as one that lacks the column
        return dataclasses.replace(config, compare=dataclasses.replace(compare, names=(("",),)))
    for names in (config.columns, config.texts, *CODES):
        known = values <= set(names) and (names != CODES[1] or "2" in values) and (
            names != CODES[0] or "0" in values)
        if len(names) == 2 and known:
            told = ", ".join(f"{name} -> {answer}" for name, answer in
                             zip(names, config.columns or config.texts or ("the first answer",
                                                                          "the second"),
                                 strict=True))
            print(f"{where}: the better answer is read as {told}")
            return dataclasses.replace(config, compare=dataclasses.replace(
                compare, names=tuple((name,) for name in names)))
    shown = ", ".join(f"{value!r} ({count})" for value, count in
                      found.most_common(VALUES_SHOWN))
    example, unsaid = ('[["True"], ["False"]]', ", which do not say of which answer") if (
        values <= BOOLEANS) else ('[["1"], ["2"]]', "")
    raise UserError(
        f"{where}: the column that names the better answer holds {shown}{unsaid}: expected two of "
        f"{', '.join(' and '.join(code) for code in CODES)}, or the names of the answers' columns. "
        "Say what each answer is called, and what means that none is better: compare: {rule: "
        f"by_id, names: {example}, ties: [\"0\"]}}")


def _values(rows: Iterator[RawRow], config: DataConfig) -> Counter[str]:
    """How often each value stands in the columns that name the better answer; at most
    MOST_VALUES of them."""
    found: Counter[str] = Counter()
    columns = config.compare.votes or (config.keys.get("better", "better"),)
    for _, row in rows:
        for name in columns if isinstance(row, dict) else ():
            if column(row, name) is None:
                continue
            try:
                value = optional_text({"better": meaning(column(row, name))}, "better", {})
            except BadRow:
                continue
            if value in found or len(found) < MOST_VALUES:
                found[value] += 1
    return found
