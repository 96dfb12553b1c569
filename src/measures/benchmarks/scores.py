"""The arithmetic of published benchmarks: rewards in, frozen dataclasses out. No torch.

What it takes from the published scripts, and where it differs:

**All.** A row with a missing reward (a response longer than the model takes) enters no score and is
counted. The scripts cut such texts: RewardBench on the left at 2,048 tokens, RewardBench 2 there as
the tokenizer does, mostly on the right where the response is. Beside each official score stands our
accuracy, the share of comparisons won where a tie counts one half. Intervals resample prompts, each
subset's apart; the scripts have none.

**RewardBench** (allenai/reward-bench, scripts/run_rm.py and analysis/get_benchmark_results.py). The
chosen response must be strictly above the rejected one. A section is the mean of its subsets with
the weights in reward_bench.py; the score is the mean of four sections with weight 2 and, where
there are any, of prior sets with weight 1, which are the plain mean of those that are there. A
section without rows is left out of the mean; their command line makes it 0. XSTest's weights are
the 154 and 250 rows that the data have: older versions of the script, and copies, swap the two.

**RewardBench 2** (scripts/run_v2.py). Best of four, credit 1/k where the right response is among
the k best; for the subset Ties see reward_bench.py. The score is the plain mean of the subsets,
which the leaderboard shows and the script does not print. A tied prompt with a single right
response has spread 0 here; the script stops there.

**RM-Bench** (THU-KEG/RM-Bench, scripts/utils.py). See rm_bench.py. A domain without rows is
left out of the mean; theirs divides by 0.

**JudgeBench** (ScalerLab/JudgeBench, run_judge.py and utils/metrics.py). Pairs are pooled in four
groups, by what their source begins with, and once over all. Each pair is judged in both orders, and
a reward model's tie says B both times, which is right once and wrong once: never right.

**LLMBar** (princeton-nlp/LLMBar, LLMEvaluator/evaluate.py). The mean over both orders, in which a
tie of an evaluator that rates each output alone is right once: one half. The four adversarial
subsets have a plain mean of their own.

**PandaLM** (WeOpenML/PandaLM, data/compute_metrics.py). The label is what most of three people say,
the first one's where all differ, and a tie is a label like the others: it is right where both
rewards are equal. Accuracy is over all rows, so that the rows that people find tied cost a reward
model nearly all of their weight; our accuracy beside it is over the others.

**subsets**. Accuracy of each subset, ties one half, and their plain mean.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from src.common.errors import UserError
from src.measures.benchmarks.judges import (
    JUDGE_BENCH_GROUPS,
    LLMBAR_SUBSETS,
    judge_bench,
    llmbar,
    pandalm,
)
from src.measures.benchmarks.parts import Part, Score, mean_of_parts, mean_of_rows
from src.measures.benchmarks.reward_bench import SECTION_OF, SUBSETS_2, reward_bench, reward_bench_2
from src.measures.benchmarks.rm_bench import DOMAINS, rm_bench
from src.measures.benchmarks.rows import Subset, read_subsets
from src.measures.metrics import correctness

KINDS = ("subset", "section", "style", "overall")


def check_scorer(scorer: str, where: str) -> None:
    """UserError for the name of a scorer that has no code here."""
    if scorer not in _SCORERS:
        raise UserError(f"{where}: scorer {scorer!r} is none of accuracy, {', '.join(_SCORERS)}")


def benchmark_scores(scorer: str, table: pd.DataFrame) -> list[Score]:
    """Scores of subsets, then of sections, of styles, and overall.

    Args:
        scorer: of a data config.
        table: one line a response, see rows.py.
    Raises:
        UserError: not such a table; no row has all its rewards; rows that are not the benchmark's.
    """
    subsets = [subset for subset in read_subsets(table)
               if subset.rows or scorer == "pandalm" and subset.tied]
    if not subsets:
        raise UserError("no row has a reward for each of its responses: there is nothing to score")
    return sorted((part.score for part in _SCORERS[scorer](subsets)),
                  key=lambda score: KINDS.index(score.kind))


def absent(scorer: str, scores: Sequence[Score]) -> list[str]:
    """Subsets of the published benchmark without a score: lacking them, no score compares."""
    expected = {"reward_bench": tuple(SECTION_OF), "reward_bench_2": SUBSETS_2,
                "rm_bench": DOMAINS, "judge_bench": JUDGE_BENCH_GROUPS,
                "llmbar": LLMBAR_SUBSETS}.get(scorer, ())
    found = {score.name.lower() for score in scores}
    return [name for name in expected if name.lower() not in found]


def by_subset(subsets: Sequence[Subset]) -> list[Part]:
    """Accuracy of each subset, and their plain mean."""
    parts = []
    for seed, subset in enumerate(subsets):
        credit = [np.mean(correctness(margins)) for margins in subset.margins]
        parts.append(mean_of_rows(subset.name, credit, subset.prompts, subset.margins,
                                  subset.missing, "", seed))
    return [*parts, mean_of_parts("overall", "overall", parts)]


_SCORERS: dict[str, Callable[[Sequence[Subset]], list[Part]]] = {
    "subsets": by_subset, "reward_bench": reward_bench, "reward_bench_2": reward_bench_2,
    "rm_bench": rm_bench, "judge_bench": judge_bench, "llmbar": llmbar, "pandalm": pandalm}
