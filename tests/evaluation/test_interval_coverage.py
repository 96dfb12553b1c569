"""The simulation behind the intervals: its worlds are what they claim, and its table adds up."""

import numpy as np
import pandas as pd
import pytest

from src.evaluation.simulation.coverage import NESTED, POOLED, coverage_rows, write_coverage
from src.evaluation.simulation.experiments import Scenario, World, scenarios


@pytest.mark.parametrize("options", [{}, {"heavy": True}, {"spread": 4.0}, {"teachers": 1}])
def test_a_world_has_the_accuracies_that_it_was_made_for(options):
    world = World(Scenario("any", 5, seed_sd=0.02, **options))
    rng = np.random.default_rng(0)
    draws = [[(one.cell.weak.mean(), one.cell.student.mean(), one.cell.ceiling.mean())
              for one in world.draw(rng)] for _ in range(150)]
    weak, student, ceiling = np.mean(draws, axis=0).T
    truth = world.truth()[:-1]
    np.testing.assert_allclose(student - weak, truth[:, 0], atol=0.012)
    np.testing.assert_allclose(ceiling - weak, truth[:, 1], atol=0.012)


def test_seeds_move_accuracy_by_what_is_wanted():
    world = World(Scenario("any", 5, teachers=1, students=1, seed_sd=0.05))
    rng = np.random.default_rng(0)
    spread = [one.cell.weak.mean(axis=1).std(ddof=1)**2 for _ in range(200)
              for one in world.draw(rng)]
    assert np.sqrt(np.mean(spread)) == pytest.approx(0.05, abs=0.006)


def test_coverage_counts_the_truth_inside_and_leaves_undefined_ones_out():
    scenario = Scenario("any", 3, teachers=1, students=2)
    truth = World(scenario).truth()
    ends = np.stack([truth - 0.1, truth + 0.1], axis=-1)[None].repeat(4, axis=0)
    ends[0, 0] += 1.0           # misses all three of the first cell
    ends[1, :2, 2] = np.nan     # PGR of both cells undefined once
    rows = pd.DataFrame(coverage_rows(scenario, POOLED, ends)).set_index(["figure", "of"])
    assert rows.coverage["gain", "cell"] == 7 / 8 and rows.worst_cell["gain", "cell"] == 3 / 4
    assert rows.coverage["pgr", "cell"] == 5 / 6 and rows.defined["pgr", "cell"] == 6 / 8
    assert rows.coverage["gap", "all cells"] == 1 and rows.width["gap", "cell"] == pytest.approx(
        0.2)


def test_a_second_call_simulates_only_what_is_missing(tmp_path, monkeypatch):
    path = write_coverage(tmp_path / "intervals", repetitions=3, nested=2)
    table = pd.read_csv(path)
    assert set(zip(table.scenario, table.seeds, strict=True)) == {
        (one.name, one.seeds) for one in scenarios()}
    assert table.groupby("interval").repetitions.unique().map(list).to_dict() == {
        POOLED: [3], NESTED: [2]}
    assert (tmp_path / "intervals" / "figures" / "coverage.png").is_file()
    kept = table[table.scenario != "small gaps"]
    kept.to_csv(path, index=False)
    asked = []
    monkeypatch.setattr("src.evaluation.simulation.coverage.simulate",
                        lambda scenario, *args: asked.append(scenario.name) or iter(()))
    monkeypatch.setattr("src.evaluation.simulation.coverage.draw_coverage", lambda *args: None)
    write_coverage(tmp_path / "intervals", repetitions=3, nested=2)
    assert asked == ["small gaps", "small gaps"]
