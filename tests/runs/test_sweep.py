"""Experiment -> runs: the whole grid, each run once, shared where two grids need the same."""

import copy
import dataclasses

import numpy as np
import pytest
import yaml

from configs.run import GROUND_TRUTH, GROUND_TRUTH_METHOD, STAGES
from configs.schema import ExperimentConfig, load_config
from data.manifest import read_manifest
from model.base.truncate import count_parameters
from src.batches.finite import NonFiniteLossError
from src.batches.steps import optimiser_steps
from src.batches.trees import trees_of
from src.common.errors import UserError
from src.methods.labelling import is_link
from src.runs import folders
from src.runs.plan import Plan
from src.scoring.labels import labels_for, prompts_kept
from src.train import train_stage
from src.training.dry_run import describe, duration
from src.training.work import pairs_of, work
from tests.families import save_base
from tests.tiny_experiment import make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.tiny_pairs import tree_pairs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared experiment with nothing trained; its YAML file is written anew by each test."""
    tiny = make_experiment(tmp_path_factory.mktemp("sweep"), rows=120, train_pairs=32,
                           seeds=[0, 1])
    prepare_data(tiny)
    return tiny


@pytest.fixture
def plan(tiny):
    """Changes of the experiment's YAML -> its sweep."""
    values = yaml.safe_load(tiny.config.read_text())

    def sweep(seeds=(), **changes):
        tiny.write_config(copy.deepcopy(values), **changes)
        return sweep_of(tiny, seeds)

    yield sweep
    tiny.write_config(values)


def ladder(tiny, *layers, **options):
    return {"model": str(tiny.root / "llama.yaml"), "layers": list(layers), **options}


def names(sweep, stage):
    return [run.display_name for run in sweep.stage(stage)]


def test_the_grid_is_every_teacher_to_every_student_that_is_not_smaller(tiny, plan):
    sweep = plan(teachers=[ladder(tiny, 1, 2, 4)], students=[ladder(tiny, 1, 2, 4)], seeds=[3])
    assert names(sweep, "teachers") == ["llama-L1-s3", "llama-L2-s3", "llama-L4-s3"]
    assert names(sweep, "ceilings") == names(sweep, "teachers")
    assert names(sweep, "students") == [
        f"llama-L{student}-from-llama-L{teacher}-soft-s3"
        for teacher, student in [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (4, 4)]]


def test_seeds_and_methods_multiply_students_and_seeds_the_rest(plan):
    methods = [{"name": "soft"}, {"name": "conf", "loss": "confidence", "aux_coef": 0.5}]
    sweep = plan(methods=methods, seeds=[0, 1, 5])
    assert [len(sweep.stage(stage)) for stage in STAGES] == [6, 6, 24]
    folders = [run.folder_name for stage in STAGES for run in sweep.stage(stage)]
    assert len({(run.stage, run.folder_name) for stage in STAGES for run in sweep.stage(stage)}
               ) == len(folders)


def test_a_loss_without_code_is_refused_before_anything_is_looked_at(tiny, plan):
    with pytest.raises(UserError, match="experiments/tiny: method a: loss 'hinge' is none of soft"):
        plan(methods=[{"name": "soft"}, {"name": "a", "loss": "hinge"}],
             teachers=[{"model": "nobody"}])


def test_what_a_run_needs_is_planned_before_it_and_nothing_else_is_needed(plan):
    sweep = plan()
    known = set()
    for run in sweep.runs:
        assert set(run.needs) <= known and len(run.needs) == (run.kind == "student")
        assert [other.identity for other in sweep.needed(run)] == list(run.needs)
        known.add(run.identity)


def test_seeds_of_the_command_replace_the_experiment_s(plan):
    assert {run.seed for run in plan((7, 8)).stage("students")} == {7, 8}


@pytest.mark.parametrize("seeds", [(-1,), (0, 0)])
def test_seeds_of_the_command_are_checked_like_the_experiment_s(plan, seeds):
    with pytest.raises(UserError, match="seeds"):
        plan(seeds)


def test_each_stage_has_its_split_and_labels(plan):
    sweep = plan()
    facts = {stage: {(r.kind, r.split, r.labels == GROUND_TRUTH, r.method.loss, r.teacher == "")
                     for r in sweep.stage(stage)} for stage in STAGES}
    assert facts == {"teachers": {("teacher", "train_1", True, "hard_bt", True)},
                     "ceilings": {("ceiling", "train_2", True, "hard_bt", True)},
                     "students": {("student", "train_2", False, "soft_bt", False)}}


def test_a_student_s_teacher_has_its_seed(plan):
    sweep = plan()
    for student in sweep.stage("students"):
        teacher = sweep.needed(student)[0]
        assert (teacher.name, teacher.seed) == (student.teacher, student.seed)
        assert teacher.identity == student.labels


def test_student_and_ceiling_differ_in_nothing_but_labels(plan):
    sweep = plan()
    ceilings = {(run.name, run.seed): run for run in sweep.stage("ceilings")}
    for student in sweep.stage("students"):
        assert dataclasses.replace(
            student, kind="ceiling", labels=GROUND_TRUTH, teacher="",
            method=GROUND_TRUTH_METHOD) == ceilings[student.name, student.seed]


def chain(tiny, *layers, name="chain", **options):
    return {"name": name, "through": [ladder(tiny, each) for each in layers], **options}


def test_links_of_a_chain_are_planned_once_before_who_they_label_for(tiny, plan):
    sweep = plan(teachers=[ladder(tiny, 1)], students=[ladder(tiny, 4)], seeds=[0],
                 methods=[{"name": "soft"}, chain(tiny, 2, 3), chain(tiny, 2, name="short")])
    from_ = "from-llama-L1"
    assert names(sweep, "students") == [
        f"llama-L2-{from_}-short-s0", f"llama-L3-{from_}-chain-s0", f"llama-L4-{from_}-soft-s0",
        f"llama-L4-{from_}-chain-s0", f"llama-L4-{from_}-short-s0"]
    two, three, soft, whole, short = sweep.stage("students")
    assert three.needs == short.needs == (soft.labels, two.identity)
    assert whole.needs == (soft.labels, three.identity) and two.needs == soft.needs
    assert [is_link(run.method, sweep.experiment.methods) for run in sweep.stage("students")] == [
        True, True, False, False, False]


def test_a_link_that_is_a_student_anyway_is_that_one(tiny, plan):
    sweep = plan(teachers=[ladder(tiny, 1)], students=[ladder(tiny, 2, 4)], seeds=[0],
                 methods=[{"name": "soft"}, chain(tiny, 2)])
    soft, _, whole = sweep.stage("students")
    assert (soft.name, soft.method.name) == ("llama-L2", "soft") and whole.earlier == soft.identity
    assert [other.identity for other in sweep.needed(whole)] == list(whole.needs)


def test_a_chain_of_no_links_is_the_method_without_a_chain(tiny, plan):
    soft, none = plan(methods=[{"name": "soft"}, chain(tiny)], seeds=[0],
                      students=[ladder(tiny, 4)]).stage("students")[:2]
    assert soft.identity == none.identity


def test_a_chain_is_planned_where_each_is_bigger_than_the_one_before_and_so_is_what_follows_it(
        tiny, plan):
    again = {"name": "again", "treatment": "strong_to_strong", "after": "chain"}
    sweep = plan(teachers=[ladder(tiny, 1, 2)], students=[ladder(tiny, 2, 4)], seeds=[0],
                 methods=[chain(tiny, 2), again])
    assert names(sweep, "students") == [
        "llama-L2-from-llama-L1-chain-s0", "llama-L4-from-llama-L1-chain-s0",
        "llama-L4-from-llama-L1-again-s0"]
    with pytest.raises(UserError, match="method chain goes through llama-L3, llama-L2: no teacher"):
        plan(methods=[chain(tiny, 3, 2)])


def test_a_chain_that_cannot_be_is_refused(tiny, plan):
    with pytest.raises(UserError, match="is of several teachers: a chain begins with one"):
        plan(methods=[chain(tiny, 3, treatment="mean_margin")])
    with pytest.raises(UserError, match="through and after a: each names who labels"):
        plan(methods=[{"name": "a"}, chain(tiny, 3, treatment="strong_to_strong", after="a")])
    with pytest.raises(UserError, match="through: each entry is one rung"):
        plan(methods=[{"name": "a", "through": [ladder(tiny, 2, 3)]}])


def test_a_link_may_be_of_another_base_model(tiny, plan):
    (tiny.root / "other.yaml").write_text((tiny.root / "llama.yaml").read_text())
    link = {"model": str(tiny.root / "other.yaml"), "layers": [3]}
    sweep = plan(teachers=[ladder(tiny, 1)], students=[ladder(tiny, 4)], seeds=[0],
                 methods=[{"name": "chain", "through": [link]}])
    assert names(sweep, "students")[0] == "other-L3-from-llama-L1-chain-s0"
    assert sweep.experiment.model_names == [str(tiny.root / name) for name in (
        "llama.yaml", "other.yaml")]


def rates(sweep, stage):
    return [run.train.learning_rate for run in sweep.stage(stage)]


def test_a_ladder_has_its_own_learning_rate_or_the_experiment_s_or_the_model_s(tiny, plan):
    own = ladder(tiny, 1, 2, learning_rate=0.125)
    model, train = 3e-4, {"epochs": 1.0, "learning_rate": 0.5}
    (tiny.root / "slow.yaml").write_text(
        (tiny.root / "llama.yaml").read_text() + f"learning_rate: {model}\n")
    other = {"model": str(tiny.root / "slow.yaml"), "layers": [4]}
    sweep = plan(teachers=[own], students=[own, other], train=train, seeds=[0])
    assert rates(sweep, "teachers") == [0.125, 0.125]
    assert rates(sweep, "ceilings") == [0.125, 0.125, 0.5]
    assert rates(sweep, "students") == [0.125, 0.125, 0.5, 0.125, 0.5]
    assert rates(plan(teachers=[own], students=[other],
                      train={"learning_rate": None}, seeds=[0]), "ceilings") == [model]


def test_a_ladder_s_learning_rate_is_that_of_train_by_another_way(tiny, plan):
    by_ladder = plan(teachers=[ladder(tiny, 2, learning_rate=0.125)],
                     students=[ladder(tiny, 4, learning_rate=0.125)], train={"epochs": 1.0})
    by_train = plan(teachers=[ladder(tiny, 2)], students=[ladder(tiny, 4)],
                    train={"epochs": 1.0, "learning_rate": 0.125})
    for stage in STAGES:
        assert identities(by_ladder, stage) == identities(by_train, stage)


def identities(sweep, stage):
    return [run.identity for run in sweep.stage(stage)]


def test_methods_names_paths_and_runtime_leave_ceilings_and_teachers_shared(tiny, plan):
    before = plan()
    path = tiny.root / "renamed.yaml"
    path.write_text((tiny.root / "llama.yaml").read_text())
    after = plan(methods=[{"name": "hard", "loss": "hard_bt"}], runtime={"micro_batch_tokens": 512},
                 teachers=[{"model": str(path), "layers": [1, 2]}],
                 students=[{"model": str(path), "layers": [2, 4]}], eval={"level": 0.9})
    for stage in ("teachers", "ceilings"):
        assert identities(after, stage) == identities(before, stage)
    assert not set(identities(after, "students")) & set(identities(before, "students"))
    assert names(after, "ceilings")[0] == "renamed-L2-s0"


def test_another_grid_shares_the_rungs_that_it_has_in_common(tiny, plan):
    small = plan(students=[ladder(tiny, 2)])
    big = plan(students=[ladder(tiny, 1, 2, 3, 4)])
    assert set(identities(small, "ceilings")) < set(identities(big, "ceilings"))
    assert set(identities(small, "students")) < set(identities(big, "students"))


def test_budget_seed_and_learning_rate_change_every_identity(plan):
    before = plan()
    for changes in ({"train": {"epochs": 2}}, {"train": {"learning_rate": 2e-3}},
                    {"seeds": [2, 3]}):
        after = plan(**changes)
        for stage in STAGES:
            assert not set(identities(after, stage)) & set(identities(before, stage))


def test_a_method_that_stops_early_leaves_the_others_of_its_experiment_as_they_are(plan):
    before = plan(methods=[{"name": "soft"}])
    after = plan(methods=[{"name": "soft"}, {"name": "early_stop", "early_stopping_evals": 2},
                          {"name": "oracle_stop", "early_stopping_evals": 2, "stop_on": "truth"}])
    evals = {run.method.name: run.train.early_stopping_evals for run in after.stage("students")}
    assert evals == {"soft": 0, "early_stop": 2, "oracle_stop": 2}
    assert len(set(identities(after, "students"))) == 3 * len(set(identities(before, "students")))
    for stage in STAGES:
        assert set(identities(before, stage)) <= set(identities(after, stage))


def test_early_stopping_is_for_students_and_leaves_the_other_identities(plan):
    before = plan()
    after = plan(train={"early_stopping_evals": 2, "eval_frac": 0.25})
    assert {run.train.early_stopping_evals for run in after.stage("students")} == {2}
    for stage in ("teachers", "ceilings"):
        assert {run.train.early_stopping_evals for run in after.stage(stage)} == {0}
        assert identities(after, stage) == identities(before, stage)
    assert not set(identities(after, "students")) & set(identities(before, "students"))


def test_eval_frac_means_nothing_to_teachers_and_ceilings(plan):
    before, after = plan(), plan(train={"eval_frac": 0.25})
    for stage in ("teachers", "ceilings"):
        assert identities(after, stage) == identities(before, stage)


def test_the_learning_rate_is_the_base_model_s_where_the_experiment_names_none(tiny, plan):
    run = plan(train={"learning_rate": None}).stage("teachers")[0]
    assert run.train.learning_rate == 1e-5


def test_rungs_are_named_after_what_they_keep(tiny, plan):
    sweep = plan(teachers=[ladder(tiny, 2)],
                 students=[ladder(tiny, 2, 4), ladder(tiny, 2, 4 - 1, keep="first"),
                           {"model": str(tiny.root / "llama.yaml"), "keep": [0, 2]}])
    kept = {rung.name: rung.kept for rung in sweep.students}
    assert kept == {"llama-L2": (1, 3), "llama-L4": (0, 1, 2, 3), "llama-F2": (0, 1),
                    "llama-F3": (0, 1, 2), "llama-K0_2": (0, 2)}


def test_a_teacher_of_fewer_prompts_is_a_rung_of_its_own_that_equals_in_size_teach(tiny, plan):
    shares = (0.25, 0.5, 1.0)
    sweep = plan(teachers=[ladder(tiny, 4, train_share=share) for share in shares],
                 students=[ladder(tiny, 4)], seeds=[0])
    assert names(sweep, "teachers") == ["llama-L4-p25-s0", "llama-L4-p50-s0", "llama-L4-s0"]
    assert [run.teacher for run in sweep.stage("students")] == [
        "llama-L4-p25", "llama-L4-p50", "llama-L4"]
    assert len(set(identities(sweep, "teachers"))) == 3
    assert identities(sweep, "teachers")[-1:] == identities(
        plan(teachers=[ladder(tiny, 4)], students=[ladder(tiny, 4)], seeds=[0]), "teachers")


def test_teachers_learn_from_their_share_of_whole_prompts_and_larger_shares_have_smaller(
        tiny, plan):
    shares, kept = (0.25, 0.5), []
    sweep = plan(teachers=[ladder(tiny, 4, train_share=share) for share in shares],
                 students=[ladder(tiny, 4)], seeds=[0])
    for share, run in zip(shares, sweep.stage("teachers"), strict=True):
        taught, _ = labels_for(run, sweep, tiny.root)
        prompts = np.array(sweep.split(run, run.split).prompt_ids)
        kept.append(set(prompts[taught.kept]))
        assert not kept[-1] & set(prompts[~taught.kept])
        assert len(kept[-1]) == round(share * len(set(prompts)))
        assert pairs_of(run, sweep) == round(share * len(prompts))
    assert kept[0] < kept[1]
    assert labels_for(sweep.stage("ceilings")[0], sweep, tiny.root)[0].kept is None


def test_another_seed_draws_other_prompts_and_the_least_share_has_one():
    prompts = np.repeat(np.arange(40), 2)
    drawn = [prompts_kept(prompts, 0.5, seed) for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    assert prompts_kept(prompts, 1e-6, 0).sum() == 2


def test_a_deep_student_may_train_more_layers_than_its_teacher(tiny, plan):
    """And the teacher stays the run that it is where nobody asks for more."""
    def planned(**own):
        return plan(teachers=[ladder(tiny, 2)], students=[ladder(tiny, 4, **own)], seeds=[0],
                    train={"trainable_layers": 1})

    wide, narrow = planned(trainable_layers=3), planned()
    assert identities(wide, "teachers") == identities(narrow, "teachers")
    for stage in ("ceilings", "students"):
        assert {run.train.trainable_layers for run in wide.stage(stage)} == {3}
        assert identities(wide, stage) != identities(narrow, stage)


def test_more_layers_to_train_than_a_rung_has_are_refused_with_a_remedy(tiny, plan):
    message = "trainable_layers 3, but the model keeps 2 layers; choose at most 2, or null"
    deep = ladder(tiny, 2, trainable_layers=3)
    for changes in ({"teachers": [deep]}, {"students": [ladder(tiny, 4), deep]},
                    {"methods": [{"name": "chain", "through": [deep]}]},
                    {"teachers": [ladder(tiny, 2)], "train": {"trainable_layers": 3}}):
        with pytest.raises(UserError, match=message):
            plan(**changes)


@pytest.mark.parametrize(("everyone", "own"), [(1, None), (None, 1)])
def test_a_layer_that_a_rung_does_not_train_is_not_distilled(tiny, plan, everyone, own):
    """A rung's own number of layers that train goes before that of all."""
    def planned(everyone, own):
        method = {"name": "distil", "loss": "distil", "loss_options": {"layer_pairs": [[1, -1]]}}
        return plan(teachers=[ladder(tiny, 2)], students=[ladder(tiny, 4, trainable_layers=own)],
                    methods=[method], train={"trainable_layers": everyone})

    with pytest.raises(UserError, match="layer 1 of the student does not train: .* the top 1$"):
        planned(everyone, own)
    assert planned(everyone, 3).stage("students")


def test_a_share_of_the_prompts_is_refused_for_students(tiny, plan):
    with pytest.raises(UserError, match="train_share 0.5 is for teachers: expected 1"):
        plan(students=[ladder(tiny, 4, train_share=0.5)])


def test_a_rung_counts_the_parameters_that_size_does(plan):
    sweep = plan()
    for rung in sweep.students:
        assert rung.parameters == count_parameters(rung.base.hf_config, rung.kept)[1]
    assert sweep.students[0].parameters < sweep.students[1].parameters


@pytest.mark.parametrize(("students", "message"), [
    ({"layers": [5]}, "5 layers to keep: the base model has 4"),
    ({"layers": [], "keep": [3, 1]}, "ascending"), ({"layers": [], "keep": [1, 4]}, "out of range"),
    ({"layers": [], "keep": [1, 1]}, "repeats"), ({"layers": [], "keep": []}, "expected 1 to 4")])
def test_layers_that_the_model_does_not_have_are_refused(tiny, plan, students, message):
    with pytest.raises(UserError, match=message):
        plan(students=[ladder(tiny, **students) if "keep" in students else
                       ladder(tiny, *students["layers"])])


def test_a_rung_listed_twice_is_refused(tiny, plan):
    with pytest.raises(UserError, match="rungs llama-L2, llama-L2 repeat"):
        plan(students=[ladder(tiny, 2), ladder(tiny, 2)])


def test_two_models_of_one_name_are_refused(tiny, plan, tmp_path):
    """teacher `llama` and student `llama` of different weights: no table could tell them apart."""
    save_base(tmp_path / "base", "llama", seed=1, vocab_size=260, hidden_size=32,
              num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512)
    (tmp_path / "llama.yaml").write_text(f"checkpoint: {tmp_path / 'base'}\nfamily: llama\n")
    with pytest.raises(UserError, match="llama"):
        plan(students=[{"model": str(tmp_path / "llama.yaml"), "layers": [2, 4]}])


def test_a_base_model_that_is_not_on_disk_is_named_with_the_command_that_fetches_it(tiny, plan):
    path = tiny.root / "absent.yaml"
    path.write_text("checkpoint: owner/absent\nfamily: llama\n")
    with pytest.raises(UserError, match="download.py --model absent.*demo"):
        plan(students=[{"model": str(path), "layers": [2]}])


def test_a_model_of_another_family_than_its_config_says_is_refused(tiny, plan):
    path = tiny.root / "wrong.yaml"
    path.write_text(f"checkpoint: {tiny.model}\nfamily: gemma\n")
    with pytest.raises(UserError, match="family 'gemma'"):
        plan(students=[{"model": str(path)}])


def test_data_longer_than_the_model_s_positions_is_refused(tiny, plan):
    values = yaml.safe_load((tiny.root / "pairs.yaml").read_text())
    path = tiny.root / "long" / "pairs.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**values, "max_length": 10_000}))
    with pytest.raises(UserError, match="max_length 10000 is more than the model's 512"):
        plan(data=str(path))


def test_data_that_is_not_prepared_is_named_with_the_command(tiny, plan):
    path = tiny.root / "unprepared.yaml"
    path.write_text(f"path: {tiny.raw}\n")
    with pytest.raises(UserError, match="no prepared data: run `python data/preprocess.py"):
        plan(data=str(path))


@pytest.fixture(scope="module")
def without_val(tmp_path_factory):
    tiny = make_experiment(tmp_path_factory.mktemp("without_val"), rows=120, train_pairs=32)
    path = tiny.root / "pairs.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "val_pairs": 0}))
    prepare_data(tiny)
    return tiny


@pytest.mark.parametrize(("reader", "changes"), [
    ("treatment calibrated", {"methods": [{"name": "soft", "treatment": "calibrated"}]}),
    ("early stopping", {"train": {"early_stopping_evals": 2}}),
    ("early stopping", {"methods": [{"name": "oracle_stop", "early_stopping_evals": 2,
                                     "stop_on": "truth"}]}),
    ("recipe refitted", {"averages": [{"recipe": "refitted"}]}),
    ("recipe adaptive", {"averages": [{"recipe": "uniform"}, {"recipe": "adaptive"}]})])
def test_what_reads_val_is_refused_before_a_teacher_trains_where_there_is_none(
        without_val, tmp_path, reader, changes):
    tiny = without_val.copy(f"runs-{tmp_path.name}", **changes)
    with pytest.raises(UserError, match=f"no val, .* by its {reader}: raise val_pairs in the data"):
        sweep_of(tiny)


def test_a_val_without_a_pair_is_none(plan, monkeypatch):
    manifest = read_manifest(plan().prepared.folder)
    manifest["splits"]["val"]["pairs"] = 0
    monkeypatch.setattr("src.runs.plan.read_manifest", lambda folder: manifest)
    assert plan().runs
    with pytest.raises(UserError, match="no val, which method soft reads by its early stopping"):
        plan(train={"early_stopping_evals": 2})


def test_what_reads_no_val_needs_none(without_val):
    tiny = without_val.copy("plain", averages=[{"recipe": "uniform"}, {"recipe": "part_wise"}],
                            methods=[{"name": "soft"}, {"name": "sure", "treatment": "confident"}])
    assert len(sweep_of(tiny).stage("students")) == 24


def test_work_is_the_tokens_and_six_operations_a_parameter_and_token(tiny, plan):
    sweep = plan(train={"epochs": 2})
    run = sweep.stage("students")[-1]
    tokens = 2 * sum(len(row[name]) for row in map(sweep.split(run, "train_2").__getitem__,
                                                   range(32))
                     for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    assert work(run, sweep) == (tokens, 6.0 * tokens * sweep.students[-1].parameters)
    assert optimiser_steps(run, 32) == 4


def test_work_counts_a_prompt_once_for_the_pairs_of_a_step(plan, monkeypatch):
    sweep = plan(train={"epochs": 2, "batch_pairs": 9})
    run = sweep.stage("students")[-1]
    pairs = tree_pairs(3, 3)
    monkeypatch.setattr(sweep, "split", lambda run, split: pairs)
    trees = trees_of(pairs, True)
    once = trees.prompt_tokens.sum() + trees.response_tokens.sum()
    assert work(run, sweep)[0] == 2 * once


def test_a_dry_run_lists_every_run_and_trains_nothing(tiny, plan):
    sweep = plan()
    text = describe(sweep, "students", tiny.runs_dir)
    for run in sweep.stage("students"):
        assert any(line.startswith(run.display_name) and "to do" in line
                   for line in text.splitlines())
    assert "8 runs, 0 done" in text and "nothing was trained" in text
    assert not tiny.runs_dir.exists()


def test_a_dry_run_knows_what_is_done_and_how_long_it_took(finished):
    text = describe(sweep_of(finished), "ceilings", finished.runs_dir)
    assert "4 runs, 4 done" in text and "from 16 finished runs" in text
    assert "to do: about 0 s" in text


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (36000, "10.0 h")])
def test_durations_are_told_in_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_every_stage_trains_all_its_runs_and_a_second_time_none(finished, capsys):
    sweep = sweep_of(finished)
    for stage in STAGES:
        folders = finished.finished(stage)
        assert {path.name for path in folders} == {run.folder_name for run in sweep.stage(stage)}
        times = [(path / "DONE").stat().st_mtime_ns for path in folders]
        assert train_stage(sweep, stage, finished.runs_dir, 0, 1) == []
        assert "nothing to do" in capsys.readouterr().out
        assert [(path / "DONE").stat().st_mtime_ns for path in folders] == times


def test_another_experiment_finds_the_shared_runs_finished(finished):
    config = load_config(ExperimentConfig, str(finished.config))
    other = Plan(dataclasses.replace(config, name="other"), finished.processed.parent)
    for run in other.stage("ceilings"):
        folder = folders.find_finished(finished.runs_dir, "ceilings", run.identity)
        assert folder.parts[-3] == "tiny" and run.experiment == "other"


def test_workers_share_a_stage_without_overlap(plan, monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr("src.train.finish", lambda run, sweep, runs_dir: taken.append(run) or True)
    sweep = plan()
    for worker in range(3):
        assert train_stage(sweep, "students", tmp_path, worker, 3) == []
    assert sorted(run.display_name for run in taken) == sorted(names(sweep, "students"))


def test_a_run_that_fails_is_reported_and_the_others_go_on(plan, monkeypatch, capsys, tmp_path):
    sweep = plan()
    bad = sweep.stage("ceilings")[1]

    def finish(run, sweep, runs_dir):
        if run == bad:
            raise NonFiniteLossError("broken\nweights")
        return True

    monkeypatch.setattr("src.train.finish", finish)
    [(name, error)] = train_stage(sweep, "ceilings", tmp_path, 0, 1)
    assert (name, str(error)) == (bad.display_name, "broken\nweights")
    told = capsys.readouterr().out
    assert f"{bad.display_name}: FAILED, broken weights\n" in told
    assert "3 trained, 0 done before, 1 failed" in told


def test_a_full_disk_stops_the_stage(plan, monkeypatch, tmp_path):
    def finish(run, sweep, runs_dir):
        raise OSError(28, "No space left on device", "file")

    monkeypatch.setattr("src.train.finish", finish)
    with pytest.raises(OSError, match="No space left"):
        train_stage(plan(), "teachers", tmp_path, 0, 1)


def test_students_without_their_teacher_say_which_script_comes_first(plan, tmp_path):
    failed = train_stage(plan(), "students", tmp_path / "runs", 0, 1)
    assert len(failed) == 8
    assert all("is not finished: run ./train_teacher_model.sh tiny first" in str(error)
               for _, error in failed)
