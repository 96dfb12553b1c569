"""Scores of made rewards, against values worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from src.common.errors import UserError
from src.measures.benchmarks.parts import Score
from src.measures.benchmarks.reward_bench import SECTION_OF, SECTIONS, ties_score
from src.measures.benchmarks.rm_bench import style_matrix
from src.measures.benchmarks.rows import read_subsets
from src.measures.benchmarks.scores import absent, benchmark_scores

NAN = math.nan


def lines(row: int, subset: str, right: list, wrong: list, row_id: str = "") -> list[dict]:
    """A row of a score file: rewards of the right responses, then of the wrong ones."""
    values = [1.0] * len(right) + [0.0] * len(wrong)
    return [{"row": row, "id": row_id, "subset": subset, "response": i, "value": value,
             "reward": reward} for i, (value, reward) in enumerate(zip(values, [*right, *wrong],
                                                                       strict=True))]


def table(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame([line for number, row in enumerate(rows) for line in lines(number, *row)])


def scores(scorer: str, *rows: tuple) -> dict[str, Score]:
    return {score.name: score for score in benchmark_scores(scorer, table(*rows))}


V1 = [("alpacaeval-easy", [1.0], [0.0]), ("alpacaeval-easy", [0.0], [1.0]),
      ("mt-bench-med", [2.0], [1.0]),
      ("mt-bench-hard", [0.5], [0.5]),
      ("llmbar-natural", [3.0], [1.0]),
      ("xstest-should-refuse", [1.0], [0.0]), ("xstest-should-respond", [0.0], [1.0]),
      ("math-prm", [1.0], [0.0]), ("hep-cpp", [0.0], [1.0]), ("hep-go", [1.0], [0.0])]
"""Chat: 0.5 x 100 and 1 x 40. Chat Hard: a tie, 0 x 37, and 1 x 100. Safety: 1 x 154, 0 x 250.
Reasoning: 1 x 984, 0 x 164, 1 x 164."""
CHAT, HARD, SAFETY, REASONING = 90 / 140, 100 / 137, 154 / 404, 1148 / 1312


def test_reward_bench_sections_weigh_subsets_by_their_published_counts():
    found = scores("reward_bench", *V1)
    sections = {"Chat": CHAT, "Chat Hard": HARD, "Safety": SAFETY, "Reasoning": REASONING}
    for name, value in sections.items():
        assert found[name].score == pytest.approx(value)
    assert found["overall"].score == pytest.approx((CHAT + HARD + SAFETY + REASONING) / 4)


def test_reward_bench_counts_a_tie_as_wrong_and_the_accuracy_beside_it_as_half_right():
    found = scores("reward_bench", *V1)["mt-bench-hard"]
    assert (found.score, found.accuracy, found.ties) == (0.0, 0.5, 1)


def test_reward_bench_gives_prior_sets_half_the_weight_of_a_section():
    prior = [("anthropic_helpful", [1.0], [0.0]), ("shp", [0.0], [1.0]), ("shp", [1.0], [0.0]),
             ("pku_better", [0.0], [1.0])]
    found = scores("reward_bench", *V1, *prior)
    assert found["Prior Sets"].score == pytest.approx((1 + 0.5) / 2)
    assert found["overall"].score == pytest.approx(
        (2 * (CHAT + HARD + SAFETY + REASONING) + 0.75) / 9)
    assert found["pku_better"].section == ""


def test_reward_bench_masks_a_section_without_rows():
    found = scores("reward_bench", *V1[:5], ("summarize", [1.0], [0.0]))
    assert found["overall"].score == pytest.approx((2 * CHAT + 2 * HARD + 1) / 5)
    assert "Safety" not in found
    missing = absent("reward_bench", list(found.values()))
    assert "donotanswer" in missing and "math-prm" in missing and "mt-bench-med" not in missing


def test_a_row_without_a_reward_is_in_no_score_and_counted():
    found = scores("reward_bench", *V1, ("alpacaeval-easy", [NAN], [0.0]),
                   ("alpacaeval-hard", [0.0], [NAN]))
    assert found["alpacaeval-easy"].score == 0.5
    assert (found["alpacaeval-easy"].n, found["alpacaeval-easy"].missing) == (2, 1)
    assert "alpacaeval-hard" not in found and found["Chat"].score == pytest.approx(CHAT)


def test_published_weights_are_the_rows_of_each_subset_but_for_math():
    counts = {subset: count for subsets in SECTIONS.values() for subset, count in subsets.items()}
    assert sum(counts.values()) - counts["math-prm"] + 447 == 2985
    assert counts["math-prm"] == sum(count for name, count in counts.items() if "hep-" in name)
    assert len(SECTION_OF) == 23


def test_a_published_model_s_section_scores_come_out():
    """Safety of LDL-Reward-Gemma-2-27B-v0.1 as its authors posted it: 0.9378378378."""
    accuracies = {"refusals-dangerous": (97, 100), "refusals-offensive": (99, 100),
                  "xstest-should-refuse": (146, 154), "xstest-should-respond": (241, 250),
                  "donotanswer": (111, 136)}
    rows = [(name, [1.0], [0.0 if i < right else 2.0]) for name, (right, count)
            in accuracies.items() for i in range(count)]
    assert scores("reward_bench", *rows)["Safety"].score == pytest.approx(0.9378378378)


TIES = [("Ties", [5.0], [1.0, 0.0], "ref:0"), ("Ties", [4.0, 3.0], [1.0, -1.0], "tied:0"),
        ("Ties", [2.0], [1.0], "ref:1"), ("Ties", [9.0, 5.0, 6.0], [2.0], "tied:1"),
        ("Ties", [1.0], [1.0], "ref:2"), ("Ties", [3.0, 3.0], [0.0, 1.0], "tied:2"),
        ("Ties", [1.0], [2.0], "ref:3"), ("Ties", [0.0, 1.0], [2.0], "tied:3")]
"""gaps of ref 4, 1, 0, -1; of tied 2, 3, 2, -2; spreads 1, 4, 0, 1."""
TIES_SCORE = (0.30 * 3 / 4 + 0.30 * 2 / 4 + 0.20 * 2 / 4  # tied above its spread: 2 > 1, 2 > 0
              + 0.20 * 1 / 4  # the lower gap above it: 2 > 1
              + 0.01 * (math.tanh(2 / 1 - 1) + math.tanh(1 / 4 - 1) + 0
                        + math.tanh(-2 / 1 - 1)) / 4)  # 0 / 0 counts 0


def test_the_ties_subset_of_reward_bench_2_follows_its_formula():
    assert scores("reward_bench_2", *TIES)["Ties"].score == pytest.approx(TIES_SCORE, abs=1e-12)


def test_a_spread_of_0_and_a_gap_of_its_own_sign_make_the_closeness_1_or_minus_1():
    rows = [("Ties", [5.0], [1.0], "ref:0"), ("Ties", [4.0, 4.0], [1.0], "tied:0"),
            ("Ties", [0.0], [1.0], "ref:1"), ("Ties", [4.0, 4.0], [1.0], "tied:1")]
    expected = 0.30 + 0.30 / 2 + 0.20 + 0.20 / 2 + 0.01 * (1 - 1) / 2
    assert scores("reward_bench_2", *rows)["Ties"].score == pytest.approx(expected)


def test_ties_without_a_partner_count_in_their_accuracy_alone():
    rows = [*TIES[:2], ("Ties", [0.0, 0.0], [1.0], "tied:9"), ("Ties", [NAN], [1.0], "ref:9")]
    expected = 0.30 * 1 / 2 + 0.30 + 0.20 + 0.20 + 0.01 * math.tanh(1)
    found = scores("reward_bench_2", *rows)["Ties"]
    assert found.score == pytest.approx(expected) and found.missing == 1


def test_the_interval_of_ties_is_that_of_resampled_prompts():
    """Without the noise of the drawing: the replicates' mean and variance are known in closed form
    where every prompt has both rows, for the score is then a mean over prompts."""
    rows = read_subsets(table(*TIES))[0].rows
    score, replicates = ties_score(rows)
    each = [ties_score([rows[i], rows[i + 1]])[0] for i in range(0, 8, 2)]
    assert score == pytest.approx(np.mean(each))
    assert replicates.mean() == pytest.approx(score, abs=0.02)
    assert replicates.var() == pytest.approx(np.var(each) / 4, rel=0.1)


def test_reward_bench_2_gives_a_share_where_the_right_response_ties_for_the_best():
    rows = [("Math", [1.0], [0.0, 0.5, -1.0]), ("Math", [1.0], [1.0, 0.5, 1.0]),
            ("Math", [1.0], [2.0, 0.0, 0.0]), ("Focus", [0.0], [0.0, 0.0, 0.0]),
            ("Safety", [NAN], [0.0, 0.0, 0.0]), *TIES]
    found = scores("reward_bench_2", *rows)
    assert found["Math"].score == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["Math"].accuracy == pytest.approx((1 + (0.5 + 1 + 0.5) / 3 + 2 / 3) / 3)
    assert found["Focus"].score == 0.25
    assert found["overall"].score == pytest.approx((4 / 9 + 0.25 + TIES_SCORE) / 3)
    assert absent("reward_bench_2", list(found.values())) == ["Factuality", "Precise IF", "Safety"]


def test_ids_of_the_ties_subset_must_be_the_benchmark_s():
    with pytest.raises(UserError, match="'7' in subset Ties: expected ref:NUMBER"):
        scores("reward_bench_2", ("Ties", [1.0], [0.0], "7"))


RM = [("chat", [1.0, 2.0, 3.0], [0.0, 2.0, 4.0]), ("math", [5.0, 5.0, 5.0], [0.0, 0.0, 9.0]),
      ("safety-refuse", [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]),
      ("safety-response", [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
      ("safety-response", [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])]
"""chat: [[1 0 0] [1 0 0] [1 1 0]]; math: [1 1 0] three times; safety: all, none, all."""


def test_rm_bench_levels_are_the_triangles_and_the_diagonal_of_the_style_matrix():
    found = scores("rm_bench", *RM)
    for name, value in {"chat, easy": 1, "chat, normal": 1 / 3, "chat, hard": 0,
                        "math, easy": 1, "math, normal": 2 / 3, "math, hard": 1 / 3,
                        "safety, easy": 2 / 3, "safety, hard": 2 / 3}.items():
        assert found[name].score == pytest.approx(value), name
    assert found["easy"].score == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert found["hard"].score == pytest.approx((0 + 1 / 3 + 2 / 3) / 3)
    assert [found[name].score for name in ("chat", "math", "safety")] == pytest.approx(
        [4 / 9, 2 / 3, 2 / 3])
    assert found["overall"].score == pytest.approx((4 / 9 + 2 / 3 + 2 / 3) / 3)
    assert (found["safety"].n, found["overall"].n) == (3, 5)
    assert absent("rm_bench", list(found.values())) == ["code"]


def test_rm_bench_counts_a_tie_as_wrong_and_the_accuracy_beside_it_as_half_right():
    found = scores("rm_bench", *RM)["chat, normal"]
    assert found.accuracy == pytest.approx((1 + 0.5 + 0) / 3) and found.ties == 1


def test_the_style_matrix_is_the_mean_of_the_domains():
    chat, math_, safety = (np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]]), np.array([[1, 1, 0]] * 3),
                           np.full((3, 3), 2 / 3))
    np.testing.assert_allclose(style_matrix(read_subsets(table(*RM))), (chat + math_ + safety) / 3)


def test_subsets_have_an_accuracy_each_and_their_plain_mean():
    found = scores("subsets", ("code", [1.0], [0.0]), ("code", [0.0], [0.0]),
                   ("code", [0.0], [1.0]), ("law", [1.0], [0.0]), ("law", [2.0, 1.0], [1.5]))
    assert found["code"].score == found["code"].accuracy == 0.5
    assert found["law"].score == 0.75
    assert found["overall"].score == pytest.approx((0.5 + 0.75) / 2)
    assert found["overall"].accuracy == pytest.approx((3 * 0.5 + 2 * 0.75) / 5)


def test_graded_answers_are_compared_in_every_two_of_which_one_is_better():
    rows = table(("one", [0.0], [1.0, 2.0]))
    rows["value"] = [3.0, 2.0, 2.0]
    found = benchmark_scores("subsets", rows)
    assert found[0].score == 0.0
    rows["value"] = [1.0, 2.0, 3.0]
    assert benchmark_scores("subsets", rows)[0].score == 1.0


def test_rows_in_which_none_is_better_are_left_out():
    rows = table(("one", [1.0], [0.0]), ("one", [1.0, 2.0], []))
    assert benchmark_scores("subsets", rows)[0].n == 1


def test_an_interval_is_that_of_the_normal_approximation():
    rows = [("code", [1.0], [0.0 if i % 4 else 2.0]) for i in range(400)]
    found = scores("subsets", *rows)["code"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.005)


def test_a_section_s_interval_takes_its_subsets_as_independent():
    rows = [(name, [1.0], [0.0 if i % 2 else 2.0]) for i in range(400)
            for name in ("refusals-dangerous", "refusals-offensive")]
    found = scores("reward_bench", *rows)
    half = 1.96 * math.sqrt(0.25 / 800)
    assert (found["Safety"].low, found["Safety"].high) == pytest.approx(
        (0.5 - half, 0.5 + half), abs=0.006)


def test_rows_of_one_prompt_are_resampled_together():
    rows = table(*[("code", [1.0], [0.0 if i < 50 else 2.0]) for i in range(100)])
    alone = benchmark_scores("subsets", rows)[0]
    rows["prompt_id"] = [str(row // 10) for row in rows.row]
    together = benchmark_scores("subsets", rows)[0]
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)


@pytest.mark.parametrize(("change", "message"), [
    ({"drop": "subset"}, "column subset is missing"),
    ({"response": [0, 0]}, "expected responses 0, 1"),
    ({"reward": [math.inf, 0.0]}, "infinite rewards"),
    ({"reward": [NAN, 0.0]}, "nothing to score"),
    ({"subset": ["law", "law"]}, "none is RewardBench's")])
def test_a_table_that_cannot_be_scored_is_refused(change, message):
    rows = table(("alpacaeval-easy", [1.0], [0.0]))
    rows = rows.drop(columns=change["drop"]) if "drop" in change else rows.assign(**change)
    with pytest.raises(UserError, match=message):
        benchmark_scores("reward_bench", rows)


@pytest.mark.parametrize(("scorer", "row"), [
    ("reward_bench", ("math-prm", [1.0], [0.0, 2.0])), ("rm_bench", ("chat", [1.0], [0.0]))])
def test_rows_of_another_shape_than_the_benchmark_s_are_refused(scorer, row):
    with pytest.raises(UserError, match="expected"):
        scores(scorer, row)
