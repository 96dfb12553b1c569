"""How numbers and baselines are written, the same in every table, figure and sentence.

A missing number is `-`; a PGR that may not be formed is `undefined`; neither is ever 0.
"""

import math

MISSING = "-"
UNDEFINED = "undefined"
BASELINE_NAMES = {"length_only": "length only", "tfidf": "TF-IDF"}


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """`0.823`, `+0.045`, or `-` where it is missing."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "+" if signed else "") if float(text) == 0 else text


def count(value: float) -> str:
    """`4,096`, or `-` where it is missing."""
    return MISSING if value is None or math.isnan(value) else f"{value:,.0f}"


def interval_text(low: float, high: float, digits: int = 3) -> str:
    """`[0.801, 0.845]`, or empty where it is missing."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def estimate(row: object, name: str, digits: int = 3, signed: bool = False) -> str:
    """`0.823 [0.801, 0.845]` from the fields `name`, `name_low` and `name_high` of a row."""
    value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    return f"{number(value, digits, signed)} {interval_text(low, high, digits)}".strip()


def pgr_text(row: object) -> str:
    """A PGR with its interval, or `undefined` where the row's status says so."""
    return estimate(row, "pgr", digits=2) if row.status == "ok" else UNDEFINED


def model_name(row: object) -> str:
    """`ceiling demo-L8`, or `student demo-L8 of demo-L5`, from `role`, `name` and `teacher`."""
    return f"{row.role} {row.name}" + (f" of {row.teacher}" if row.teacher else "")
