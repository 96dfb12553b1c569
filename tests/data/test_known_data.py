"""Every data set of configs/data, by name, from its fixture, through the command itself."""

import json
import sys

import pytest

from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data import preprocess
from data.files.raw_files import read_file
from data.manifest import read_manifest
from data.pairs.pair_files import read_pairs
from data.read.sources import fixture_path
from data.records import ABSENT
from src.common.errors import run_command

NAMES = sorted(path.stem for path in (CONFIG_ROOT / "data").glob("*.yaml"))
MESSAGES = {"duplicate": 1, "empty side": 1, "identical sides": 1, "missing key rejected": 1,
            "prompts are not a common prefix": 1}
TRANSCRIPT = {"identical sides": 1, "missing key rejected": 1,
              "not a Human / Assistant transcript": 1}
UNNAMED = {"better names no answer and no tie": 1}
BY_ID = {"empty side": 1, "identical sides": 1, "missing key better": 1, **UNNAMED}
ODD_ROWS = {
    **dict.fromkeys(("preference_700K", "preference_700K_1024", "ultrafeedback_standard",
                     "skywork_preferences", "capybara"), MESSAGES),
    **dict.fromkeys(("hh_single_turn", "hh_rlhf_harmless_base"),
                    {**TRANSCRIPT, "empty side": 1, "prompts are not a common prefix": 1}),
    **dict.fromkeys(("hh_rlhf_helpful_base", "hh_rlhf_helpful_online",
                     "hh_rlhf_helpful_rejection_sampled"),
                    {**TRANSCRIPT, "prompts are not a common prefix": 2}),
    **dict.fromkeys(("pku_saferlhf", "pku_saferlhf_safety", "ukp_arguments"), BY_ID),
    "demo": {"identical sides": 1, "missing key rejected": 1},
    "ultrafeedback_binarized": {"empty side": 1, "missing key prompt": 1},
    "ultrafeedback": {"duplicate": 1, "empty side": 3, "equal scores": 7, "identical sides": 1,
                      "missing key answers": 1, "no score": 3, "prompt has one answer": 1},
    "shp": {"equal scores": 1, "missing key response_b": 1, "scores too close": 2},
    "helpsteer": {"equal scores": 1, "missing key answer": 1, "no score": 1,
                  "prompt has one answer": 1},
    "helpsteer2": {"equal scores": 1, "missing key prompt": 1, "prompt has one answer": 1},
    "helpsteer3": {"identical sides": 1, "missing key better": 1, "no preference": 1, **UNNAMED,
                   "prompt ends with the assistant": 1},
    "orca_dpo": {"empty side": 1, "identical sides": 1, "missing key chosen": 1,
                 "no preference": 1},
    "mt_pref": {"empty side": 1, "identical sides": 1, "missing key rejected": 1},
    "nectar": {"equal scores": 1, "missing key answers": 1, "missing key rank": 1,
               "prompt has one answer": 1},
    "alpaca_eval": {"better is beyond the grades": 1, "identical sides": 1,
                    "missing key better": 1, "no preference": 3},
    "dpo_en_zh": {"empty side": 1, "identical sides": 1, "missing key rejected": 1,
                  "prompt ends with the assistant": 1, "unknown role": 1},
    "kto_mix": {"completion is not one message of the assistant's": 1, "no preference": 1,
                "label is neither true nor false": 1, "missing key label": 1,
                "prompt has one answer": 1},
    "kto_mix_pointwise": {"completion is not one message of the assistant's": 1,
                          "label is neither true nor false": 1, "missing key label": 1},
    "oasst1": {"no score": 1, "prompt has one answer": 2,
               "the message that it replies to is not there": 1},
    "reward_bench": {"missing key chosen": 1},
    "reward_bench_2": {"empty side": 1, "missing key chosen": 1},
    "rm_bench": {"missing key rejected": 1},
    "judge_bench": {"missing key better": 1, "no preference": 1},
    "llmbar": {"missing key output_2": 1, **UNNAMED},
    "pandalm": {"empty side": 1, "identical sides": 1, "missing key better": 1,
                "no preference": 2},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Name -> manifest and pairs of all splits, prepared once, by the documented command."""
    done = {}

    def prepare(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name) / "out"
            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
                patch.setattr(sys, "argv", ["data/preprocess.py", "--data", name, "--fixture",
                                            "--limit", "1000", "--output_dir", str(folder)])
                run_command(preprocess.main)
            assert end.value.code == 0, name
            manifest = read_manifest(folder)
            done[name] = manifest, {split: read_pairs(folder, split).to_pylist()
                                    for split in manifest["splits"]}
        return done[name]

    return prepare


def fixture_of(name):
    return fixture_path(load_config(DataConfig, name))


def made_pairs(prepared, name, row):
    """(chosen, rejected) of every pair that a row of the fixture became."""
    source = f"{fixture_of(name).name}:{row}"
    return sorted((pair["chosen"], pair["rejected"]) for pairs in prepared(name)[1].values()
                  for pair in pairs if pair["source"] == source)


def raw_row(name, row):
    return json.loads(fixture_of(name).read_text().splitlines()[row - 1])


@pytest.mark.parametrize("name", NAMES)
def test_the_fixture_fills_the_splits_that_the_config_promises(prepared, name):
    config = load_config(DataConfig, name)
    _, splits = prepared(name)
    promised = {"test"} if set(config.files) == {"test"} else {"train_1", "train_2", "test"}
    assert {split for split, pairs in splits.items() if pairs} >= promised
    for pairs in splits.values():
        absent = [ABSENT in (pair["chosen"], pair["rejected"]) for pair in pairs]
        assert all(absent) if config.pointwise else not any(absent)


@pytest.mark.parametrize("name", sorted(ODD_ROWS))
def test_every_row_of_a_fixture_is_a_pair_or_counted_under_its_reason(prepared, name):
    manifest, splits = prepared(name)
    assert {reason: entry["count"] for reason, entry in manifest["dropped"].items()} == (
        ODD_ROWS[name])
    fixture = fixture_of(name)
    rows = [number for number, _ in read_file(fixture)]
    assert manifest["source"][0]["rows"] == len(rows)
    kept = {pair["source"] for pairs in splits.values() for pair in pairs}
    dropped = {row for entry in manifest["dropped"].values() for row in entry["rows"]}
    grouped = manifest["form"] in ("one_answer", "kto", "tree")
    if not grouped and not sum(manifest["unused"].values()):
        assert kept | dropped == {f"{fixture.name}:{number}" for number in rows}


def test_nectar_compares_seven_ranked_answers_in_21_pairs(prepared):
    ranks = {item["answer"]: item["rank"] for item in raw_row("nectar", 1)["answers"]}
    pairs = made_pairs(prepared, "nectar", 1)
    assert len(pairs) == len(set(pairs)) == 21
    assert all(ranks[chosen] < ranks[rejected] for chosen, rejected in pairs)
    assert len(made_pairs(prepared, "nectar", 12)) == 20  # two of its ranks are equal


def test_nectar_prompts_are_conversations(prepared):
    prompt, = {pair["prompt"] for pairs in prepared("nectar")[1].values() for pair in pairs
               if pair["source"] == "nectar.jsonl:13"}
    assert [turn["role"] for turn in json.loads(prompt)] == ["user", "assistant", "user"]


def test_ultrafeedback_makes_six_pairs_less_the_ties_and_the_unrated(prepared):
    egg = "Put it in boiling water for eight minutes, then cool it."
    assert made_pairs(prepared, "ultrafeedback", 1) == sorted([
        (egg, "Eggs are food."), (egg, f"{egg} I hope that helps."), (egg, "Eggs are food. Or so."),
        (f"{egg} I hope that helps.", "Eggs are food."),
        (f"{egg} I hope that helps.", "Eggs are food. Or so."),
        ("Eggs are food. Or so.", "Eggs are food.")])  # means 4.75, 1.5, 4.5 and 1.75
    assert len(made_pairs(prepared, "ultrafeedback", 13)) == 5
    assert made_pairs(prepared, "ultrafeedback", 14) == sorted([
        ("February.", "February. I hope that helps."), ("February.", "June. Or so."),
        ("February. I hope that helps.", "June. Or so.")])


def test_saferlhf_goes_by_the_better_or_by_the_safer_answer(prepared):
    for name, key in (("pku_saferlhf", "better_response_id"),
                      ("pku_saferlhf_safety", "safer_response_id")):
        for number in range(1, 15):
            row = raw_row(name, number)
            best = row[key]
            assert made_pairs(prepared, name, number) == [
                (row[f"response_{best}"], row[f"response_{1 - best}"])], (name, number)
    assert made_pairs(prepared, "pku_saferlhf", 2) != made_pairs(prepared, "pku_saferlhf_safety", 2)


def test_shp_wants_more_than_twice_the_votes_and_caps_a_post_at_five_pairs(prepared):
    assert made_pairs(prepared, "shp", 15) == []  # 8 votes against 4
    assert made_pairs(prepared, "shp", 16) == [("The Loire is one.", "The Rhine.")]  # 9 against 4
    pairs = [pair for part in prepared("shp")[1].values() for pair in part]
    boats = [pair for pair in pairs if "a name for a boat" in pair["prompt"]]
    assert len(boats) == 5 and prepared("shp")[0]["unused"]["beyond pairs_per_prompt"] == 2
    assert {pair["subset"] for pair in pairs} == {"askculinary_train", "askscience_train"}


def test_helpsteer_groups_the_answers_of_a_prompt(prepared):
    egg = "Put it in boiling water for eight minutes, then cool it."
    assert made_pairs(prepared, "helpsteer", 1) == sorted([
        (egg, "Eggs are food."), (egg, f"{egg} Perhaps."), (egg, "Ask a cook."),
        (f"{egg} Perhaps.", "Eggs are food."), ("Ask a cook.", "Eggs are food.")])


def test_helpsteer3_reads_a_negative_preference_as_the_first_answer(prepared):
    row = raw_row("helpsteer3", 1)
    assert row["overall_preference"] == -3
    assert made_pairs(prepared, "helpsteer3", 1) == [(row["response1"], row["response2"])]
    row = raw_row("helpsteer3", 6)
    assert row["overall_preference"] == 2
    assert made_pairs(prepared, "helpsteer3", 6) == [(row["response2"], row["response1"])]


def test_orca_prompts_begin_with_their_system_message_where_there_is_one(prepared):
    roles = {pair["source"]: [turn["role"] for turn in json.loads(pair["prompt"])]
             for pairs in prepared("orca_dpo")[1].values() for pair in pairs}
    assert roles["orca_dpo.jsonl:1"] == ["user"]
    assert roles["orca_dpo.jsonl:2"] == ["system", "user"]


def test_judges_labels_choose_the_answer_they_name(prepared):
    row = raw_row("judge_bench", 1)
    assert row["label"] == "B>A"
    assert made_pairs(prepared, "judge_bench", 1) == [(row["response_B"], row["response_A"])]
    row = raw_row("llmbar", 2)
    assert row["label"] == 1
    assert made_pairs(prepared, "llmbar", 2) == [(row["output_1"], row["output_2"])]
    row = raw_row("pandalm", 4)
    assert [row[f"annotator{i}"] for i in (1, 2, 3)] == [2, 2, 1]
    assert made_pairs(prepared, "pandalm", 4) == [(row["response2"], row["response1"])]


def test_pandalm_prompts_leave_an_empty_input_out(prepared):
    prompts = {pair["source"]: json.loads(pair["prompt"])[0]["content"]
               for pair in prepared("pandalm")[1]["test"]}
    assert prompts["pandalm.jsonl:1"] == "How do I boil an egg?\n\nCase 0."
    assert prompts["pandalm.jsonl:2"] == "Name a river in France."


def test_alpaca_eval_takes_the_answer_that_the_grade_is_nearer_to(prepared):
    for number in range(1, 17):
        row = raw_row("alpaca_eval", number)
        sides = (row["output_1"], row["output_2"])
        assert made_pairs(prepared, "alpaca_eval", number) == [
            sides if row["preference"] < 1.5 else sides[::-1]]


def test_conversations_of_sharegpt_keep_their_turns_and_their_system_message(prepared):
    roles = {pair["source"]: [turn["role"] for turn in json.loads(pair["prompt"])]
             for pairs in prepared("dpo_en_zh")[1].values() for pair in pairs}
    assert [roles[f"dpo_en_zh.jsonl:{number}"] for number in (1, 2, 3)] == [
        ["user"], ["user", "assistant", "user"], ["system", "user"]]


def test_kto_pairs_right_with_wrong_completions_wherever_they_stand(prepared):
    first = raw_row("kto_mix", 1)["completion"][0]["content"]
    others = {raw_row("kto_mix", number)["completion"][0]["content"] for number in (17, 18)}
    assert made_pairs(prepared, "kto_mix", 1) == sorted(
        (right, "Eggs are food.") for right in {first, *others} - {"Eggs are food."})
    assert len(made_pairs(prepared, "kto_mix", 2)) == 1


def test_kto_pointwise_labels_each_completion_as_its_row_does(prepared):
    for number in range(1, 34):
        row = raw_row("kto_mix", number)
        text = row["completion"][0]["content"]
        assert made_pairs(prepared, "kto_mix_pointwise", number) == [
            (text, ABSENT) if row["label"] else (ABSENT, text)]


def test_openassistant_s_replies_to_one_message_are_compared_by_rank(prepared):
    rows = [json.loads(line) for line in fixture_of("oasst1").read_text().splitlines()]
    for number, asked in enumerate(rows, 1):
        ranks = {row["rank"]: row["text"] for row in rows
                 if row["parent_id"] == asked["message_id"] and row["rank"] is not None}
        expected = [(ranks[i], ranks[j]) for i in ranks for j in ranks if i < j]
        assert made_pairs(prepared, "oasst1", number) == sorted(expected)
    prompts = {pair["prompt"] for pairs in prepared("oasst1")[1].values() for pair in pairs}
    assert {tuple(turn["role"] for turn in json.loads(prompt)) for prompt in prompts} == {
        ("user",), ("user", "assistant", "user")}


def test_benchmarks_keep_their_subsets_and_compare_right_with_wrong(prepared):
    assert len(made_pairs(prepared, "rm_bench", 1)) == 9
    assert len(made_pairs(prepared, "reward_bench_2", 1)) == 3
    assert len(made_pairs(prepared, "reward_bench_2", 12)) == 6  # three right, two wrong
    assert {pair["subset"] for pair in prepared("reward_bench_2")[1]["test"]} == {
        "Factuality", "Precise IF", "Math", "Safety", "Focus", "Ties"}
