"""What can be had without a language model: the length of an answer, and its words counted.

A reward model below either has learnt nothing that they do not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from src.common.errors import UserError

LENGTH_ONLY = "length_only"
TFIDF = "tfidf"


@dataclass(frozen=True)
class AnswerTexts:
    """The answers of n pairs, in the order of ground truth."""

    pair_ids: Sequence[str]
    chosen: Sequence[str]
    rejected: Sequence[str]

    def __post_init__(self):
        if not len(self.pair_ids) == len(self.chosen) == len(self.rejected) > 0:
            raise UserError(f"{len(self.pair_ids)} pair ids, {len(self.chosen)} chosen and "
                            f"{len(self.rejected)} rejected answers: expected as many of each, "
                            "and at least one; prepare the data again")


def length_margins(length_chosen: np.ndarray, length_rejected: np.ndarray) -> np.ndarray:
    """Margins (n,) of the rule that the shorter answer wins, in characters.

    The direction is fixed in advance: turned round where that scores better, it would be trained on
    the test pairs. Only the sign means anything; these are no log-odds.
    """
    return np.asarray(length_rejected, dtype=np.float64) - np.asarray(length_chosen)


def tfidf_margins(train: AnswerTexts, evaluated: AnswerTexts, cap: int = 50_000) -> np.ndarray:
    """Margins (n,) on `evaluated` of a logistic regression on the difference of TF-IDF vectors.

    Bradley-Terry with a reward that is linear in the words: no intercept, so that swapping the
    sides swaps the prediction.

    Args:
        train: train_1's pairs, the teachers' own human labels.
        cap: pairs trained on; of more, those with the smallest pair ids, which are hashes.
    Returns:
        Margins in log-odds; 0 where two answers hold the same words.
    """
    rows = np.argsort(np.asarray(train.pair_ids))[:cap]
    chosen = [train.chosen[i] for i in rows]
    rejected = [train.rejected[i] for i in rows]
    # An answer may be one letter, one digit or one sign: each is a word here.
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]+")
    vectorizer.fit(chosen + rejected)

    def difference(left: Sequence[str], right: Sequence[str]) -> csr_matrix:
        return vectorizer.transform(left) - vectorizer.transform(right)

    # Each pair both ways round: the label then says nothing about the side. C=0.5, as each counts
    # twice, is scikit-learn's default of 1.
    features = difference(chosen, rejected)
    model = LogisticRegression(C=0.5, fit_intercept=False, max_iter=1000)
    model.fit(vstack([features, -features]), np.repeat([1, 0], len(rows)))
    return difference(evaluated.chosen, evaluated.rejected) @ model.coef_[0]
