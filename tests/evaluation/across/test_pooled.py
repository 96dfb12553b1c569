"""Pooled intervals of experiments that were evaluated before."""

import json

import pandas as pd
import pytest

from configs.schema import EvalConfig
from src.common.errors import UserError
from src.evaluation.across.pooled import write_pooled
from src.measures.tables import pgr_table, pooled_table
from tests.scored_experiment import write_scores


def test_it_is_the_table_that_an_evaluation_writes(tmp_path):
    runs, pairs = write_scores(tmp_path / "demo")
    config = EvalConfig()
    pgr_table(runs, pairs, config).to_csv(tmp_path / "demo" / "pgr.csv", index=False)
    said = write_pooled(["demo"], tmp_path)
    pooled_table(runs[1:], pairs, config).to_csv(tmp_path / "expected.csv", index=False)
    assert (tmp_path / "demo" / "pooled.csv").read_text() == (
        tmp_path / "expected.csv").read_text()
    assert len(pd.read_csv(tmp_path / "expected.csv")) == 8 and "8 (8)" in said


def test_nothing_is_written_where_one_experiment_has_nothing_to_pool(tmp_path):
    runs, pairs = write_scores(tmp_path / "demo")
    pgr_table(runs, pairs, EvalConfig()).to_csv(tmp_path / "demo" / "pgr.csv", index=False)
    write_scores(tmp_path / "other")
    path = tmp_path / "other" / "scores.csv"
    table = pd.read_csv(path)
    table[[name for name in table if not name.endswith(("/1", "/2"))]].to_csv(path, index=False)
    with pytest.raises(UserError, match="other: expected two cells and two seeds"):
        write_pooled(["demo", "other"], tmp_path)
    assert not (tmp_path / "demo" / "pooled.csv").exists()


def test_level_and_floor_are_those_that_the_experiment_was_evaluated_with(tmp_path):
    runs, pairs = write_scores(tmp_path / "demo")
    path = tmp_path / "demo" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "level": 0.5, "pgr_floor": 0.2}))
    config = EvalConfig(level=0.5, pgr_floor=0.2)
    pgr_table(runs, pairs, config).to_csv(tmp_path / "demo" / "pgr.csv", index=False)
    write_pooled(["demo"], tmp_path)
    pooled_table(runs[1:], pairs, config).to_csv(tmp_path / "expected.csv", index=False)
    assert (tmp_path / "demo" / "pooled.csv").read_text() == (
        tmp_path / "expected.csv").read_text()
