"""JudgeBench, LLMBar and PandaLM: a model's rewards -> the numbers that their scripts print.

What differs from the published scripts stands in src/measures/benchmarks/scores.py.
"""

from collections.abc import Sequence

import numpy as np

from src.common.errors import UserError
from src.measures.benchmarks.parts import SAMPLES, Part, mean_of_parts, mean_of_rows, part_of
from src.measures.benchmarks.rows import ScoredRow, Subset
from src.measures.bootstrap import resampled_means
from src.measures.metrics import correctness

JUDGE_BENCH_GROUPS = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
"""What a source begins with; the pairs of a group are pooled."""
LLMBAR_SUBSETS = ("Natural", "Adversarial_Neighbor", "Adversarial_GPTInst", "Adversarial_GPTOut",
                  "Adversarial_Manual")
PANDALM_CLASSES = 3
"""0: a tie; 1 or 2: the first or the second response is better."""


def judge_bench(subsets: Sequence[Subset]) -> list[Part]:
    """Sources, the four groups and the score of JudgeBench: pairs pooled, a tie never right."""
    groups = {subset.name: next((group for group in JUDGE_BENCH_GROUPS
                                 if subset.name.startswith(group)), "") for subset in subsets}
    if not any(groups.values()):
        raise UserError(f"subsets {', '.join(groups)}: none is a source of JudgeBench, which begin "
                        f"with {', '.join(JUDGE_BENCH_GROUPS)}: score them as scorer subsets")
    parts = [_pooled(subset.name, "subset", [subset], groups[subset.name], seed)
             for seed, subset in enumerate(subsets) if subset.name != groups[subset.name]]
    for group in JUDGE_BENCH_GROUPS:
        own = [subset for subset in subsets if groups[subset.name] == group]
        if own:
            parts.append(_pooled(group, "section", own, "", 0))
    return [*parts, _pooled("overall", "overall", subsets, "", 0)]


def llmbar(subsets: Sequence[Subset]) -> list[Part]:
    """LLMBar: accuracy of each subset, the mean of the adversarial ones, the mean of all.

    A tie counts one half: an evaluator that rates each output alone is asked in both orders, and
    a tie is right in one of them.
    """
    known = [subset for subset in subsets if subset.name in LLMBAR_SUBSETS]
    if not known:
        raise UserError(f"subsets {', '.join(subset.name for subset in subsets)}: none is LLMBar's "
                        f"({', '.join(LLMBAR_SUBSETS)}): give the folder Dataset/LLMBar of its "
                        "repository, or score them as scorer subsets")
    parts = {}
    for seed, subset in enumerate(known):
        credit = [float(np.mean(correctness(margins))) for margins in subset.margins]
        section = "Adversarial" if subset.name.startswith("Adversarial") else ""
        parts[subset.name] = mean_of_rows(subset.name, credit, subset.prompts, subset.margins,
                                          subset.missing, section, seed)
    hard = [part for name, part in parts.items() if name.startswith("Adversarial")]
    sections = [mean_of_parts("Adversarial", "section", hard)] if hard else []
    return [*parts.values(), *sections,
            mean_of_parts("overall", "overall", list(parts.values()))]


def pandalm(subsets: Sequence[Subset]) -> list[Part]:
    """PandaLM: three classes, of which a tie is one; accuracy, and macro means beside.

    Precision, recall and F1 of a class that nothing is in, or that is never said, are 0, and are in
    the mean over the three.
    """
    rows = [row for subset in subsets for row in (*subset.rows, *subset.tied)]
    missing = sum(subset.missing + subset.missing_tied for subset in subsets)
    if not rows:
        raise UserError("no row has a reward for each of its responses: there is nothing to score")
    cells = np.zeros((PANDALM_CLASSES ** 2, len(rows)))  # (truth x said, rows)
    for number, row in enumerate(rows):
        cells[_class_of(row.values, row) * PANDALM_CLASSES + _class_of(row.rewards, row),
              number] = 1
    means = resampled_means(cells, np.asarray([row.prompt for row in rows]), samples=SAMPLES)
    found = _macro(cells.mean(axis=1)[None])
    replicates = _macro(means)
    margins = [row.margins for row in rows if len(row.margins)]
    return [part_of(name, float(found[name][0]), replicates[name], margins, missing,
                    kind="overall" if name == "overall" else "section", n=len(rows))
            for name in ("macro precision", "macro recall", "macro F1", "overall")]


def _pooled(name: str, kind: str, subsets: Sequence[Subset], section: str, seed: int) -> Part:
    """One part of the pairs of some subsets, a tie wrong."""
    rows = [row for subset in subsets for row in subset.rows]
    return mean_of_rows(name, [float(only_margin(row) > 0) for row in rows],
                        [row.prompt for row in rows], [row.margins for row in rows],
                        sum(subset.missing for subset in subsets), section, seed, kind)


def only_margin(row: ScoredRow) -> float:
    """Better minus worse reward of a row of two responses; UserError for any other row."""
    if len(row.rewards) != 2:
        raise UserError(f"row {row.id or '?'}: {len(row.rewards)} responses: expected one chosen "
                        "and one rejected")
    return float(row.margins[0])


def _class_of(values: np.ndarray, row: ScoredRow) -> int:
    """0 where two values are equal, else the place of the higher one, from 1."""
    if len(values) != 2:
        raise UserError(f"row {row.id or '?'}: {len(values)} responses: expected two")
    return 0 if values[0] == values[1] else int(np.argmax(values)) + 1


def _macro(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and macro means of confusion matrices, given as shares (k, truth x said)."""
    matrix = cells.reshape(-1, PANDALM_CLASSES, PANDALM_CLASSES)
    right = np.diagonal(matrix, axis1=1, axis2=2)  # (k, classes)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    precision, recall = share(right, matrix.sum(axis=1)), share(right, matrix.sum(axis=2))
    f1 = share(2 * precision * recall, precision + recall)
    return {"overall": right.sum(axis=1), "macro precision": precision.mean(axis=1),
            "macro recall": recall.mean(axis=1), "macro F1": f1.mean(axis=1)}
