"""eval.py --inspect: figures by hand, groups, the report, and the command on a real run."""

import dataclasses
import html
import json
import re
import shutil

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import log_loss

from configs.schema import EvalConfig
from data.pairs.pair_files import read_pairs
from src.common.errors import UserError
from src.common.owned import MARK
from src.evaluation.inspect import draw, inspect_model
from src.measures.groups import group_accuracies, quantile_bins
from src.measures.reward_profile import ScoredPairs, most_wrong, reward_figures, reward_profile
from src.reports.document import to_html, to_markdown
from src.reports.figures.parts import groups_figure, length_figure
from src.reports.figures.rewards import Subject, rewards_figure
from src.reports.figures.style import STYLE
from src.reports.reward_tables import tables
from src.reports.rewards import TEXT_HEAD, TEXT_TAIL, WrongPair, blocks, headline, shorten
from tests.figure_texts import check_texts
from tests.tiny_data import write_jsonl
from tests.tiny_experiment import in_process, preference_rows

CONFIG = EvalConfig(bootstrap_samples=200)
SUBJECT = Subject("student llama-L4-from-llama-L1-soft-s0",
                  "pairs, split test, n = 300 pairs of 150 prompts, seed 0")
REWARDS = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [4.0, -1.0]])


def scored_pairs(n=300, pointwise=0.0, subsets=("",), difficulty=False, seed=0):
    """Rewards with a taste for length; two pairs a prompt."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 60, (n, 3))
    rewards = draw.standard_normal((n, 2)) + 0.03 * lengths[:, 1:] + [0.5, 0.0]
    gone = np.flatnonzero(draw.random(n) < pointwise)
    side = draw.integers(0, 2, len(gone))
    lengths[gone, 1 + side], rewards[gone, side] = 0, 0.0
    return ScoredPairs(
        pair_ids=np.array([f"{seed}-{i}" for i in range(n)]),
        prompt_ids=np.array([str(i // 2) for i in range(n)]), rewards=rewards, lengths=lengths,
        subset=draw.choice(np.array(subsets), n),
        difficulty=draw.normal(1500, 200, n).round() if difficulty else np.full(n, np.nan))


def test_the_four_figures_and_the_ties_are_those_counted_by_hand():
    figures = reward_figures(REWARDS, np.ones((4, 2), bool))
    assert dataclasses.asdict(figures) == pytest.approx({
        "reward_mean": 11 / 8, "reward_std": np.std([2, 1, 0, 3, 1, 1, 4, -1]),
        "better_data_mean": 7 / 4, "worse_data_mean": 4 / 4,
        "worse_better_than_better_count": 1, "worse_worse_than_better_count": 2, "ties": 1})


def test_an_absent_side_enters_counts_but_no_mean():
    present = np.array([[True, True], [True, True], [True, True], [False, True]])
    rewards = REWARDS.copy()
    rewards[3, 0] = 0.0  # by definition; the text that is there is wrong, and has reward -1
    figures = reward_figures(rewards, present)
    assert figures.better_data_mean == pytest.approx(3 / 3)
    assert figures.worse_data_mean == pytest.approx(4 / 4)
    assert figures.reward_mean == pytest.approx(7 / 7)
    assert figures.worse_worse_than_better_count == 2


def test_means_of_a_side_that_no_record_has_are_missing():
    figures = reward_figures(REWARDS, np.array([[True, False]] * 4))
    assert np.isnan(figures.worse_data_mean) and figures.better_data_mean == pytest.approx(7 / 4)


def test_quantile_bins_never_part_equal_values():
    values = np.array([1.0, 1, 1, 1, 1, 1, 2, 3, 4, np.nan])
    index, names = quantile_bins(values)
    assert names == ["1", "2 to 3", "4"] and index.tolist() == [0] * 6 + [1, 1, 2, -1]
    index, names = quantile_bins(np.arange(1000.0, 1100.0))
    assert np.bincount(index).tolist() == [20] * 5 and names[0] == "1,000 to 1,019"
    assert quantile_bins(np.array([np.nan, np.nan]))[1] == []
    assert quantile_bins(np.full(5, 3.0))[1] == ["3"]


def test_accuracy_of_groups_counts_only_their_own_pairs():
    margins = np.array([1.0, -1.0, 2.0, 0.0, 5.0])
    groups = group_accuracies(margins, np.array(list("aabbc")), np.array([0, 0, 2, 2, -1]),
                              ["first", "empty", "second"], level=0.95, samples=100)
    assert [(group.name, group.n, group.accuracy.estimate) for group in groups] == [
        ("first", 2, 0.5), ("second", 2, 0.75)]
    assert np.isnan(groups[0].accuracy.low)  # one prompt: nothing to resample


def test_the_view_measures_what_independent_counts_give():
    scored = scored_pairs(subsets=("easy", "hard"), difficulty=True)
    view, margins = reward_profile(scored, CONFIG), scored.rewards[:, 0] - scored.rewards[:, 1]
    assert view.accuracy.estimate == pytest.approx(np.mean(margins > 0))
    assert view.log_loss == pytest.approx(log_loss(np.ones(300), 1 / (1 + np.exp(-margins)),
                                                   labels=[0, 1]))
    assert set(view.groups) == {"subset", "length", "difficulty"}
    for groups in view.groups.values():
        assert sum(group.n for group in groups) == 300
        assert sum(group.n * group.accuracy.estimate for group in groups) / 300 == pytest.approx(
            view.accuracy.estimate)
    for group in view.groups["subset"]:
        assert group.accuracy.estimate == pytest.approx(
            np.mean(margins[scored.subset == group.name] > 0))


def test_pairs_that_name_no_parts_are_only_divided_by_length():
    assert set(reward_profile(scored_pairs(), CONFIG).groups) == {"length"}


def test_length_comparisons_skip_pointwise_records():
    scored = scored_pairs(pointwise=0.4)
    view = reward_profile(scored, CONFIG)
    both = (scored.lengths[:, 1] > 0) & (scored.lengths[:, 2] > 0)
    assert view.bias.n == both.sum() == 300 - view.pointwise < 300
    longer = (scored.lengths[:, 1] - scored.lengths[:, 2])[both]
    assert view.bias.longer_wins.estimate == pytest.approx(
        np.mean(0.5 * (1 + np.sign(longer))))


def test_the_pairs_most_confidently_wrong_come_first_and_right_ones_never():
    scored = scored_pairs()
    places = most_wrong(scored, 7)
    margins = scored.margins
    assert margins[places].tolist() == sorted(margins)[:7] and len(most_wrong(scored, 300)) == (
        margins < 0).sum()


def report(scored, wrong=(), tmp_path=None):
    view = reward_profile(scored, CONFIG)
    figures = draw(view, scored, SUBJECT, tmp_path)
    return view, blocks(view, SUBJECT, figures, wrong, {"data": "made"})


def test_texts_are_escaped_and_the_page_stands_alone(tmp_path):
    wrong = WrongPair("abc", "f:3", -1.0, 2.0, "user: <script>alert(1)</script>", "a & b\n\n# no",
                      "")
    _, document = report(scored_pairs(), [wrong], tmp_path)
    page = to_html("Looking", document)
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page
    assert "a &amp; b" in page and "absent: a pointwise record, reward 0" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#|[\w.]+\.(?:csv|json)")', page)
    markdown = to_markdown("Looking", document)
    assert "    # no" in markdown and "\n# no" not in markdown
    for name in ("better_data_mean", "worse_data_mean", "worse_better_than_better_count",
                 "worse_worse_than_better_count"):
        assert name in page and name in markdown


def test_a_report_of_pointwise_records_alone_has_no_length_section_figures(tmp_path):
    view, document = report(scored_pairs(pointwise=1.0), tmp_path=tmp_path)
    page = to_html("Looking", document)
    assert view.bias is None and "No pair has two sides" in page
    assert "300 of 300 are pointwise records" in page
    assert not (tmp_path / "figures" / "length.png").exists()
    assert tables(view, scored_pairs(pointwise=1.0))["length_bias"].empty


def test_equal_lengths_say_that_bias_cannot_be_measured():
    scored = scored_pairs()
    scored.lengths[:, 1:] = 7
    assert "cannot be measured" in headline(reward_profile(scored, CONFIG))
    assert "favours longer answers" in headline(reward_profile(scored_pairs(), CONFIG))


def test_figures_of_an_earlier_look_do_not_stay(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "by_subset.png").touch()
    report(scored_pairs(), tmp_path=tmp_path)
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == [
        "by_length", "length", "rewards"]


def test_long_texts_keep_their_beginning_and_end():
    text = "a" * TEXT_HEAD + "b" * 40 + "c" * TEXT_TAIL
    assert shorten(text) == f"{'a' * TEXT_HEAD}\n[... 40 characters left out ...]\n" + "c" * (
        TEXT_TAIL)
    assert shorten(text[:TEXT_HEAD + TEXT_TAIL]) == text[:TEXT_HEAD + TEXT_TAIL]


SHAPES = {
    "plain": {}, "few": {"n": 12}, "pointwise": {"pointwise": 1.0},
    "parts": {"subsets": tuple(f"a-rather-long-subset-{i}" for i in range(50)),
              "difficulty": True, "pointwise": 0.2}}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_text_overlaps_or_leaves_a_figure(monkeypatch, shape):
    scored = scored_pairs(**SHAPES[shape])
    view = reward_profile(scored, CONFIG)
    with matplotlib.rc_context(STYLE):
        figures = [rewards_figure(view, scored, SUBJECT)[0]]
        figures += [groups_figure(kind, view, SUBJECT)[0] for kind in view.groups]
        if view.bias is not None:
            figures.append(length_figure(view, scored, SUBJECT)[0])
        for figure in figures:
            check_texts(figure, monkeypatch)


@pytest.fixture(scope="module")
def seen(finished, tmp_path_factory):
    """The command on a student: its run folder, its report's folder, what it printed."""
    folder = next(path for path in finished.finished("students") if "L4-from" in path.name)
    results = tmp_path_factory.mktemp("results")
    printed = inspect_model(folder, None, "test", finished.processed.parent, results, None)
    return folder, results / "tiny" / "look" / folder.name / "pairs", printed


def test_the_rewards_are_the_model_s_and_the_figures_follow_from_them(finished, seen):
    _, output, printed = seen
    rewards = pd.read_csv(output / "rewards.csv").set_index("pair_id")
    texts = read_pairs(finished.processed, "test").to_pandas().set_index("pair_id")
    assert set(rewards.index) == set(texts.index) and len(rewards) == 40
    margins = rewards.reward_chosen - rewards.reward_rejected
    summary = pd.read_csv(output / "summary.csv").set_index("figure").value
    assert summary.accuracy == pytest.approx((margins > 0).mean() + (margins == 0).mean() / 2)
    assert summary.better_data_mean == pytest.approx(rewards.reward_chosen.mean(), rel=1e-5)
    assert summary.worse_data_mean == pytest.approx(rewards.reward_rejected.mean(), rel=1e-5)
    assert summary.worse_better_than_better_count == (margins < 0).sum()
    assert summary.worse_worse_than_better_count == (margins > 0).sum()
    assert "worse_better_than_better_count" in printed and str(output / "report.html") in printed


def test_lengths_are_the_answers_tokens(finished, seen):
    """One byte is one token here, and the template closes each answer with one more."""
    rewards = pd.read_csv(seen[1] / "rewards.csv").set_index("pair_id")
    texts = read_pairs(finished.processed, "test").to_pandas().set_index("pair_id")
    difference = (texts.chosen.str.len() - texts.rejected.str.len()).loc[rewards.index]
    assert (rewards.chosen_tokens - rewards.rejected_tokens).equals(difference)


def test_the_report_shows_the_texts_of_the_pair_it_is_most_wrong_about(finished, seen):
    rewards = pd.read_csv(seen[1] / "rewards.csv").set_index("pair_id")
    worst = (rewards.reward_chosen - rewards.reward_rejected).idxmin()
    pair = read_pairs(finished.processed, "test").to_pandas().set_index("pair_id").loc[worst]
    page = (seen[1] / "report.html").read_text()
    first = page[page.index("1. margin"):page.index("2. margin")]
    for text in (worst, pair.chosen, pair.rejected, json.loads(pair.prompt)[-1]["content"]):
        assert html.escape(text) in first


def test_everything_is_written_and_nothing_into_the_run_s_folder(seen):
    folder, output, _ = seen
    assert {path.name for path in output.iterdir()} == {
        "report.html", "report.md", "meta.json", "summary.csv", "groups.csv", "length_bias.csv",
        "calibration.csv", "rewards.csv", "figures", MARK}
    assert {path.name for path in folder.iterdir() if path.is_dir()} <= {
        "scores", "weak_labels"}
    meta = json.loads((output / "meta.json").read_text())
    assert (meta["pairs"], meta["split scored"], meta["seed"]) == ("40", "test", "0")


def test_a_model_made_elsewhere_is_looked_at_on_a_file(finished, tmp_path, capsys):
    folder = tmp_path / "foreign"
    shutil.copytree(finished.finished("ceilings")[0], folder)
    for name in ("config.yaml", "DONE", "manifest.json"):
        (folder / name).unlink()
    rows = preference_rows(12, seed=5)
    rows[3]["chosen"][-1]["content"] = "word " * 200
    data = write_jsonl(tmp_path / "mine.jsonl", rows)
    arguments = ["--model", str(folder), "--inspect", *finished.folders]
    assert in_process("eval", *arguments, "--data", str(data), "--output_dir",
                      str(tmp_path / "seen")) == 0
    assert "1 too long for the model" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "seen" / "rewards.csv")) == 11
    with pytest.raises(UserError, match="--data"):
        in_process("eval", *arguments)


def test_training_pairs_are_marked_and_kept_apart(finished, seen, tmp_path):
    printed = inspect_model(seen[0], None, "train_2", finished.processed.parent, tmp_path, None)
    output = tmp_path / "tiny" / "look" / seen[0].name / "pairs-train_2"
    assert printed.startswith("! scored on train_2")
    assert all("scored on train_2" in (output / name).read_text()
               for name in ("report.html", "report.md"))


def test_pointwise_records_are_looked_at_like_pairs(finished, seen, tmp_path):
    settings = yaml.safe_load((finished.root / "pairs.yaml").read_text())
    config = tmp_path / "one_sided.yaml"
    config.write_text(yaml.safe_dump({**settings, "pointwise": True}))
    printed = inspect_model(seen[0], str(config), "test", tmp_path, tmp_path, None)
    output = tmp_path / "tiny" / "look" / seen[0].name / "one_sided"
    rewards = pd.read_csv(output / "rewards.csv")
    assert len(rewards) == 40 and ", all of them pointwise records" in printed
    absent = rewards[["chosen_tokens", "rejected_tokens"]].to_numpy() == 0
    values = rewards[["reward_chosen", "reward_rejected"]].to_numpy()
    assert (absent.sum(axis=1) == 1).all() and (values[absent] == 0).all()
    assert pd.read_csv(output / "length_bias.csv").empty
    assert "absent: a pointwise record, reward 0" in (output / "report.html").read_text()


def test_scores_that_are_there_are_read_and_not_made_again(finished, seen, tmp_path, monkeypatch):
    monkeypatch.setattr("src.scoring.pairs.score", lambda *arguments: 1 / 0)
    printed = inspect_model(seen[0], None, "test", finished.processed.parent, tmp_path, None)
    assert printed.split("report:")[0] == seen[2].split("report:")[0]
