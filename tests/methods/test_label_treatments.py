"""Label treatments: closed forms, what none may do, and a student of several teachers from its
labels to its PGR."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from configs.schema import ExperimentConfig, MethodConfig
from src.common.errors import UserError
from src.evaluation.one_model import evaluate_one
from src.methods.label_treatments import TREATMENTS
from src.methods.labelling import ORACLE, check_treatments, treat
from src.methods.log_odds import log_odds, surest, temperature
from src.scoring.labels import labels_for
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of, train_all

DRAW = np.random.default_rng(0)
LABELS = DRAW.uniform(size=(3, 50))
GIVEN = {"label": LABELS[0], "labels": LABELS, "earlier": DRAW.uniform(size=50),
         "val_label": DRAW.uniform(size=20), "seed": 0, "truth": DRAW.integers(2, size=50) * 1.0,
         "features": DRAW.normal(size=(50, 4)), "val_features": DRAW.normal(size=(20, 4)),
         "prompt": np.arange(50) // 2}
SIDED = ("label", "labels", "earlier", "truth")
"""What is P(left > right) of the same pairs."""
METHODS = [name for name in TREATMENTS if "truth" not in TREATMENTS.asks(name)]


def treated(name, given=GIVEN, **options):
    """What the treatment `name` makes of `given`."""
    return treat(MethodConfig("m", treatment=name, treatment_options=options), given)


def beside_labels(taught):
    """Weights, choices and what was found, which sides must not touch."""
    values = {**vars(taught), "notes": list(taught.notes.values())}
    return [np.ones(1) if value is None else value for name, value in values.items()
            if name != "labels"]


@pytest.mark.parametrize("name", TREATMENTS)
def test_pairs_whose_sides_are_swapped_have_their_own_labels_swapped_and_nothing_else(name):
    """Any of them and not the others: a statistic over pairs would let the human label through."""
    swapped = np.random.default_rng(1).random(50) < 0.5
    turned = {key: np.where(swapped, 1 - value, value) if key in SIDED else value
              for key, value in GIVEN.items()}
    turned["features"] = np.where(swapped[:, None], -1, 1) * GIVEN["features"]
    there, back = treated(name), treated(name, turned)
    np.testing.assert_allclose(back.labels, np.where(swapped, 1 - there.labels, there.labels),
                               atol=1e-9)
    for one, other in zip(beside_labels(there), beside_labels(back), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("name", TREATMENTS)
@pytest.mark.parametrize("level", [[0.0, 1.0, 0.5], [0.5] * 3, [1.0] * 3], ids=str)
def test_labels_stay_probabilities_and_weights_have_a_mean_of_1_over_what_is_kept(name, level):
    extreme = np.array(level)
    given = GIVEN | {"label": extreme, "labels": np.stack([extreme] * 2), "earlier": extreme,
                     "val_label": extreme, "truth": np.ones(3),
                     "features": GIVEN["features"][:3], "val_features": GIVEN["features"][:3],
                     "prompt": np.arange(3)}
    for taught in (treated(name), treated(name, given)):
        assert ((taught.labels >= 0) & (taught.labels <= 1)).all()
        kept = np.ones(len(taught.labels), bool) if taught.kept is None else taught.kept
        assert kept.any() and (taught.first is None or taught.first.any())
        if taught.weights is not None:
            assert taught.weights[kept].mean() == pytest.approx(1) and (taught.weights >= 0).all()


def test_the_mean_margin_is_the_sigmoid_of_the_mean_log_odds():
    np.testing.assert_allclose(treated("mean_margin").labels, expit(logit(LABELS).mean(axis=0)),
                               atol=1e-12)
    equal = treated("mean_margin", {"labels": np.stack([LABELS[0]] * 2)})
    np.testing.assert_allclose(equal.labels, LABELS[0], atol=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.1, 1.0, 0.001])
def test_the_surest_are_those_beyond_a_quantile_of_confidence(share):
    count = max(1, round(50 * share))
    confidence = np.maximum(LABELS[0], 1 - LABELS[0])
    expected = confidence >= np.sort(confidence)[-count]
    assert surest(LABELS[0], share).tolist() == expected.tolist() and expected.sum() == count
    assert treated("confident", keep_share=share).kept.tolist() == expected.tolist()
    assert treated("curriculum", share=share).first.tolist() == expected.tolist()


def test_confidence_weights_are_cw_po_s():
    """Their batch loss, sum(C l) / sum(C), over the whole split."""
    losses, size = DRAW.random(50), 2 * (np.maximum(LABELS[0], 1 - LABELS[0]) - 0.5)
    found = (treated("confidence_weights").weights * losses).mean()
    assert found == pytest.approx((size * losses).sum() / size.sum())
    assert treated("confidence_weights", power=0.0).weights.tolist() == [1.0] * 50


@pytest.mark.parametrize("confidence", [0.55, 0.73, 0.8])
def test_the_calibrated_mean_confidence_on_val_is_what_was_asked_for(confidence):
    found = treated("calibrated", GIVEN | {"label": GIVEN["val_label"]}, confidence=confidence)
    assert np.maximum(found.labels, 1 - found.labels).mean() == pytest.approx(confidence)
    ratio = log_odds(treated("calibrated", confidence=confidence).labels) / log_odds(LABELS[0])
    np.testing.assert_allclose(ratio, ratio[0])


def test_the_temperature_is_known_where_all_margins_are_one_and_1_where_there_is_none():
    assert temperature(np.array([3.0, -3.0]), expit(1.5)) == pytest.approx(2.0)
    assert temperature(np.zeros(3), 0.7) == 1.0
    assert temperature(np.array([0.0, 1.0]), 0.9) == 1.0  # no T makes more than 0.75 of it


def test_relabelled_pairs_are_those_that_were_dropped():
    kept = treated("confident", keep_share=0.3).kept
    found = treated("relabel", share=0.3).labels
    assert found[kept].tolist() == LABELS[0][kept].tolist()
    assert found[~kept].tolist() == GIVEN["earlier"][~kept].tolist()


def test_shuffled_labels_are_as_sure_and_say_nothing():
    label = np.random.default_rng(3).uniform(size=20_000)
    found = treated("shuffled", GIVEN | {"label": label}).labels
    np.testing.assert_allclose(np.sort(np.abs(found - 0.5)), np.sort(np.abs(label - 0.5)),
                               atol=1e-12)
    for one in (label, np.abs(label - 0.5)):
        other = found if one is label else np.abs(found - 0.5)
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert (found != treated("shuffled", GIVEN | {"label": label, "seed": 1}).labels).any()


def test_noisy_truth_errs_as_often_as_the_teacher_and_on_pairs_drawn_by_lot():
    truth = np.random.default_rng(4).integers(2, size=4_000) * 1.0
    label = np.clip(truth + np.where(np.arange(4_000) < 1_000, 1 - 2 * truth, 0), 0.1, 0.9)
    found = treated("noisy_truth", {"label": label, "truth": truth, "seed": 0}).labels
    wrong = found != truth
    assert wrong.sum() == 1_000 and set(found) == {0.0, 1.0}
    assert 200 < wrong[:1_000].sum() < 300


def refused(message, *methods, teachers=2):
    with pytest.raises(UserError, match=message):
        check_treatments(methods, teachers, "e")


def test_a_treatment_without_code_its_options_or_its_teachers_is_refused():
    refused("e: method a: treatment 'vote' is none of as_is, ", MethodConfig("a", "soft_bt",
                                                                               treatment="vote"))
    refused("is of several teachers, and there is one", MethodConfig("a", treatment="mean_margin"),
            teachers=1)
    refused("e: method a: treatment_options: keep_share 0.* must be above 0",
            MethodConfig("a", treatment="confident", treatment_options={"keep_share": 0}))
    refused("confidence 1.0 must be below 1",
            MethodConfig("a", treatment="calibrated", treatment_options={"confidence": 1.0}))
    refused("e: method a: treatment 'curriculum' gives pairs an order, and learner probe takes all "
            "at once: leave out learner", MethodConfig("a", treatment="curriculum",
                                                       learner="probe"))


def test_a_treatment_that_learns_from_an_earlier_student_says_whose_and_no_other_does():
    refused("'relabel' learns from an earlier student: name its method under after",
            MethodConfig("a", treatment="relabel"))
    refused("'as_is' learns from no earlier student: leave out after a", MethodConfig("a"),
            MethodConfig("b", after="a"))
    both = MethodConfig("both", treatment="mean_margin")
    refused("'relabel' is of one teacher, and both, which it is after, of several", both,
            MethodConfig("a", treatment="relabel", after="both"))
    check_treatments([both, MethodConfig("a", treatment="strong_to_strong", after="both")], 2, "e")


@pytest.mark.parametrize("after", ["b", "c", "none"])
def test_an_earlier_method_stands_above(after):
    values = {"name": "e", "data": "d", "teachers": [{"model": "m"}], "students": [{"model": "m"}]}
    methods = [{"name": "b", "after": after}, {"name": "c"}]
    with pytest.raises(UserError, match=f"method b: after '{after}': expected one that stands abo"):
        ExperimentConfig(**values, methods=methods)


def test_what_reads_human_labels_is_marked_by_its_name():
    noisy = MethodConfig("noise", treatment="noisy_truth")
    refused("reads human labels: a name that begins with oracle marks its rows, such as "
            "oracle_noise", noisy)
    stops = MethodConfig("stop", early_stopping_evals=2, stop_on="truth")
    refused("method stop: treatment 'as_is', stop_on truth, reads human labels: a name that begins "
            "with oracle marks its rows, such as oracle_stop", stops)
    refused("treatment 'truth' gives human labels of val to stop on: leave out stop_on truth",
            dataclasses.replace(stops, treatment="truth"))
    marked = dataclasses.replace(noisy, name=f"{ORACLE}_noise")
    check_treatments([marked], 1, "e")
    refused("method b: .* reads human labels", marked,
            MethodConfig("b", treatment="strong_to_strong", after="oracle_noise"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two teachers; students of each, and of both together."""
    tiny = make_experiment(tmp_path_factory.mktemp("several"), rows=180, train_pairs=48)
    values = {"methods": [{"name": "soft"}, {"name": "both", "treatment": "mean_margin"}]}
    tiny.write_config(tiny.settings(), **values)
    prepare_data(tiny)
    train_all(tiny)
    return tiny


def test_a_student_of_all_teachers_gets_what_they_say_together(trained):
    plan = sweep_of(trained)
    student = next(run for run in plan.stage("students") if run.method.name == "both")
    assert [run.kind for run in plan.needed(student)] == ["teacher", "teacher"]
    alone = [labels_for(dataclasses.replace(student, labels=identity, method=MethodConfig("soft")),
                        plan, trained.runs_dir)[0].labels for identity in student.needs]
    together, _ = labels_for(student, plan, trained.runs_dir)
    np.testing.assert_allclose(together.labels, expit(logit(np.stack(alone)).mean(axis=0)),
                               atol=1e-9)


def test_pgr_of_a_student_of_all_teachers_starts_at_what_they_know_together(trained):
    assert in_process("eval", *trained.evaluate()) == 0
    pgr = pd.read_csv(trained.results / "pgr.csv", keep_default_na=False)
    row = pgr[pgr.method == "both"].iloc[0]
    assert row.teacher == "mean_margin-of-llama-L1+llama-L2"
    margins = []
    for folder in trained.finished("teachers"):
        table = pd.read_parquet(folder / "scores" / "test.parquet").set_index("pair_id")
        margins.append((table.reward_chosen - table.reward_rejected).sort_index())
    mean = sum(margins) / len(margins)
    assert row.weak == pytest.approx(((mean > 0) + 0.5 * (mean == 0)).mean())
    report = (trained.results / "report.md").read_text()
    assert "mean_margin" in report


def test_one_student_of_all_teachers_is_told_where_its_pgr_stands(trained):
    folder = next(path for path in trained.finished("students") if "-both-" in path.name)
    text = evaluate_one(folder, None, "test", trained.runs_dir, trained.processed.parent)
    assert "PGR of a student of 2 teachers is in its experiment's table" in text
    assert "not both are finished" not in text
