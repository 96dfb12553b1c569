"""Weak labels: a teacher's probabilities, written once, joined one-to-one or not at all."""

import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from configs.schema import RuntimeConfig
from src.common.errors import UserError
from src.common.hashing import content_hash
from src.common.table_files import read_table, write_table
from src.methods.log_odds import sigmoid
from src.scoring import pairs, weak_labels
from src.scoring.weak_labels import checked, weak_labels_of

IDS = np.array([content_hash(i) for i in range(6)])
LABELS = np.array([0.0, 0.2, 0.5, 0.7, 0.9, 1.0])
TABLE = pd.DataFrame({"pair_id": IDS, "weak_label": LABELS})


def test_join_follows_the_pairs_order_and_not_the_table_s():
    order = [3, 0, 5, 1, 4, 2]
    assert checked(TABLE, IDS[order], "w").tolist() == LABELS[order].tolist()
    assert checked(TABLE.sample(frac=1, random_state=0), IDS, "w").tolist() == LABELS.tolist()


BAD = {
    "missing": (TABLE[:-1], IDS, "5 for 6 pairs, each of which needs one; 1 missing"),
    "extra": (TABLE, IDS[:-1], "6 for 5 pairs"),
    "of another split": (TABLE.assign(pair_id=[content_hash(i) for i in range(9, 15)]), IDS,
                         f"6 missing, such as {IDS[0]}"),
    "one exchanged": (TABLE.assign(pair_id=[*IDS[:5], content_hash(9)]), IDS, "1 missing"),
    "labelled twice": (TABLE.assign(pair_id=[*IDS[:5], IDS[0]]), IDS,
                       f"1 repeated, such as {IDS[0]}"),
    "asked twice": (TABLE, np.array([*IDS[:5], IDS[0]]), "6 for 6 pairs"),
    "empty": (TABLE[:0], IDS, "0 for 6 pairs"),
    "above 1": (TABLE.assign(weak_label=LABELS + 0.1), IDS, r"must lie in \[0, 1\]"),
    "below 0": (TABLE.assign(weak_label=LABELS - 0.1), IDS, r"must lie in \[0, 1\]"),
    "not a number": (TABLE.assign(weak_label=[np.nan, *LABELS[1:]]), IDS, "must lie in"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_do_not_fit_one_to_one_are_refused(case):
    table, ids, message = BAD[case]
    with pytest.raises(UserError, match=f"^somewhere.parquet: .*{message}"):
        checked(table, ids, "somewhere.parquet")


def test_joining_as_many_pairs_as_preference_700k_has_takes_seconds():
    ids = np.array([f"{i * 7919:016x}" for i in range(100_000)])
    table = pd.DataFrame({"pair_id": ids, "weak_label": np.linspace(0, 1, len(ids))})
    started = time.process_time()
    assert np.array_equal(checked(table, ids[::-1], "w"), table.weak_label.to_numpy()[::-1])
    assert time.process_time() - started < 5


def test_sigmoid_is_exact_and_does_not_overflow():
    margin = np.array([-1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4])
    with np.errstate(all="raise", under="ignore"):
        p = sigmoid(margin)
    assert p[0] == 0 and p[3] == 0.5 and p[-1] == 1
    np.testing.assert_allclose(p[1:-1], 1 / (1 + np.exp(-margin[1:-1])), rtol=1e-14)
    np.testing.assert_allclose(p + p[::-1], 1, rtol=1e-15)


class Split:
    """What weak labels need of a tokenised split."""

    pair_ids = IDS
    data_hash = "data"


@pytest.fixture
def scored(monkeypatch):
    """Scores without a model; the list grows with every time that they are asked for."""
    asked = []

    def scores_of(folder, teacher, split, split_name, runtime, trunk):
        asked.append(split_name)
        return pd.DataFrame({"pair_id": IDS, "reward_chosen": np.arange(6, dtype=np.float32),
                             "reward_rejected": np.full(6, 2, np.float32)})

    monkeypatch.setattr(weak_labels, "scores_of", scores_of)
    monkeypatch.setattr(pairs, "run_fingerprint", lambda folder: "weights")
    return asked


def labels(folder, split="train_2", identity="teacher", data=Split):
    teacher = SimpleNamespace(identity=identity)
    return weak_labels_of(folder, teacher, data(), split, RuntimeConfig())


def test_a_weak_label_is_the_sigmoid_of_the_teacher_s_margin(tmp_path, scored):
    expected = 1 / (1 + np.exp(-(np.arange(6) - 2.0)))
    np.testing.assert_allclose(labels(tmp_path), expected, rtol=1e-12)


def test_labels_are_written_once_per_teacher_and_split(tmp_path, scored):
    first = labels(tmp_path)
    assert np.array_equal(labels(tmp_path), first) and scored == ["train_2"]
    labels(tmp_path, "val")
    assert scored == ["train_2", "val"]
    assert sorted(path.name for path in (tmp_path / "weak_labels").glob("*.parquet")) == [
        "train_2.parquet", "val.parquet"]


@pytest.mark.parametrize("changes", [{"identity": "other"},
                                     {"data": type("Other", (Split,), {"data_hash": "other"})}])
def test_labels_of_another_teacher_or_other_data_are_made_again(tmp_path, scored, changes):
    labels(tmp_path)
    labels(tmp_path, **changes)
    assert len(scored) == 2


def test_labels_of_weights_that_were_replaced_are_made_again(tmp_path, scored, monkeypatch):
    labels(tmp_path)
    monkeypatch.setattr(pairs, "run_fingerprint", lambda folder: "others")
    labels(tmp_path)
    labels(tmp_path)
    assert len(scored) == 2


def test_labels_of_another_split_under_this_name_are_made_again(tmp_path, scored):
    labels(tmp_path, "val")
    (tmp_path / "weak_labels/val.parquet").rename(tmp_path / "weak_labels/train_2.parquet")
    labels(tmp_path)
    assert scored == ["val", "train_2"]


def test_a_file_cut_short_is_made_again(tmp_path, scored):
    first = labels(tmp_path)
    path = tmp_path / "weak_labels/train_2.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert np.array_equal(labels(tmp_path), first) and len(scored) == 2


def test_a_file_with_right_hashes_and_wrong_rows_is_refused(tmp_path, scored):
    labels(tmp_path)
    path = tmp_path / "weak_labels/train_2.parquet"
    inputs = {"teacher": "teacher", "data": "data", "split": "train_2", "weights": "weights"}
    write_table(path, read_table(path, inputs)[1:], inputs)
    with pytest.raises(UserError, match="weak labels: 5 for 6 pairs"):
        labels(tmp_path)


@pytest.mark.parametrize("split", ["test", "train_1"])
def test_no_teacher_labels_its_own_pairs_or_the_test_pairs(tmp_path, scored, split):
    with pytest.raises(UserError, match=f"train_2 and val, not for {split}"):
        labels(tmp_path, split)
    assert not scored and not list(tmp_path.iterdir())
