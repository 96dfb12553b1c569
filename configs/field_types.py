"""The types of a config's keys: each says what a value may be, and pydantic holds it to that.

Nothing is guessed: text is no number, a fraction is no whole number and 1 is no switch. Only whole
numbers pass as numbers, and lists become tuples.
"""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from configs.strict_yaml import require_name

T = TypeVar("T")


def _as_number(value: Any) -> Any:
    """YAML 1.1 reads 1e-5 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[str, AfterValidator(require_name)]
"""What becomes part of a folder's name."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Several = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
Whole = Annotated[int, Field(gt=-2**63, lt=2**63)]
Natural = Annotated[Whole, Field(ge=0)]
Count = Annotated[Whole, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Size = Annotated[int, Field(gt=0, le=1 << 20)]
"""Of a model that is made here: above it is a slip of the pen."""
Number = Annotated[float, BeforeValidator(_as_number)]
"""Finite, as every number of a config."""
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
PartialShare = Annotated[Number, Field(ge=0, lt=1)]
"""Any but all."""
SomeShare = Annotated[Number, Field(gt=0, le=1)]
"""Any but nothing."""
Epochs = Annotated[Positive, Field(le=1_000)]
"""Above it a number of epochs is a slip of the pen: a dry run alone would not come to an end."""
