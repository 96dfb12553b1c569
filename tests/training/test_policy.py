"""What policies learn from: rows of token ids, and what is refused before anything is trained."""

import numpy as np
import pytest

from configs.policy_schema import DpoConfig, PoliciesConfig
from configs.schema import ExperimentConfig, load_config, load_with_policies
from data.tokens.formatting import answer_end, encode_pair, load_tokenizer
from data.tokens.tokenised import IDS
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.training.policy.rows import answer_rows, ended, preference_rows
from src.training.policy.tune import micro_batch
from tests.tiny_data import gpt2_like, llama_like, save

END = 9


class Pairs(list):
    """What is read of a TokenisedSplit."""

    def ids(self, rows, columns):
        return [np.array(self[row][IDS[column]], np.int32)
                for row, column in zip(rows, columns, strict=True)]


PAIRS = Pairs([{"prompt_ids": [1, 2], "chosen_ids": [3, END, 8], "rejected_ids": [4, 5]},
         {"prompt_ids": [1, 2], "chosen_ids": [3, END, 8], "rejected_ids": [6]},
         {"prompt_ids": [7], "chosen_ids": [3, 3, 3, 3], "rejected_ids": [4]},
         {"prompt_ids": [7], "chosen_ids": [5], "rejected_ids": []},
         {"prompt_ids": [7], "chosen_ids": [5], "rejected_ids": [4]}])


def test_labels_flipped_give_the_mirrored_preference():
    labels = np.array([0.9, 0.2, 0.9, 0.9, 0.5])
    one, other = (preference_rows(PAIRS, each, END, 3) for each in (labels, 1 - labels))
    assert one.rows == [
        {"prompt_ids": [1, 2], "chosen_ids": [3, END], "rejected_ids": [4, 5, END]},
        {"prompt_ids": [1, 2], "chosen_ids": [6, END], "rejected_ids": [3, END]}]
    mirrored = [{**row, "chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]}
                for row in other.rows]
    assert mirrored == one.rows
    assert one.left_out == other.left_out == {
        "pairs without preference": 1, "pairs of one side": 1, "pairs too long": 1}


def test_fine_tuning_takes_each_chosen_answer_of_a_prompt_once_and_learns_the_answer_alone():
    found = answer_rows(PAIRS, END, 3)
    assert found.rows == [{"input_ids": [1, 2, 3, END], "labels": [-100, -100, 3, END]},
                          {"input_ids": [7, 5, END], "labels": [-100, 5, END]}]
    assert found.left_out == {"answers too long": 1}


def test_the_pairs_that_are_drawn_do_not_depend_on_the_labels():
    pairs = Pairs({"prompt_ids": [i], "chosen_ids": [100 + i], "rejected_ids": [200 + i]}
                  for i in range(20))
    one, other, again = (
        [row["prompt_ids"] for row in preference_rows(pairs, labels, END, 3, 8, seed).rows]
        for labels, seed in ((np.ones(20), 1), (np.zeros(20), 1), (np.ones(20), 2)))
    assert one == other != again and len(one) == len(again) == 8
    assert len(answer_rows(pairs, END, 3, 8).rows) == 8


def test_no_rows_at_all_are_told_with_the_remedy():
    with pytest.raises(UserError, match="5 pairs too long.*raise policies.max_new_tokens"):
        preference_rows(Pairs([PAIRS[2]] * 5), np.ones(5), END, 2)


@pytest.mark.parametrize("template", ["the model's", "words.jinja", "chatml.jinja"])
def test_an_answer_ends_with_the_template_s_own_token_or_with_the_end_of_text(tmp_path, template):
    folder = save(llama_like(pad_token="<|end|>") if template == "the model's" else gpt2_like(
        "{{ '' }}"), tmp_path)
    tokenizer = load_tokenizer(folder, "" if template == "the model's" else template)
    end = answer_end(tokenizer)
    assert end == tokenizer.eos_token_id
    answer = encode_pair(tokenizer, [{"role": "user", "content": "a?"}], "one", "two")[1]
    assert ended(answer, end).count(end) == 1 and ended(answer, end)[-1] == end


def test_an_unknown_word_is_no_end_of_an_answer():
    tokenizer = load_tokenizer(REPO_ROOT / "model" / "demo")  # of few words, not "This"
    assert answer_end(tokenizer) == tokenizer.eos_token_id != tokenizer.unk_token_id


def test_micro_batches_divide_the_batch_and_hold_few_enough_tokens():
    rows = [{"prompt_ids": [1] * 10, "chosen_ids": [1] * 20, "rejected_ids": [1] * 10}]
    assert micro_batch(rows, 32, 400) == 8 and micro_batch(rows, 32, 1) == 1
    assert micro_batch([{"input_ids": [1] * 10, "labels": [1] * 10}], 12, 70) == 6


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_label_smoothing_is_refused_where_the_library_passes_over_it(loss):
    with pytest.raises(UserError, match=f"label_smoothing 0.1 has no effect on loss {loss}: take "
                       "loss robust, or leave it out"):
        DpoConfig(loss=loss, label_smoothing=0.1)
    assert DpoConfig(loss="robust", label_smoothing=0.1).label_smoothing == 0.1


def test_a_judge_that_labels_is_refused():
    with pytest.raises(UserError, match="the judge, student, labels for policies too"):
        PoliciesConfig(model="demo", judge="student")
    assert PoliciesConfig(model="demo", judge="student", labels=["gt", "teacher"]).judge


def test_demo_is_short_for_the_experiment_that_has_its_policies():
    for short in ("demo", "smollm2"):  # of which the second is no experiment by itself
        assert load_with_policies(short) == load_config(ExperimentConfig, f"{short}_dpo")
    with pytest.raises(UserError, match="experiment sciq has no block `policies`"):
        load_with_policies("sciq")


def test_reward_models_of_the_demo_are_those_of_its_policies():
    demo, dpo = (load_config(ExperimentConfig, name) for name in ("demo", "demo_dpo"))
    assert (dpo.data, dpo.seeds, dpo.train) == (demo.data, demo.seeds, demo.train)
    assert dpo.methods[0] in demo.methods
    assert set(dpo.teachers[0].layers) <= set(demo.teachers[0].layers)
    assert (REPO_ROOT / "dpo.sh").is_file()
