"""Two launches of one stage share its runs."""

from contextlib import ExitStack

from src import train
from src.common.lock import is_held, lock, quiet
from src.runs.folders import folder_of
from tests.tiny_experiment import make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of


def test_a_run_that_another_launch_is_at_comes_last(tmp_path, monkeypatch, capsys):
    tiny = make_experiment(tmp_path, rows=130, train_pairs=48, layers=([1, 2, 3], [4]))
    prepare_data(tiny)
    plan, finished = sweep_of(tiny), []
    runs = plan.stage("teachers")
    assert len(runs) == 3
    with ExitStack() as other:
        other.enter_context(lock(folder_of(runs[0], tiny.runs_dir), quiet))

        def finish(run, *_):
            if len(finished) == 2:
                assert is_held(folder_of(runs[0], tiny.runs_dir))
                other.close()
            finished.append(run)
            return True

        monkeypatch.setattr(train, "finish", finish)
        assert not train.train_stage(plan, "teachers", tiny.runs_dir, 0, 1)
    assert finished == [runs[1], runs[2], runs[0]]
    told = capsys.readouterr().out
    assert told.index(f"[2/3] {runs[1].display_name}") < told.index(f"[1/3] {runs[0].display_name}")


def test_runs_that_nobody_is_at_keep_their_order(tmp_path):
    tiny = make_experiment(tmp_path, rows=130, train_pairs=48, layers=([1, 2, 3], [4]))
    prepare_data(tiny)
    share = list(enumerate(sweep_of(tiny).stage("teachers"), 1))
    assert list(train.free_first(share, tiny.runs_dir)) == share
