"""A data set named by a config or a person -> numbered answers, and a reason for what is none.

Finds the data (hub id, file, save_to_disk folder or fixture), detects its form, and turns rows into
Answers one at a time. Fixtures, a dozen made rows for each data set in its own columns, lie in
data/fixtures: never copied from the real data, and odd on purpose.
"""

import dataclasses
import errno
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data.files.raw_arrow import dataset_rows, load_saved_folder, read_saved_folder
from data.files.raw_files import file_sha256, is_known, read_file
from data.files.raw_json import RawRow
from data.read.answers import Answers, grouped
from data.read.fields import COLUMNS
from data.read.message_trees import tree_rows
from data.read.messages import BadRow
from data.read.preferences import with_names
from data.read.row_form import detect_form
from data.read.rows import row_to_answers
from data.read.unpaired import grouped_by_prompt
from src.common.errors import UserError
from src.common.files import REPO_ROOT

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
ROWS_TO_DETECT = 100
COLUMNS_NAMED = 12


@dataclass
class Source:
    """One data set on disk or on the hub."""

    name: str
    """What a pair's `source` begins with: the file's name, or the hub id."""
    path: Path | None
    """Where it is on disk; None for a data set on the hub."""
    hub_config: str
    hub_split: str
    hub_dir: str = ""
    header: tuple[str, ...] = ()
    encoding: str = "utf-8"
    limit: int | None = None
    rows_read: int = 0
    """How many rows the latest raw_rows has given so far, sound or not."""
    notes: Counter[str] = field(default_factory=Counter)
    """Notes on those that were used -> rows, see data/read/row_notes.py."""

    def raw_rows(self) -> Iterator[RawRow]:
        """The rows with their numbers, from the start, `limit` of them."""
        self.rows_read, self.notes = 0, Counter()
        for row in itertools.islice(self._all_rows(), self.limit):
            self.rows_read += 1
            yield row

    def _all_rows(self) -> Iterator[RawRow]:
        if self.path is None:
            return dataset_rows(self._hub_data())
        if self.path.is_dir():
            return read_saved_folder(self.path, self.hub_split)
        return read_file(self.path, self.header, self.encoding)

    def sha256(self) -> str:
        """Hash of the files' bytes, whatever they are called and wherever they lie."""
        if self.path is None:
            return file_sha256([Path(file["filename"]) for file in self._hub_data().cache_files])
        if self.path.is_dir():
            return file_sha256([Path(file["filename"]) for file in
                                load_saved_folder(self.path, self.hub_split).cache_files])
        return file_sha256([self.path])

    def _hub_data(self):
        import datasets

        try:
            return datasets.load_dataset(self.name, self.hub_config or None,
                                         data_dir=self.hub_dir or None, split=self.hub_split)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"cannot read {self.name!r}: it is neither a file or folder here nor could it be "
                f"fetched from the hub (config {self.hub_config or 'default'!r}, folder "
                f"{self.hub_dir!r}, split {self.hub_split!r}): {error}. Check the name and the "
                "connection, or give the path of a local copy") from error


def open_source(path: str, config: DataConfig) -> Source:
    """The data set that a config's `path`, or one of its `files`, names.

    `${RAW_DIR}` is the environment's RAW_DIR, or data/raw. A relative path is looked up from the
    working directory, then from the repository's root. What exists nowhere and looks like
    `owner/name` is a hub id. Where the config asks for its fixture, that is the data set.

    Raises:
        UserError: there is no such file and it is no hub id.
    """
    name, place = _find(str(fixture_path(config)) if config.fixture else path, config)
    return Source(name, place, config.hub_config, config.hub_split, config.hub_dir, config.header,
                  config.encoding, config.limit)


def _find(path: str, config: DataConfig) -> tuple[str, Path | None]:
    """Name and place of a data set; the place is None for one on the hub."""
    expanded = path.replace("${RAW_DIR}", os.environ.get("RAW_DIR") or str(REPO_ROOT / "data/raw"))
    for candidate in (Path(expanded), REPO_ROOT / expanded):
        if candidate.exists():
            return candidate.name, candidate.resolve()
    if HUB_ID.fullmatch(expanded) and not is_known(Path(expanded)):
        return expanded, None
    hint = f" ({config.source})" if config.source else ""
    raw_dir = ", or set RAW_DIR to the folder that holds it" if "${RAW_DIR}" in path else ""
    raise UserError(f"no such file: {expanded}: put the data set{hint} there{raw_dir}")


def find_form(source: Source, config: DataConfig) -> str:
    """The config's form, or the one that most of the first rows have.

    Raises:
        UserError: an unknown key of `keys`, or columns that belong to no form.
    """
    unknown = sorted(set(config.keys) - set(COLUMNS))
    if unknown:
        raise UserError(f"data/{config.name}: keys {', '.join(unknown)}: expected some of "
                        f"{', '.join(COLUMNS)}")
    if config.form != "auto":
        return config.form
    first = [row for _, row in itertools.islice(source.raw_rows(), ROWS_TO_DETECT)]
    rows = [row for row in first if isinstance(row, dict)]
    votes = Counter(form for row in rows if (form := detect_form(row, config.keys)))
    if votes:
        return votes.most_common(1)[0][0]
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    if len(columns) > COLUMNS_NAMED:
        columns[COLUMNS_NAMED:] = [f"... ({len(columns)} in all)"]
    if first and not rows:
        columns = [f"none (row 1: {first[0]})"]
    raise UserError(
        f"{source.name}: no known form: found columns {', '.join(columns) or 'none'}; expected "
        "chosen + rejected (message lists, or Human / Assistant transcripts), prompt + chosen + "
        "rejected, prompt + response_a + response_b + score_a + score_b, or prompt + completion + "
        "label. Where they have other "
        "names, say which in a data config, keys: {prompt: question, chosen: good, ...} "
        "(data/preprocess.py: --prompt_key, --chosen_key ...)")


def read_answers(source: Source, form: str,
                 config: DataConfig) -> Iterator[tuple[int, Answers | str]]:
    """Every row of a source: its number, and its Answers or the reason why it has none.

    Of form one_answer: every run of rows with the same prompt, with the number of its first row. Of
    form kto: all rows with the same prompt, wherever they stand; or, pointwise, each row alone.
    """
    config = with_names(config, source.raw_rows(), source.name)
    if form == "tree":
        config = replace(config, compare=replace(config.compare, rule="by_rank"))
    answers = _each_row(source, form, config)
    if form == "one_answer":
        return grouped(answers)
    return grouped_by_prompt(answers) if form == "kto" and not config.pointwise else answers


def _each_row(source: Source, form: str,
              config: DataConfig) -> Iterator[tuple[int, Answers | str]]:
    rows = source.raw_rows()
    for number, row in tree_rows(rows) if form == "tree" else rows:
        if isinstance(row, str):
            yield number, row
            continue
        try:
            answers = row_to_answers(row, form, config, f"{source.name}:{number}")
        except BadRow as reason:
            yield number, str(reason)
            continue
        source.notes.update(answers.notes)
        yield number, answers


FIXTURES = REPO_ROOT / "data" / "fixtures"


def fixture_path(config: DataConfig) -> Path:
    """The file data/fixtures/<name>.*, or that of the longest beginning of the name: shp_one and
    shp_pointwise read shp's rows. UserError where there is none."""
    words = config.name.split("_")
    for count in range(len(words), 0, -1):
        for path in sorted(FIXTURES.glob("_".join(words[:count]) + ".*")):
            return path
    raise UserError(f"data/{config.name}: has no fixture: expected {FIXTURES / config.name}.jsonl; "
                    "give --fixture with a config of configs/data")


def as_fixture(config: DataConfig) -> DataConfig:
    """The config, made to read its fixture instead; a mixture reads those of its sources.

    Several files become the one, which is split as a single file is; test alone stays test.

    Raises:
        UserError: it has no fixture.
    """
    if config.sources:
        return replace(config, fixture=True)
    path = str(fixture_path(config))
    if set(config.files) == {"test"}:
        return replace(config, fixture=True, files={"test": path})
    return replace(config, fixture=True, path=path, files={})


YAML = (".yaml", ".yml")


def named_data(data: str) -> DataConfig | None:
    """The config that `data` names; None where it is a file of rows.

    NAME is configs/data/NAME.yaml, or a YAML file. NAME=FILE is that config, read from FILE alone,
    which is then its test split.

    Raises:
        UserError: neither a config nor a file.
    """
    name, _, file = data.partition("=")
    if (CONFIG_ROOT / "data" / f"{name}.yaml").is_file() or Path(name).suffix in YAML:
        config = load_config(DataConfig, name)
        expected = {} if config.sources else config.expected  # a mixture's names its sources
        return dataclasses.replace(config, path="", sources=(), files={"test": file},
                                   expected=expected) if file else config
    if Path(data).exists():
        return None
    known = sorted(path.stem for path in (CONFIG_ROOT / "data").glob("*.yaml"))
    raise UserError(f"{data}: no such file, and no config of configs/data: expected one of "
                    f"{', '.join(known)}, or the path of a file")
