"""From committed scores to the question whether shared errors predict gain."""

import pandas as pd
import pytest

from src.common.errors import UserError
from src.evaluation.across.shared_errors import MODELS, PREDICTORS, write_shared_errors
from tests.scored_experiment import write_scores


def test_tables_and_a_figure_are_written_over_all_experiments(tmp_path):
    for name in ("first", "second", "a third"):
        write_scores(tmp_path / name)
    said = write_shared_errors(["first", "second", "a third"], tmp_path, tmp_path / "shared_errors")
    folder = tmp_path / "shared_errors"
    cells, slopes = (pd.read_csv(folder / f"{name}.csv") for name in ("cells", "slopes"))
    assert len(cells) == 9 and set(cells.method) == {"soft"}
    assert len(slopes) == len(PREDICTORS) * len(MODELS)
    assert set(slopes.experiments) == {3} and set(slopes.cells) == {9}
    assert (folder / "figures" / "shared_errors.png").stat().st_size > 10_000
    assert "within experiments, same gap" in said


def test_one_experiment_is_nothing_to_resample(tmp_path):
    write_scores(tmp_path / "first")
    with pytest.raises(UserError, match="expected two experiments at least"):
        write_shared_errors(["first", "first"], tmp_path, tmp_path / "shared_errors")


def test_an_experiment_without_students_of_the_baseline_is_named(tmp_path):
    write_scores(tmp_path / "first")
    write_scores(tmp_path / "teachers", methods=())
    with pytest.raises(UserError, match="teachers: no student of method soft beside its teacher"):
        write_shared_errors(["first", "teachers"], tmp_path, tmp_path / "shared_errors")
