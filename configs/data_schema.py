"""The config of a data source: where its rows are, what they look like, which pairs they make.

    configs/data/<name>.yaml -> DataConfig

A known data set is this file's values and nothing else: no data set has code of its own, chess
puzzles apart.
"""

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from configs.field_types import (
    Count,
    Name,
    Natural,
    NotNegative,
    Number,
    PartialShare,
    Several,
    SomeShare,
    Whole,
)
from configs.strict_yaml import config, require

ENTERS = {"scores": ("by_score",), "names": ("by_id",), "votes": ("by_id",),
          "ties": ("by_id", "by_grade"), "grades": ("by_grade",), "threshold": ("by_grade",),
          "tie_band": ("by_grade",)}
"""Key of `compare` -> the rules that look at it; with another it would be without effect."""


@config
class CompareConfig:
    """Which of a prompt's answers are compared, and what makes one of them better."""

    rule: Literal["by_score", "by_rank", "by_id", "by_grade", "first_is_better"] = "by_score"
    """by_score: the higher score. by_rank: the lower rank. by_id: the answer that the column
    `better` names. by_grade: of two answers, the one that the number in the column `better` is
    nearer to, see grades. first_is_better: the answers stand best first."""
    scores: Several[str] = ()
    """by_score: columns (of an answer, or of the row) whose mean is the score; empty for the key
    `score` alone."""
    names: Several[Several[str]] = ()
    """by_id: what the column `better` may call the first answer, the second, ...; a row with
    another value is a bad one. Empty: of two answers, codes that leave no doubt are recognised and
    told (0 and 1, 1 and 2, A and B, the names of their columns)."""
    grades: Several[Number] = ()
    """by_grade: what `better` holds where the first answer is better by far, and where the second
    is: [1, 2] or [-3, 3]. A number that does not lie between them is a bad row."""
    threshold: Number | None = None
    """by_grade: the number that prefers neither; null for the middle of `grades`."""
    tie_band: NotNegative = 0.0
    """by_grade: as far from the threshold as this, or nearer, is no preference."""
    ties: Several[str] = ()
    """by_id and by_grade: what `better` may hold where none is: no preference, which is no bad
    row."""
    votes: Several[str] = ()
    """by_id: columns that stand for `better` together, one a judge; most votes decide."""
    split_votes: Literal["none", "first"] = "none"
    """by_id: where no answer, and no tie, has the most votes: no preference, or what the first
    judge says."""
    take: Literal["all", "best_vs_random", "best_vs_rest"] = "all"
    """all: every two answers. best_vs_random: the best against one of the others, picked by a hash
    of the prompt. best_vs_rest: the best against each of the others. Two that are equally good are
    no pair."""
    min_ratio: Annotated[Number, Field(ge=1)] = 1.0
    """The better score must be more than this many times the worse one; exactly as many times is
    too close."""
    pairs_per_prompt: Count | None = None
    """Keep this many pairs of a prompt, picked by hash; null for all."""

    def __post_init__(self):
        for name, rules in ENTERS.items():
            require(self.rule in rules or getattr(self, name) == getattr(CompareConfig, name),
                    f"{name} only enters rule {' or '.join(rules)}, not {self.rule}")
        if self.rule == "by_grade":
            self._check_grades()
        named = [name for names in self.names for name in names]
        require(len(set(named)) == len(named) and not set(named) & set(self.ties),
                f"names {named} and ties {list(self.ties)}: each value means one thing")

    def _check_grades(self) -> None:
        first, second = self.grades if len(self.grades) == 2 else (0.0, 0.0)
        require(first != second, f"grades {list(self.grades)}: rule by_grade needs two "
                "numbers, where the first answer is better by far and where the second is: [1, 2]")
        low, high = sorted((first, second))
        require(self.threshold is None or low < self.threshold < high,
                f"threshold {self.threshold} must lie between the grades {first} and {second}")
        require(self.tie_band < high - low, f"tie_band {self.tie_band} must be less than "
                f"{high - low}, from grade to grade")

    @property
    def middle(self) -> float:
        """by_grade: the grade that prefers neither."""
        return math.fsum(self.grades) / 2 if self.threshold is None else self.threshold


@config
class DataConfig:
    """A source of preference pairs: `configs/data/<name>.yaml`."""

    name: Name
    source: str = ""
    """Where the files are published, for a person to read."""
    path: str = ""
    """Hub id, file or folder that is split here. `${RAW_DIR}` is the environment's, or data/raw."""
    files: dict[str, str] = field(default_factory=dict)
    """Split name -> path, for sources that come split; instead of `path`. May leave out val, which
    is then taken from train_2. A file named `train` is halved into train_1 and train_2."""
    hub_config: str = ""
    hub_dir: str = ""
    """Folder of the hub data set that holds the files to read; empty for its default ones."""
    hub_split: str = "train"
    header: Several[str] = ()
    """Column names of csv files that have none in their first line."""
    encoding: str = "utf-8"
    """Of the text in csv, json and jsonl files, and of text files in a zip."""
    form: Literal["auto", "messages", "prompt_answers", "scored_answers", "transcript", "answers",
                  "one_answer", "lists", "kto", "tree", "chess"] = "auto"
    """What a row holds. messages: chosen/rejected message lists. prompt_answers: prompt + chosen +
    rejected text or messages. scored_answers: prompt, two responses, two scores. transcript:
    chosen/rejected strings of `\\n\\nHuman: ... \\n\\nAssistant: ...`. answers: a prompt and
    several answers, which `compare` compares. one_answer: a prompt and one answer; rows of one
    prompt follow each other and are compared. lists: a prompt, a list of right and a list of wrong
    answers. kto: a prompt, a completion (or both as messages) and a label that is true or false;
    right and wrong completions of a prompt are compared, wherever in the file its rows stand; with
    `pointwise` each row is a record. tree: a message tree in a row, or its messages in rows that
    follow each other, with ranked replies: those to one message are compared, the lower rank is
    better (`compare` may say which of them). chess: a position, the moves of the solution, a
    rating."""
    keys: dict[str, str] = field(default_factory=dict)
    """Our column name -> the file's: prompt, chosen, rejected, response_a, response_b, score_a,
    score_b, score_chosen, score_rejected; answers (a list), answer (the text in an item of it),
    score, rank, better; completion, label; system (a system message; a column system,
    system_prompt or system_message that is used for nothing else need not be named, "" leaves it
    out); subset, difficulty, id; fen, moves. `a.b` is column b inside a."""
    columns: Several[str] = ()
    """answers: the columns that hold one answer each, instead of the key `answers`."""
    texts: Several[str] = ()
    """answers: the answers themselves, where every row has the same (No, Yes)."""
    template: dict[str, str] = field(default_factory=dict)
    """prompt, answer: text with the row's columns in braces, instead of one column; {answer} is the
    answer's own text. Nothing that a row holds is read as a template."""
    compare: CompareConfig = CompareConfig()
    pointwise: bool = False
    """Keep one side of each pair, picked by a fair coin that the pair's id fixes; the other is
    absent and has reward 0. A record is then a text and its label."""
    wrong_move: Literal["random", "best_capture"] = "random"
    """chess: the rejected move, another legal one: any, or the capture of the most valuable piece
    (any where there is none)."""
    sources: Several[str] = ()
    """Names of data configs, or paths of such files: a mixture, instead of path or files. Each is
    read by its own rules, without its test and val files; splits and lengths are the mixture's. A
    prompt of several sources stays with the first."""
    decontaminate: Several[str] = ()
    """Names of data configs: pairs whose prompts share a run of `ngram` words with prompts of these
    (of their test files, where they come split) are dropped. Its own name: what shares a run with
    its own test split leaves training and val, as it always does in a mixture."""
    ngram: Count = 13
    """Words in lower case, without punctuation. A prompt of fewer is only compared as a whole."""
    expected: dict[str, Whole] = field(default_factory=dict)
    """Published counts: `rows` or `pairs` of a source; of a mixture, pairs of each source, or of
    all sources whose names begin so. Where the real data differ, both numbers are printed and enter
    the manifest."""
    limit: Count | None = None
    """Read only so many rows of each file; null for all."""
    scorer: str = "accuracy"
    """How eval.py adds up what a model makes of this data: one `accuracy`; one for each of
    `subsets` and their mean; or a published benchmark's own arithmetic, by a name of
    src/measures/benchmarks/scores.py."""
    part_files: str = ""
    """A benchmark whose parts come as files of a folder: their names, relative to it, with one `*`
    (or `**`, over folders) where the name of the subset stands, such as `*_filtered.json`."""
    fixture: bool = False
    """Read a dozen made rows in the source's schema instead, see data/read/sources.py."""
    fraction: SomeShare = 1.0
    """Share of the prompts to keep, picked by hash."""
    seed: Whole = 0
    """Enters the hash that assigns prompts to splits."""
    test_pairs: Count = 10_000
    """Size of test; where the source has too few, a quarter of it or what train_pairs leaves."""
    val_pairs: Natural = 1_000
    """Size of val; a twentieth of the source where that is fewer; 0 for none."""
    train_pairs: Count | None = None
    """Size of train_1 and of train_2; null for all that is left, in halves."""
    balance: Literal["none", "length"] = "none"
    """length: as many pairs of a split have the longer answer chosen (in characters, the same under
    every tokenizer) as have it rejected. The surplus goes, picked by hash, once all other sizes
    are kept to, and from prompts that have it themselves; pairs of equal length stay."""
    max_length: Count = 2048
    """Tokens of prompt plus one answer, under every tokenizer of the experiment."""
    truncation: Literal["drop", "left", "error"] = "drop"
    """What becomes of a pair longer than max_length: dropped whole, its prompt cut on the left, or
    an error."""
    max_bad_frac: PartialShare = 0.01
    """Above this share of unusable rows the command stops."""

    def __post_init__(self):
        given = [name for name in ("path", "files", "sources") if getattr(self, name)]
        require(len(given) == 1, f"give one of path, files and sources, not "
                f"{' and '.join(given) or 'none'}")
        unknown = [] if self.sources else sorted(set(self.expected) - {"rows", "pairs"})
        require(not unknown, f"expected {', '.join(unknown)}: without sources give rows or pairs, "
                "which are what is counted")
        require(not (self.columns and self.texts), "give columns or texts, not both")
        require(not set(self.template) - {"prompt", "answer"}, f"template "
                f"{', '.join(self.template)}: expected prompt and answer")
        require(not (self.columns or self.texts) or self.compare.rule in ("by_id", "by_grade",
                                                                          "first_is_better"),
                "answers in columns or texts have no scores of their own: give compare "
                "rule by_id, by_grade or first_is_better")
        require(self.balance == "none" or not self.pointwise, "balance length compares two "
                "answers, and a pointwise record has one: leave one of these keys out")
