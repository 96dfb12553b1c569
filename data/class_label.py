"""Values of a ClassLabel column of datasets: a number as jsonl holds it, which also has a name."""


class Label(int):
    """The number of a class, equal to that number. Which of two classes comes first is up to
    whoever made the column: only the name says what it means."""

    name: str

    @classmethod
    def of(cls, number: int, names: list[str]) -> int:
        """The label of a number; the number alone where it stands for no class, as -1 does."""
        if not 0 <= number < len(names):
            return number
        label = cls(number)
        label.name = names[number]
        return label


def meaning(value: object) -> object:
    """The name of a label, any other value as it is."""
    return value.name if isinstance(value, Label) else value
