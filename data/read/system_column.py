"""A row's system message that stands in a column of its own."""

from configs.schema import DataConfig
from data.read.fields import Row, as_text, column
from data.read.messages import BadRow
from data.records import Message

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
"""Names under which such a column is known without being named in `keys`."""
READ = 'column {} read as the system message (keys: {{system: ""}} leaves it out)'


def system_column(row: Row, config: DataConfig) -> str:
    """The column that holds the row's system message; "" where the row has none.

    It is the one that `keys` names, which may be "" for none; or else one of SYSTEM_COLUMNS with a
    text in it that the config uses for nothing else.
    """
    if "system" in config.keys:
        named = config.keys["system"]
        value = column(row, named)
        return named if value is not None and as_text(value, "system").strip() else ""
    return next((name for name in SYSTEM_COLUMNS
                 if isinstance(value := row.get(name), str) and value.strip()
                 and not is_used(name, config)), "")


def with_system(messages: list[Message], row: Row, config: DataConfig) -> list[Message]:
    """A conversation, its row's system message first.

    Raises:
        BadRow: it has one already, and that of the column is another.
    """
    name = system_column(row, config)
    if not name:
        return messages
    system = {"role": "system", "content": column(row, name)}
    if not messages or messages[0]["role"] != "system":
        return [system, *messages]
    if messages[0]["content"].strip() != system["content"].strip():
        raise BadRow("system messages in the conversation and in a column")
    return messages


def is_used(name: str, config: DataConfig) -> bool:
    """Whether the config takes the column for something else."""
    return (name in (*config.keys.values(), *config.columns, *config.compare.scores,
                     *config.compare.votes)
            or any(f"{{{name}}}" in template for template in config.template.values()))
