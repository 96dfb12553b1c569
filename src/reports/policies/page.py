"""The page of an experiment's policies: the answer, the tables, figures and a few answers."""

from collections.abc import Mapping, Sequence

import pandas as pd

from src.common.console import table_lines
from src.measures.policies.paired import TIE
from src.measures.policies.tables import NO, REFERENCE, YES, Judged
from src.reports.document import (
    Bullets,
    Element,
    Example,
    Heading,
    Picture,
    Table,
    Text,
    sources,
)
from src.reports.figures.style import Drawn
from src.reports.format import count, estimate, number
from src.reports.rewards import shorten

FILES = [("policy.csv", "one row a policy, against the fine-tuned one"),
         ("comparison.csv", "the student's policy against its teacher's"),
         ("best_of.csv", "best of n by each labelling model"),
         ("meta.json", "what was judged, where the numbers come from")]
POLICY_COLUMNS = ["policy", "labels", "reward", "sd", "median", "difference", "better", "tie",
                  "worse", "win rate", "soft", "length-controlled", "proxy", "KL",
                  "tokens (before)", "finished"]
COMPARED_COLUMNS = ["policy", "student better", "difference", "better", "tie", "worse", "win rate",
                    "length-controlled", "tokens (before)", "p"]
SAID = {YES: "beats", NO: "falls behind"}


def statements(comparison: pd.DataFrame) -> list[str]:
    """The answer to the question, for each way to make a policy."""
    return [f"{row.policy}: by the {row.judge}, the policy aligned to the weak-to-strong student "
            f"{SAID.get(row.student_better, 'is not told apart from')} the one aligned to its "
            f"teacher: difference {estimate(row, 'difference', 2, signed=True)} of the judge's "
            f"standard deviations, win rate {estimate(row, 'win_rate', 2)}, n = {row.n} prompts, "
            f"seeds {row.seeds}." for row in comparison.itertuples()]


def policy_rows(table: pd.DataFrame) -> list[list[str]]:
    return [[row.policy, row.labels, estimate(row, "reward", 2), number(row.reward_sd, 2),
             number(row.reward_median, 2), estimate(row, "difference", 2, signed=True),
             *_counts(row), estimate(row, "win_rate", 2), estimate(row, "soft_win_rate", 2),
             estimate(row, "length_controlled_rate", 2), number(row.proxy_difference, 2,
                                                                signed=True),
             number(row.kl, 2), _lengths(row), number(row.finished, 2)]
            for row in table.itertuples()]


def compared_rows(table: pd.DataFrame) -> list[list[str]]:
    return [[row.policy, row.student_better, estimate(row, "difference", 2, signed=True),
             *_counts(row), estimate(row, "win_rate", 2),
             estimate(row, "length_controlled_rate", 2), _lengths(row), number(row.wilcoxon_p)]
            for row in table.itertuples()]


def _counts(row: object) -> list[str]:
    return [count(row.better), count(row.ties), count(row.worse)]


def _lengths(row: object) -> str:
    return f"{number(row.tokens, 1)} ({number(row.tokens_before, 1)})"


def console(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What `./dpo.sh` prints."""
    lines = table_lines(POLICY_COLUMNS, policy_rows(tables["policy"]), words=2)
    if len(tables["comparison"]):
        lines += ["", *table_lines(COMPARED_COLUMNS, compared_rows(tables["comparison"]), words=2),
                  "", *statements(tables["comparison"])]
    return lines


def blocks(judged: Judged, tables: Mapping[str, pd.DataFrame], drawn: Sequence[Drawn],
           texts: pd.DataFrame, facts: Mapping[str, str]) -> list[Element]:
    """The whole page below its title."""
    compared = tables["comparison"]
    answer = [Text(line, "lead") for line in statements(compared)]
    versus = [Heading("Student against teacher"),
              Table("The policy aligned to the student against the one aligned to its teacher "
                    "(before). p: Wilcoxon's signed ranks, over prompts.", COMPARED_COLUMNS,
                    compared_rows(compared), words=2)] if len(compared) else []
    said = [Heading("What they say"), *_examples(texts)] if len(texts) else []
    return [
        *answer, *map(Picture, drawn), *versus,
        Heading("Every policy"),
        Table(f"Against {REFERENCE}, the fine-tuned policy.", POLICY_COLUMNS,
              policy_rows(tables["policy"]), words=2),
        Heading("How to read it"), Bullets(reading(judged)), *said, *sources(facts, FILES)]


def reading(judged: Judged) -> list[str]:
    """What the numbers are, and what they are not."""
    tau = ", ".join(number(each, 2) for each in judged.tau)
    return [
        f"The judge is the {judged.judge} of each seed, which labelled for no policy. It learned "
        "from the human labels of train_2, as the policies under gt did: their row says what those "
        "labels can do, and is no fair contest with the others.",
        f"Rewards are in the judge's standard deviations, from the mean of {REFERENCE}; so are "
        f"differences. A tie is less than {TIE} apart.",
        f"Win rate: a tie counts half. Soft: mean of sigmoid(difference / tau), tau {tau} fitted "
        "on the human pairs of test, by seed. Length-controlled: what a logistic regression of the "
        "soft wins on the difference in tokens says of equal lengths; its interval is over "
        "prompts alone.",
        "Best of n picks among answers of the fine-tuned policy by the labelling model's reward; "
        "raft fine-tunes on such answers.",
        "Proxy: the difference by the model that labelled, in its own standard deviations; far "
        "above the judge's difference, its errors were learned. KL: nats between the policy and "
        f"{REFERENCE}, the mean of log pi / pi_{REFERENCE} of its answers; of best_of_n the bound "
        "log n - (n - 1) / n.",
        "Finished: the share of answers that ended before the limit on their length."]


def _examples(texts: pd.DataFrame) -> list[Example]:
    names = [name for name in texts if name != "prompt"]
    return [Example(f"Prompt {place}", [("prompt", shorten(row["prompt"])), *(
        (name, shorten(row[name]) or "(nothing)") for name in names)])
        for place, (_, row) in enumerate(texts.iterrows(), 1)]
