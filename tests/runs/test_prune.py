"""Freed weights: everything that was made of them stays, and what needs them says so."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from configs.policy_schema import PoliciesConfig
from configs.run import STAGES
from configs.schema import ExperimentConfig, RuntimeConfig, load_config
from model.base.weights import weights_fingerprint
from src import push, train
from src.common.errors import UserError
from src.common.files import read_json
from src.common.lock import lock
from src.evaluation.one_model import evaluate_one
from src.prune import labelled_splits, prune
from src.runs import disk, folders
from src.runs.freed import FREED, free_weights, is_freed, run_fingerprint
from src.scoring.pairs import load_scorer
from src.scoring.texts import TextScorer
from src.training.finish import finish
from tests.tiny_experiment import TinyExperiment, in_process
from tests.tiny_experiment_parts import sweep_of

WEIGHTS = folders.WEIGHTS


@pytest.fixture(scope="module")
def scored(finished) -> TinyExperiment:
    """An experiment that eval.py has been run on. Read only."""
    tiny = finished.copy("scored")
    assert in_process("eval", *tiny.evaluate()) == 0
    return tiny


@pytest.fixture
def tiny(scored, request) -> TinyExperiment:
    copy = scored.copy(f"prune-{request.node.name[:40]}")
    yield copy
    shutil.rmtree(copy.config.parent)


def experiment_of(tiny: TinyExperiment) -> ExperimentConfig:
    return load_config(ExperimentConfig, str(tiny.config))


def ask(tiny: TinyExperiment, *words: str) -> int:
    return in_process("src.prune", "--experiment", str(tiny.config), *tiny.folders, *words)


def tables(tiny: TinyExperiment) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny.results.glob("*.csv")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}


def identity(folder: Path) -> str:
    return folders.read_run_config(folder).identity


def test_tables_are_the_same_to_the_byte_once_every_run_s_weights_are_gone(tiny, capsys):
    before = tables(tiny)
    assert {"pgr.csv", "accuracy.csv", "scores.csv"} <= before.keys()
    assert ask(tiny, "--teachers") == 0
    assert not list(tiny.runs_dir.rglob("*.safetensors"))
    capsys.readouterr()
    assert in_process("eval", *tiny.evaluate()) == 0
    assert "nothing to do" in capsys.readouterr().out  # they are not stale either
    shutil.rmtree(tiny.results)
    assert in_process("eval", *tiny.evaluate()) == 0
    assert tables(tiny) == before


def test_only_weights_of_ceilings_and_students_go_and_what_was_freed_is_said(tiny, capsys):
    before = files(tiny.runs_dir)
    size = sum(len(data) for name, data in before.items()
               if name.endswith(WEIGHTS) and "/teachers/" not in name)
    assert ask(tiny, "--dry-run") == 0 and files(tiny.runs_dir) == before
    said = capsys.readouterr().out
    assert said.count("would be freed") == 13 and f"{size / 1e9:,.2f} GB would be" in said
    assert ask(tiny) == 0
    *runs, total = capsys.readouterr().out.splitlines()
    assert len(runs) == 12 and all(": freed, " in line for line in runs)
    assert total == f"tiny: {size / 1e9:,.2f} GB freed of 12 runs"
    after = files(tiny.runs_dir)
    gone = {name for name in before if name.endswith(WEIGHTS) and "/teachers/" not in name}
    notes = {name.replace(WEIGHTS, FREED) for name in gone}
    assert after.keys() == before.keys() - gone | notes
    assert all(after[name] == data for name, data in before.items() if name not in gone)
    assert ask(tiny) == 0 and files(tiny.runs_dir) == after
    assert capsys.readouterr().out.count("freed before") == 12


def test_the_stages_find_pruned_runs_finished(tiny, capsys):
    ask(tiny, "--teachers")
    for stage in STAGES:
        assert train.train_stage(sweep_of(tiny), stage, tiny.runs_dir, 0, 1) == []
        assert "nothing to do" in capsys.readouterr().out


def test_students_can_be_trained_on_the_labels_of_teachers_whose_weights_are_gone(tiny):
    ask(tiny, "--teachers")
    lost = tiny.finished("students")[0]
    shutil.rmtree(lost)
    assert train.train_stage(sweep_of(tiny), "students", tiny.runs_dir, 0, 1) == []
    assert (lost / WEIGHTS).is_file() and folders.read_run(lost) is not None


def test_what_was_not_scored_or_with_other_weights_or_labelled_or_finished_stays(tiny):
    first, second, third = tiny.finished("ceilings")[:3]
    (first / "scores" / "test.parquet").unlink()
    other = {name: value + 1 for name, value in load_file(second / WEIGHTS).items()}
    save_file(other, second / WEIGHTS, metadata={"format": "pt"})
    (third / "DONE").unlink()
    teacher = tiny.finished("teachers")[0]
    (teacher / "weak_labels" / "train_2.parquet").unlink()
    before = {folder: files(folder) for folder in (first, second, third, teacher)}
    ask(tiny, "--teachers")
    assert {folder: files(folder) for folder in before} == before
    for folder, why in ((first, "no scores"), (second, "no scores of these weights"),
                        (third, "not finished"), (teacher, "no weak labels of train_2")):
        assert why in prune(folder, experiment_of(tiny), dry_run=False)[1]
    stops = {"early_stopping_evals": 1}
    for change in ({"train": stops}, {"methods": [{"name": "stop", **stops}]}):
        changed = tiny.copy(f"{tiny.runs}_val", **change)
        assert "train_2 and val" in prune(teacher, experiment_of(changed), dry_run=False)[1]
        shutil.rmtree(changed.config.parent)


def test_a_student_that_another_method_comes_after_stays_until_it_has_labelled(tiny):
    soft = tiny.settings()["methods"][0]
    tiny.write_config(tiny.settings(), methods=[
        soft, {"name": "again", "treatment": "strong_to_strong", "after": soft["name"]}])
    student = tiny.finished("students")[0]
    assert "no weak labels of train_2" in prune(student, experiment_of(tiny), dry_run=False)[1]
    assert train.train_stage(sweep_of(tiny), "students", tiny.runs_dir, 0, 1) == []
    assert prune(student, experiment_of(tiny), dry_run=False)[1] == "freed"


def test_a_link_of_a_chain_goes_once_it_has_labelled_without_a_score(tiny):
    settings = tiny.settings()
    ladder = settings["students"][0]
    chained = tiny.copy(f"{tiny.runs}_chain", methods=[
        {"name": "chain", "through": [{**ladder, "layers": [3]}]}])
    plan = sweep_of(chained)
    link, student = next((link, run) for run in plan.stage("students")
                         for link in plan.needed(run) if link.kind == "student")
    finish(link, plan, chained.runs_dir)
    folder = folders.find_finished(chained.runs_dir, "students", link.identity)
    assert "no weak labels of train_2" in prune(folder, experiment_of(chained), dry_run=True)[1]
    finish(student, plan, chained.runs_dir)
    assert prune(folder, experiment_of(chained), dry_run=False)[1] == "freed"
    folder = folders.find_finished(chained.runs_dir, "students", student.identity)
    assert "no scores" in prune(folder, experiment_of(chained), dry_run=True)[1]


def test_whose_hidden_states_a_student_is_still_to_learn_from_stays(tiny, capsys):
    ladder = tiny.settings()["students"][0]
    tiny.write_config(tiny.settings(), seeds=[0], students=[{**ladder, "layers": [4]}], methods=[
        *tiny.settings()["methods"], {"name": "distilled", "loss": "distil"},
        {"name": "chain", "loss": "distil", "through": [{**ladder, "layers": [3]}]}])
    plan = sweep_of(tiny)
    *before, last = plan.stage("students")
    link = next(run for run in before if run.identity == last.earlier)

    def waiting() -> set[str]:
        assert ask(tiny, "--teachers") == 0
        waits = ": kept: a student is still to learn from its hidden states"
        return {line.split(waits)[0].split("/")[1] for line in capsys.readouterr().out.splitlines()
                if waits in line}

    assert waiting() == {run.folder_name for run in plan.stage("teachers")}
    for run in before:
        finish(run, plan, tiny.runs_dir)
    assert waiting() == {link.folder_name}
    assert all(is_freed(folder) for folder in tiny.finished("teachers"))
    finish(last, plan, tiny.runs_dir)
    assert waiting() == set() and is_freed(folders.folder_of(link, tiny.runs_dir))


def test_a_student_stays_until_the_averages_that_are_asked_for_now_are_made(tiny):
    def averaged(*alphas: float) -> ExperimentConfig:
        tiny.write_config(tiny.settings(), averages=[{"recipe": "uniform", "alphas": [*alphas]}])
        return experiment_of(tiny)

    averaged(0.2, 0.4)
    plan = sweep_of(tiny)
    made = [run for run in plan.stage("students") if run.kind == "average"][:2]
    assert len({run.earlier for run in made}) == 1
    for run in made:
        finish(run, plan, tiny.runs_dir)
    folder = folders.find_finished(tiny.runs_dir, "students", made[0].earlier)
    left = (0, "kept: has not been averaged yet: run weak_to_strong.sh")
    assert prune(folder, averaged(0.2, 0.6), True) == left
    for alphas in ((0.2, 0.4), (0.4,)):
        assert prune(folder, averaged(*alphas), True)[1] == "would be freed"


def test_links_of_chains_which_nobody_averages_are_not_kept_for_it(tiny):
    ladder = tiny.settings()["students"][0]
    tiny.write_config(tiny.settings(), seeds=[0], averages=[{"recipe": "uniform"}], methods=[
        {"name": "chain", "through": [{**ladder, "layers": [3]}]}])
    plan = sweep_of(tiny)
    link, student = next((link, run) for run in plan.stage("students") if run.kind == "student"
                         for link in plan.needed(run) if link.kind == "student")
    finish(student, plan, tiny.runs_dir)
    folder = folders.find_finished(tiny.runs_dir, "students", link.identity)
    assert "averaged" not in prune(folder, experiment_of(tiny), dry_run=True)[1]


def test_val_is_labelled_by_whoever_teaches_a_student_whose_average_learns_on_it(tiny):
    ladder, soft = tiny.settings()["students"][0], tiny.settings()["methods"]
    chain = [{"name": "chain", "through": [{**ladder, "layers": [3]}]}]

    def labelled(methods: list[dict], recipe: str) -> dict[str, bool]:
        tiny.write_config(tiny.settings(), students=[{**ladder, "layers": [4]}], methods=methods,
                          averages=[{"recipe": recipe}])
        plan = sweep_of(tiny)
        return {run.kind + str(len(run.kept)): "val" in labelled_splits(run, plan.experiment)
                for run in plan.runs if run.kind in ("teacher", "student")}

    assert labelled(chain, "adaptive") == {
        "teacher1": False, "teacher2": False, "student3": True, "student4": False}
    assert labelled(soft, "adaptive") == {"teacher1": True, "teacher2": True, "student4": False}
    assert not any(labelled(soft + chain, "uniform").values())


def test_weights_are_not_read_where_nothing_was_made_of_them(tiny, monkeypatch):
    folder = tiny.finished("ceilings")[0]
    (folder / "scores" / "test.parquet").unlink()
    monkeypatch.setattr("src.scoring.pairs.run_fingerprint", lambda folder: pytest.fail("read"))
    assert "no scores" in prune(folder, experiment_of(tiny), dry_run=False)[1]


def test_a_run_in_training_is_not_waited_for(tiny):
    folder = tiny.finished("ceilings")[0]
    (folder / "DONE").unlink()
    with lock(folder):  # a second one in this process would wait for ever
        assert prune(folder, experiment_of(tiny), dry_run=False) == (0, "kept: not finished")


def shard(folder: Path) -> None:
    """The run's weights in two files and an index, as big models are saved."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:3],
             "model-00002-of-00002.safetensors": names[3:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {name: file for file, held in parts.items() for name in held}}))
    (folder / WEIGHTS).unlink()


def test_a_command_that_was_killed_on_the_way_is_finished_by_the_next(tiny, monkeypatch):
    folder = tiny.finished("ceilings")[0]
    shard(folder)
    folders.mark_done(folder, identity(folder))
    fingerprint, unlink = weights_fingerprint(folder), Path.unlink

    class Killed(BaseException):
        pass

    def die_after_one(path: Path, *args, **kwargs) -> None:
        if path.name == "model-00002-of-00002.safetensors":
            raise Killed
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", die_after_one)
    with pytest.raises(Killed):
        free_weights(folder, identity(folder))
    monkeypatch.undo()
    assert (folder / "model-00002-of-00002.safetensors").is_file()
    for _ in range(2):
        assert is_freed(folder) and run_fingerprint(folder) == fingerprint
        assert folders.is_done(folder, identity(folder))
        with pytest.raises(UserError, match="freed"):
            load_scorer(folder, RuntimeConfig(), None)
        free_weights(folder, identity(folder))
        assert not list(folder.glob("model*"))


def test_one_that_was_killed_before_it_had_written_has_freed_nothing(tiny, monkeypatch):
    folder = tiny.finished("ceilings")[0]
    before = files(folder)

    def full(*args) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        prune(folder, experiment_of(tiny), dry_run=False)
    monkeypatch.undo()
    assert files(folder) == before


def test_a_run_that_is_trained_again_is_not_known_as_freed(tiny):
    ask(tiny)
    folder = tiny.finished("ceilings")[0]
    (folder / "DONE").unlink()
    assert train.train_stage(sweep_of(tiny), "ceilings", tiny.runs_dir, 0, 1) == []
    assert (folder / WEIGHTS).is_file() and not is_freed(folder)
    assert (folder / FREED).name not in read_json(folder / "DONE")["files"]


def test_what_needs_the_weights_says_in_a_line_that_they_were_freed(tiny, monkeypatch):
    ask(tiny)
    folder = tiny.finished("students")[0]
    before = files(tiny.runs_dir)
    needing = {
        "src.scoring": lambda: TextScorer(folder),
        "src.push": lambda: push.check(folder, "owner/name"),
        "one model": lambda: evaluate_one(folder, None, "test", tiny.runs_dir,
                                          tiny.processed.parent),
        "another split": lambda: in_process("eval", *tiny.evaluate(), "--split", "val"),
        "transfer": lambda: in_process("eval", *tiny.evaluate(), "--transfer", str(tiny.raw)),
        "inspect": lambda: in_process("eval", "--model", str(folder), "--inspect", "--data",
                                      str(tiny.raw), *tiny.folders, "--results_dir",
                                      str(tiny.results.parent)),
    }
    for what, use in needing.items():
        with pytest.raises(UserError) as told:
            use()
        assert "freed" in str(told.value) and "train the run again" in str(told.value), what
        assert "\n" not in str(told.value), what
    assert files(tiny.runs_dir) == before  # nothing was scored on the way there


def test_a_student_whose_ceiling_was_freed_has_an_accuracy_still(tiny):
    student = tiny.finished("students")[0]
    kept = files(student)
    ask(tiny)
    (student / WEIGHTS).write_bytes(kept[WEIGHTS])
    (student / FREED).unlink()
    said = evaluate_one(student, None, "test", tiny.runs_dir, tiny.processed.parent)
    assert "accuracy" in said and "have their weights still" in said


def test_a_run_that_lies_under_another_experiment_is_left(tiny):
    shared = tiny.finished("ceilings")[0]
    elsewhere = tiny.runs_dir / "other" / "ceilings" / shared.name
    elsewhere.parent.mkdir(parents=True)
    shared.rename(elsewhere)
    before = files(elsewhere)
    ask(tiny)
    assert files(elsewhere) == before
    assert not list((tiny.runs_dir / "tiny" / "ceilings").rglob(WEIGHTS))


def test_teachers_of_an_experiment_without_students_need_no_weak_labels(tiny):
    tiny.write_config(tiny.settings(), students=[])
    for stage in ("ceilings", "students"):
        shutil.rmtree(tiny.runs_dir / "tiny" / stage)
    first, second = tiny.finished("teachers")[:2]
    shutil.rmtree(first / "weak_labels")
    (second / "scores" / "test.parquet").unlink()
    with pytest.raises(UserError, match="no ceilings or students there: --teachers frees"):
        ask(tiny)
    assert ask(tiny, "--teachers") == 0
    assert is_freed(first) and not is_freed(second)


def test_reward_models_that_policies_need_keep_their_weights(tiny):
    folder = tiny.finished("ceilings")[0]
    aligned = dataclasses.replace(experiment_of(tiny), policies=PoliciesConfig("any"))
    assert prune(folder, aligned, False) == (
        0, "kept: policies learn from it or are judged by it")
    assert (folder / WEIGHTS).is_file()


def test_an_experiment_without_runs_is_an_error(tiny, tmp_path):
    with pytest.raises(UserError, match="no ceilings or students there: --runs_dir"):
        in_process("src.prune", "--experiment", str(tiny.config), "--runs_dir", str(tmp_path))


def test_the_disk_that_weights_take_is_told_before_training_and_is_what_they_take(
        finished, monkeypatch):
    plan = sweep_of(finished)
    taken = sum(path.stat().st_size for path in finished.runs_dir.rglob(WEIGHTS))
    assert disk.weights_gb(plan, plan.runs) == pytest.approx(taken / 1e9, rel=0.1)  # and headers
    line, = disk.disk_lines(plan, plan.runs, finished.runs_dir / "not" / "there")
    assert line.startswith("weights of the 16 runs to do: about ") and line.endswith(" free")
    assert disk.disk_lines(plan, [], finished.runs_dir) == []
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=taken // 2))
    _, warning = disk.disk_lines(plan, plan.runs, finished.runs_dir)
    assert warning.startswith("! ") and "python -m src.prune --experiment tiny" in warning


@pytest.mark.parametrize(("free", "worker", "warnings"), [(0, "0/2", 1), (0, "1/2", 0),
                                                          (1e12, "0/2", 0)])
def test_a_disk_too_small_for_the_weights_is_told_once_before_anything_is_trained(
        scored, tmp_path, monkeypatch, capsys, free, worker, warnings):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free))
    monkeypatch.setattr(train, "train_stage", lambda *arguments: [])
    assert in_process("src.train", "--experiment", str(scored.config), "--stage", "teachers",
                      *scored.folders, "--runs_dir", str(tmp_path), "--worker", worker) == 0
    told = capsys.readouterr().out
    assert told.count("weights of the 4 runs to do: about ") == told.count("! ") == warnings
