import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from src.common.errors import UserError
from src.measures.baselines import AnswerTexts, length_margins, tfidf_margins
from src.measures.metrics import correctness

WORDS = np.array([f"word{i}" for i in range(30)])


def make_answers(n, seed, signal=1.0):
    """Random words; the answer with the larger sum of word values is chosen, more or less."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, 30, size=(n, 2, 6))
    reward = signal * picks.sum(axis=2) + rng.normal(size=(n, 2))
    better = reward.argmax(axis=1)
    text = [[" ".join(WORDS[row]) for row in pair] for pair in picks]
    return AnswerTexts([f"{seed}-{i}" for i in range(n)],
                   [pair[side] for pair, side in zip(text, better, strict=True)],
                   [pair[1 - side] for pair, side in zip(text, better, strict=True)])


def swapped(answers):
    return AnswerTexts(answers.pair_ids, answers.rejected, answers.chosen)


def test_the_shorter_answer_wins_and_equal_lengths_tie():
    margins = length_margins(np.array([3, 9, 5]), np.array([7, 4, 5]))
    np.testing.assert_array_equal(correctness(margins), [1, 0, 0.5])


def test_tfidf_learns_words_that_decide():
    margins = tfidf_margins(make_answers(400, 0), make_answers(400, 1))
    assert correctness(margins).mean() > 0.85


def test_tfidf_learns_nothing_from_noise():
    margins = tfidf_margins(make_answers(400, 0, signal=0.0), make_answers(1000, 1, signal=0.0))
    assert abs(correctness(margins).mean() - 0.5) < 0.06


def test_tfidf_equals_one_row_a_pair_with_random_sides():
    train, evaluated = make_answers(300, 0), make_answers(50, 1)
    left = np.random.default_rng(0).random(300) < 0.5
    vectorizer = TfidfVectorizer().fit([*train.chosen, *train.rejected])
    features = (vectorizer.transform(train.chosen) - vectorizer.transform(train.rejected))
    model = LogisticRegression(fit_intercept=False, tol=1e-8, max_iter=1000)
    model.fit(features.multiply(np.where(left, 1, -1)[:, None]).tocsr(), left)
    expected = model.decision_function(vectorizer.transform(evaluated.chosen)
                                       - vectorizer.transform(evaluated.rejected))
    np.testing.assert_allclose(tfidf_margins(train, evaluated), expected, atol=0.01)


def test_swapping_the_evaluated_sides_negates_the_margins():
    train, evaluated = make_answers(200, 0), make_answers(50, 1)
    np.testing.assert_allclose(tfidf_margins(train, evaluated),
                               -tfidf_margins(train, swapped(evaluated)), atol=1e-12)


def test_swapping_the_training_sides_negates_the_margins():
    train, evaluated = make_answers(200, 0), make_answers(50, 1)
    np.testing.assert_allclose(tfidf_margins(train, evaluated),
                               -tfidf_margins(swapped(train), evaluated), atol=1e-3)


def test_the_cap_takes_the_same_pairs_in_any_order():
    train, evaluated = make_answers(100, 0), make_answers(50, 1)
    turned = AnswerTexts(train.pair_ids[::-1], train.chosen[::-1], train.rejected[::-1])
    capped = tfidf_margins(train, evaluated, cap=40)
    np.testing.assert_allclose(capped, tfidf_margins(turned, evaluated, cap=40), atol=1e-6)
    assert not np.allclose(capped, tfidf_margins(train, evaluated))


def test_answers_of_one_sign_are_words_and_unknown_words_tie():
    train = AnswerTexts(["a", "b"], ["!", "4"], ["?", "5"])
    margins = tfidf_margins(train, AnswerTexts(["c", "d"], ["!", "new"], ["?", "other"]))
    assert margins[0] > 0 and margins[1] == 0


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(UserError, match="as many of each"):
        AnswerTexts(["a"], ["x", "y"], ["z"])
