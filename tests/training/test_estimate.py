"""What an experiment takes: every forward and backward counted once, against closed forms."""

import json
import re
import shutil

import pytest

from configs.run import STAGES
from src.batches.trees import trees_of
from src.common.errors import UserError
from src.common.files import write_json
from src.runs.folders import mark_done
from src.runs.plan import Plan
from src.training import speed
from src.training.estimate import LAUNCH_SECONDS, RUN_SECONDS, Estimate
from src.training.speed import Speed, runs_at_a_time, speed_of
from tests.tiny_experiment import TinyExperiment, make_experiment
from tests.tiny_experiment_parts import nested_plan, prepare_data, sweep_of

NO_SHORTCUT = {"last_layer_shortcut": False}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyExperiment:
    tiny = make_experiment(tmp_path_factory.mktemp("estimate"), rows=120, train_pairs=32)
    prepare_data(tiny)
    return tiny


def tokens(plan: Plan, split: str) -> int:
    return trees_of(plan.split(plan.runs[0], split), True).total_tokens


def layer(plan: Plan) -> int:
    """Parameters that each layer adds."""
    base = plan.teachers[0].base
    return base.parameters((0, 1, 2)) - base.parameters((0, 1))


def test_a_trunk_is_counted_once_for_its_deepest_cut_and_split(tiny):
    """Teachers of 2 and 3 layers read 1 and 2 below their top; students of 3 and 4, 2 and 3."""
    plan = nested_plan(tiny, [2, 3], [3, 4], NO_SHORTCUT, trainable_layers=1)
    estimate = Estimate(plan, tiny.runs_dir, 1)
    base = plan.teachers[0].base
    top, first = base.parameters((0,)), base.parameters((0,))
    beside = {stage: [piece.beside for piece in estimate.pieces[stage]] for stage in STAGES}
    train_1, train_2 = tokens(plan, "train_1"), tokens(plan, "train_2")
    assert beside["teachers"] == [2.0 * train_1 * first, 2.0 * train_1 * layer(plan)]
    assert beside["ceilings"] == [2.0 * train_2 * (first + layer(plan)),
                                  2.0 * train_2 * layer(plan)]
    # Both teachers label train_2 once: one forward of what trains, and the first teacher's own
    # trunk, of 1 layer, which no ceiling left behind; the second's is that of a ceiling.
    assert sorted(beside["students"], reverse=True)[:2] == [
        2.0 * train_2 * (first + top), 2.0 * train_2 * top]
    assert sum(beside["students"]) == 2.0 * train_2 * (first + 2 * top)
    assert [piece.own for piece in estimate.pieces["teachers"]] == [6.0 * train_1 * top] * 2


def test_without_a_cache_the_frozen_layers_run_in_every_step(tiny):
    with_cache = nested_plan(tiny, [3], [4], NO_SHORTCUT, trainable_layers=1)
    cached = Estimate(with_cache, tiny.runs_dir, 1)
    for room in (0, 1e-9):
        plan = nested_plan(tiny, [3], [4], {**NO_SHORTCUT, "trunk_cache_gb": room},
                           trainable_layers=1)
        piece, = Estimate(plan, tiny.runs_dir, 1).pieces["teachers"]
        below = plan.teachers[0].base.parameters((0, 1))
        assert piece.beside == 0
        assert piece.own == cached.pieces["teachers"][0].own + 2.0 * tokens(plan, "train_1") * below


def test_a_last_layer_that_is_cut_short_costs_less_and_at_least_its_keys_and_values(tiny):
    full, short = (Estimate(nested_plan(tiny, [1], [4], runtime), tiny.runs_dir, 1).pieces
                   for runtime in (NO_SHORTCUT, {}))
    for stage, layers in (("teachers", 1), ("ceilings", 4)):
        ratio = short[stage][0].own / full[stage][0].own
        assert 1 - 1 / layers < ratio < 1


def test_runs_side_by_side_do_not_begin_where_the_other_s_trunk_will_end(tiny):
    plan = nested_plan(tiny, [2], [3, 4], NO_SHORTCUT, trainable_layers=1)
    one, two = (sum(piece.beside for piece in Estimate(plan, tiny.runs_dir, workers).pieces[
        "ceilings"]) for workers in (1, 2))
    first = plan.teachers[0].base.parameters((0,))
    assert two - one == 2.0 * tokens(plan, "train_2") * (first + layer(plan))


def test_early_stopping_labels_val_and_reads_it_at_every_evaluation(tiny):
    plain, stopping = (nested_plan(tiny, [2], [4], NO_SHORTCUT, early_stopping_evals=evals)
                       for evals in (0, 2))
    before, = Estimate(plain, tiny.runs_dir, 1).pieces["students"]
    after, = Estimate(stopping, tiny.runs_dir, 1).pieces["students"]
    teacher, student = (rungs[0].parameters for rungs in (plain.teachers, plain.students))
    val = 2.0 * tokens(plain, "val")
    assert after.own - before.own == pytest.approx(val * student / 0.1)
    assert after.beside - before.beside == val * teacher


def test_a_method_that_stops_on_human_labels_reads_val_and_has_nobody_label_it(tiny):
    stopping = tiny.copy("stopping", methods=[
        {"name": "soft"}, {"name": "oracle_stop", "early_stopping_evals": 2, "stop_on": "truth"}])
    pieces = Estimate(sweep_of(stopping), stopping.runs_dir, 1).pieces["students"]
    assert {piece.run.method.name for piece in pieces if piece.beside} == {"soft"}
    soft, oracle = pieces[:2]
    assert oracle.own > soft.own


def test_a_stage_takes_as_long_as_its_slowest_worker(tiny, monkeypatch):
    plan = nested_plan(tiny, [1], [2, 3, 4], NO_SHORTCUT)
    estimate = Estimate(plan, tiny.runs_dir, 2)
    monkeypatch.setattr(estimate, "speed", Speed(1e6, "said"))
    seconds = [piece.own / 1e6 for piece in estimate.pieces["ceilings"]]
    assert estimate.stage_seconds("ceilings") == pytest.approx(
        LAUNCH_SECONDS + seconds[0] + seconds[2] + 2 * RUN_SECONDS)


def test_finished_runs_give_the_speed_and_have_nothing_left(finished):
    estimate = Estimate(sweep_of(finished), finished.runs_dir, 1)
    trained = [json.loads((folder / "manifest.json").read_text())["seconds"] for stage in STAGES
               for folder in finished.finished(stage)]
    pieces = [piece for stage in STAGES for piece in estimate.pieces[stage]]
    assert sum(map(estimate.seconds_of, pieces)) == pytest.approx(sum(trained))
    assert estimate.speed.basis == "from 16 finished runs"
    assert [estimate.stage_seconds(stage) for stage in STAGES] == [0, 0, 0]
    assert sum(piece.beside for piece in pieces) == 0


@pytest.mark.parametrize("steps", [40, 9])
def test_a_run_that_stopped_early_gives_the_speed_of_the_steps_that_it_took(tiny, steps):
    """Of 20 epochs of 2 steps each; a second a step."""
    plan = nested_plan(tiny, [2], [4], {}, epochs=20, early_stopping_evals=2)
    run, = plan.stage("students")
    stopped = tiny.copy(f"stopped_{steps}")
    whole = Estimate(plan, stopped.runs_dir, 1).pieces["students"][0].own
    folder = stopped.runs_dir / "tiny" / "students" / run.folder_name
    write_json(folder / "manifest.json", {"pairs": 32, "steps": steps, "seconds": 1.0 * steps})
    (folder / "model.safetensors").touch()
    mark_done(folder, run.identity)
    estimate = Estimate(plan, stopped.runs_dir, 1)
    assert estimate.speed.flops_per_second == pytest.approx(whole / 40)
    assert estimate.seconds_of(estimate.pieces["students"][0]) == pytest.approx(steps)


def test_labels_and_trunks_that_are_there_are_not_counted(finished, tmp_path):
    shutil.copytree(finished.runs_dir, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "tiny" / "students")
    estimate = Estimate(sweep_of(finished), tmp_path / "runs", 1)
    assert all(piece.beside == 0 for piece in estimate.pieces["students"])
    for path in (tmp_path / "runs").glob("tiny/teachers/*/weak_labels/*"):
        path.unlink()
    again = Estimate(sweep_of(finished), tmp_path / "runs", 1)
    assert sum(piece.beside > 0 for piece in again.pieces["students"]) == 4  # one a teacher


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_is_that_of_a_product_in_the_precision_of_the_runs(tiny, precision, monkeypatch):
    asked = []
    monkeypatch.setattr(speed, "_product", lambda *facts: asked.append(facts) or 1e9)
    plan = nested_plan(tiny, [2], [4], {}, precision=precision)
    found = speed_of(plan, [], 3)
    assert asked == [("cpu", precision, 32)] * 3
    assert found == (5e8, f"guessed from a {precision} matrix product")


def test_a_product_s_speed_is_measured():
    assert 1e7 < speed._product("cpu", "fp32", 64) < 1e14


def test_the_runs_at_a_time_are_those_of_the_scripts(monkeypatch):
    monkeypatch.setenv("WORKERS", "3")
    assert runs_at_a_time() == 3
    monkeypatch.setenv("HARDWARE", "zero2")
    assert runs_at_a_time() == 1


def test_a_machine_of_many_cores_is_given_no_more_than_the_scripts_take(monkeypatch):
    monkeypatch.delenv("WORKERS", raising=False)
    monkeypatch.setattr(speed.os, "cpu_count", lambda: 128)
    assert runs_at_a_time() == 99


@pytest.mark.parametrize("asked", ["0", "-1", "1.5", "x", "100"])
def test_what_the_scripts_refuse_as_runs_at_a_time_is_no_default_elsewhere(monkeypatch, asked):
    monkeypatch.setenv("WORKERS", asked)
    with pytest.raises(UserError, match=f"WORKERS={re.escape(asked)}: expected"):
        runs_at_a_time()
