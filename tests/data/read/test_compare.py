"""Rows become answers with values, and answers become pairs by rule, whatever the form."""

import itertools
import math
import random

import pytest

from configs.schema import DataConfig, from_dict
from data.pairs.compare import compare_answers, compared_pairs
from data.read.answers import Answers
from data.read.fields import filled
from data.read.messages import BadRow
from data.read.rows import row_to_answers
from data.read.sources import find_form, open_source, read_answers
from data.records import Pair
from src.common.errors import UserError
from tests.tiny_data import write_jsonl

ASK = ({"role": "user", "content": "Hi?"},)


def config(form="answers", **values):
    return from_dict(DataConfig, {"name": "test", "path": "x", "form": form, **values}, "test")


def pairs_of(row, **values):
    """The comparisons of one row: (chosen, rejected) or the reason why there is none."""
    made = config(**values)
    found = compare_answers(row_to_answers(row, made.form, made, "f:1"), made.compare)
    return [item if isinstance(item, str) else (item.chosen, item.rejected) for item in found]


def answers(values, scores=(), prompt="Hi?"):
    texts = tuple("abcdefgh"[:len(values)])
    return Answers(({"role": "user", "content": prompt},), texts, tuple(values), tuple(scores))


def compared(made, **compare):
    return list(compare_answers(made, config(compare=compare).compare))


def scored(*scores):
    return {"prompt": "Hi?", "answers": [{"answer": name, "score": score}
                                         for name, score in zip("abcdefgh", scores, strict=False)]}


@pytest.mark.parametrize("seed", range(5))
def test_all_takes_exactly_the_pairs_of_unequal_values(seed):
    rng = random.Random(seed)
    values = [float(rng.randrange(4)) for _ in range(7)]
    found = compared(answers(values, values))
    expected = {("abcdefg"[i], "abcdefg"[j]) for i, j in itertools.product(range(7), repeat=2)
                if values[i] > values[j]}
    pairs = [(pair.chosen, pair.rejected) for pair in found if isinstance(pair, Pair)]
    assert sorted(pairs) == sorted(expected)
    assert found.count("equal scores") == 21 - len(expected) == len(found) - len(pairs)


def test_a_score_is_the_mean_of_those_that_an_answer_has():
    ratings = [("5", "4"), ("N/A", 4), (None, "4.5"), ("", "N/A")]
    row = {"prompt": "Hi?", "list": [{"text": name, "m": {"x": x}, "y": y}
                                     for name, (x, y) in zip("abcd", ratings, strict=True)]}
    made = config(keys={"answers": "list", "answer": "text"},
                  compare={"scores": ["m.x", "y"]})
    found = row_to_answers(row, "answers", made, "f:1")
    assert found.values[:3] == found.scores[:3] == (4.5, 4.0, 4.5)
    assert math.isnan(found.values[3])
    assert [item if isinstance(item, str) else (item.chosen, item.rejected, item.score_chosen,
                                                item.score_rejected)
            for item in compare_answers(found, made.compare)] == [
        ("a", "b", 4.5, 4.0), "equal scores", "no score", ("c", "b", 4.5, 4.0), "no score",
        "no score"]


def test_a_score_that_is_no_number_makes_the_row_unusable():
    for score, reason in (("high", "wrong type of score"), (True, "wrong type of score"),
                          ("inf", "score is not a finite number")):
        with pytest.raises(BadRow, match=reason):
            pairs_of(scored(1, score))


def test_lower_rank_is_better_and_seven_answers_make_21_pairs():
    ranks = [3, 1, 7, 2, 5, 4, 6]
    row = {"prompt": "Hi?", "answers": [{"answer": f"number {rank}", "rank": float(rank)}
                                        for rank in ranks]}
    found = pairs_of(row, compare={"rule": "by_rank"})
    assert sorted(found) == sorted((f"number {i}", f"number {j}") for i in range(1, 8)
                                   for j in range(i + 1, 8))


@pytest.mark.parametrize(("value", "expected"), [
    (0, [("no", "yes")]), (1, [("yes", "no")]), (1.0, [("yes", "no")]), ("0", [("no", "yes")])])
def test_the_answer_that_better_names_is_chosen(value, expected):
    row = {"prompt": "Hi?", "r0": "no", "r1": "yes", "which": value}
    assert pairs_of(row, columns=["r0", "r1"], keys={"better": "which"},
                    compare={"rule": "by_id", "names": [["0"], ["1"]]}) == expected


def test_a_value_that_names_neither_answer_nor_tie_is_a_bad_row():
    row = {"prompt": "Hi?", "better": "B"}
    names = [["A"], ["B", "b"], ["C"]]
    compare = {"rule": "by_id", "names": names, "ties": ["tie", "0"]}
    assert pairs_of(row, texts=["x", "y", "z"], compare=compare) == [("y", "x"), ("y", "z")]
    for value in ("tie", 0, 0.0):
        assert pairs_of({**row, "better": value}, texts=["x", "y"], compare=compare) == [
            "no preference"]
    for value, reason in (("none", "names no answer and no tie"), (None, "missing key better"),
                          ("C", "not there"), ([], "wrong type of better")):
        with pytest.raises(BadRow, match=reason):
            pairs_of({**row, "better": value}, texts=["x", "y"], compare=compare)


@pytest.mark.parametrize(("votes", "expected"), [
    ((1, 1, 1), ("x", "y")), ((2, 1, 2), ("y", "x")), ((1, 0, 1), ("x", "y")),
    ((0, 0, 2), None), ((0, 1, 2), None), ((1, 2, 0), None)])
def test_most_votes_decide_and_a_draw_is_no_preference(votes, expected):
    row = {"prompt": "Hi?", **dict(zip(("a", "b", "c"), votes, strict=True))}
    values = {"texts": ["x", "y"], "compare": {"rule": "by_id", "votes": ["a", "b", "c"],
                                               "names": [["1"], ["2"]], "ties": ["0"]}}
    assert pairs_of(row, **values) == [expected or "no preference"]


@pytest.mark.parametrize(("votes", "expected"), [
    ((1, 2, 0), ("x", "y")), ((2, 0, 1), ("y", "x")), ((0, 1, 2), "no preference"),
    ((0, 2, 2), ("y", "x"))])
def test_of_votes_that_all_differ_the_first_may_count(votes, expected):
    row = {"prompt": "Hi?", **dict(zip(("a", "b", "c"), votes, strict=True))}
    compare = {"rule": "by_id", "votes": ["a", "b", "c"], "names": [["1"], ["2"]], "ties": ["0"],
               "split_votes": "first"}
    assert pairs_of(row, texts=["x", "y"], compare=compare) == [expected]


CODED = [((0, 1), "0 -> r0, 1 -> r1"), ((1, 2), "1 -> r0, 2 -> r1"),
         (("A", "B"), "A -> r0, B -> r1"), (("r0", "r1"), "r0 -> r0, r1 -> r1"),
         ((1.0, 2.0), "1 -> r0, 2 -> r1")]


@pytest.mark.parametrize(("codes", "said"), CODED)
def test_codes_of_two_answers_are_recognised_over_all_rows_and_told(tmp_path, capsys, codes, said):
    rows = [{"prompt": f"Hi {i}?", "r0": f"a{i}", "r1": f"b{i}", "which": codes[i // 150]}
            for i in range(300)]  # the second code comes late
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    made = config(path=str(path), columns=["r0", "r1"], keys={"better": "which"},
                  compare={"rule": "by_id"})
    found = [pair for _, pair in compared_pairs(open_source(str(path), made), "answers", made)]
    assert [pair.chosen[0] for pair in found] == ["a"] * 150 + ["b"] * 150
    assert f"rows.jsonl: the better answer is read as {said}" in capsys.readouterr().out


@pytest.mark.parametrize("values", [[1], [0, 1, 2], ["left", "right"], [1, 2, "tie"], [-1, 1]])
def test_codes_that_leave_a_doubt_are_refused_with_the_remedy(tmp_path, values):
    rows = [{"prompt": f"Hi {i}?", "r0": "a", "r1": "b", "better": values[i % len(values)]}
            for i in range(30)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    made = config(path=str(path), columns=["r0", "r1"], compare={"rule": "by_id"})
    with pytest.raises(UserError, match="names: .*ties: "):
        compared_pairs(open_source(str(path), made), "answers", made).__next__()


@pytest.mark.parametrize("texts", [{"columns": ["r0", "r1"]}, {"texts": ["Yes", "No"]}])
def test_true_and_false_do_not_say_which_answer_is_better_until_names_do(tmp_path, texts):
    """A column first_is_better means the reverse of one called second_is_better."""
    path = write_jsonl(tmp_path / "rows.jsonl", [
        {"prompt": f"Hi {i}?", "r0": "a", "r1": "b", "first_is_better": i % 2 == 0}
        for i in range(4)])
    values = {"path": str(path), "keys": {"better": "first_is_better"}, **texts}
    source = open_source(str(path), config(**values, compare={"rule": "by_id", "names": []}))
    with pytest.raises(UserError, match=r"'True' \(2\), 'False' \(2\), which do not say of which"
                                        r'.*names: \[\["True"\], \["False"\]\], ties'):
        next(compared_pairs(source, "answers", config(**values, compare={"rule": "by_id"})))
    made = config(**values, compare={"rule": "by_id", "names": [["True"], ["False"]]})
    first, second = texts.get("texts", "ab")
    assert [pair.chosen for _, pair in compared_pairs(source, "answers", made)] == [
        first, second] * 2


def test_a_declared_tie_does_not_stand_in_the_way_of_recognising(tmp_path):
    rows = [{"prompt": f"Hi {i}?", "r0": "a", "r1": "b", "better": i % 3} for i in range(30)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    made = config(path=str(path), columns=["r0", "r1"], compare={"rule": "by_id", "ties": ["0"]})
    found = [item if isinstance(item, str) else item.chosen for _, item in
             compared_pairs(open_source(str(path), made), "answers", made)]
    assert found == ["no preference", "a", "b"] * 10


def test_first_is_better_goes_by_the_order_alone():
    assert pairs_of({"prompt": "Hi?", "answers": ["a", "b", "c"]},
                    compare={"rule": "first_is_better"}) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_best_vs_random_picks_one_of_the_others_by_the_prompt():
    picks = []
    for i in range(200):
        made = answers((1.0, 4.0, 2.0, 3.0), (1.0, 4.0, 2.0, 3.0), f"Question {i}?")
        pair, = compared(made, take="best_vs_random")
        assert [pair] == compared(made, take="best_vs_random")
        assert pair.chosen == "b"
        picks.append(pair.rejected)
    shares = [picks.count(name) for name in "acd"]  # a fair three-sided die: 67 each, sd 6.7
    assert sum(shares) == 200 and all(abs(share - 200 / 3) < 4 * 6.7 for share in shares)


def test_best_vs_random_against_an_equal_is_no_pair():
    found = [compared(answers((2.0, 2.0, 1.0), (2.0, 2.0, 1.0), f"Question {i}?"),
                      take="best_vs_random") for i in range(60)]
    assert {(pair.chosen, pair.rejected) for pair, in found if isinstance(pair, Pair)} == {
        ("a", "c")}
    assert 10 < sum(item == ["equal scores"] for item in found) < 50


def test_best_vs_rest_is_one_pair_for_each_of_the_others():
    made = answers((1.0, 3.0, 3.0, math.nan, 2.0), (1.0, 3.0, 3.0, math.nan, 2.0))
    found = compared(made, take="best_vs_rest")
    assert [item if isinstance(item, str) else item.chosen + item.rejected for item in found] == [
        "ba", "equal scores", "no score", "be"]


@pytest.mark.parametrize(("better", "worse", "expected"), [
    (4, 2, "scores too close"), (5, 2, "pair"), (3, 2, "scores too close"), (1, 0, "pair"),
    (2, 2, "equal scores"), (4.0001, 2, "pair")])
def test_min_ratio_wants_more_than_so_many_times(better, worse, expected):
    found, = compared(answers((better, worse), (better, worse)), min_ratio=2)
    assert found == expected if expected != "pair" else isinstance(found, Pair)


def test_min_ratio_reads_the_scores_of_pairs_and_needs_them():
    row = {"prompt": "Hi?", "chosen": "a", "rejected": "b", "score_chosen": 9, "score_rejected": 4}
    assert pairs_of(row, form="prompt_answers", compare={"min_ratio": 2}) == [("a", "b")]
    assert pairs_of(row, form="prompt_answers", compare={"min_ratio": 3}) == ["scores too close"]
    assert pairs_of({**row, "score_chosen": None}, form="prompt_answers",
                    compare={"min_ratio": 2}) == ["no score"]


def test_scores_never_turn_a_given_preference_round():
    row = {"prompt": "Hi?", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2}
    assert pairs_of(row, form="prompt_answers") == [("a", "b")]


def test_lists_compare_right_answers_with_wrong_ones_only():
    row = {"prompt": "Hi?", "chosen": ["a", "b"], "rejected": ["x", "y", "z"], "id": 7,
           "subset": "Ties"}
    assert pairs_of(row, form="lists") == [(right, wrong) for right in "ab" for wrong in "xyz"]
    made = row_to_answers(row, "lists", config("lists"), "f:1")
    assert (made.values, made.row_id, made.subset) == ((1, 1, 0, 0, 0), "7", "Ties")
    assert pairs_of({**row, "chosen": "a"}, form="lists") == [("a", wrong) for wrong in "xyz"]


def test_an_empty_or_repeated_answer_costs_its_comparisons_alone():
    row = {"prompt": "Hi?", "answers": [{"answer": text, "score": score} for text, score in (
        ("good", 4), (" ", 3), ("bad", 2), ("good ", 1))]}
    assert pairs_of(row) == ["empty side", ("good", "bad"), "identical sides", "empty side",
                             "empty side", ("bad", "good ")]
    assert pairs_of(scored(1)) == ["prompt has one answer"]


def test_subset_difficulty_and_source_go_with_every_pair():
    row = {**scored(1, 2, 3), "kind": "river", "level": "7.5"}
    made = config(keys={"subset": "kind", "difficulty": "level"})
    pairs = list(compare_answers(row_to_answers(row, "answers", made, "f:9"), made.compare))
    assert {(pair.source, pair.subset, pair.difficulty) for pair in pairs} == {
        ("f:9", "river", 7.5)}
    with pytest.raises(BadRow, match="wrong type of difficulty"):
        row_to_answers({**row, "level": "hard"}, "answers", made, "f:9")


def one(prompt, response, score):
    return {"prompt": prompt, "response": response, "score": score}


def test_rows_of_one_prompt_are_compared_as_long_as_they_follow_each_other(tmp_path):
    rows = [one("A?", "a1", 1), one("A?", "a2", 3), one("A?", None, 2), one("A?", "a3", "N/A"),
            one("B?", "b1", 1), one("A?", "a4", 1), one("A?", "a5", 0)]
    made = config("one_answer", keys={"answer": "response"},
                  path=str(write_jsonl(tmp_path / "f.jsonl", rows)))
    source = open_source(made.path, made)
    found = [(number, item if isinstance(item, str) else (item.chosen, item.rejected, item.source))
             for number, item in compared_pairs(source, find_form(source, made), made)]
    assert found == [
        (3, "missing key answer"), (1, ("a2", "a1", "f.jsonl:1")), (1, "no score"),
        (1, "no score"), (5, "prompt has one answer"), (6, ("a4", "a5", "f.jsonl:6"))]
    assert source.rows_read == 7


def test_limit_stops_after_so_many_rows(tmp_path):
    rows = [one("A?", "a1", 1), one("A?", "a2", 3), one("A?", "a3", 2)]
    made = config("one_answer", keys={"answer": "response"}, limit=2,
                  path=str(write_jsonl(tmp_path / "f.jsonl", rows)))
    source = open_source(made.path, made)
    (_, item), = read_answers(source, "one_answer", made)
    assert (item.texts, source.rows_read) == (("a1", "a2"), 2)


def test_a_template_puts_columns_in_and_reads_nothing_that_a_row_holds():
    row = {"q": "What is {answer} in {0!r} {{x}}?", "meta": {"n": 3.0}, "empty": float("nan")}
    assert filled("{q} ({meta.n}) {answer}{empty} ", row, "{q}") == (
        "What is {answer} in {0!r} {{x}}? (3) {q}")
    with pytest.raises(BadRow, match="missing key other"):
        filled("{q} {other}", row)
    with pytest.raises(BadRow, match="wrong type of meta"):
        filled("{meta}", row)


def test_template_makes_prompt_and_answers():
    row = {"passage": "It rains.", "question": "Is it wet?", "better": True}
    made = config(texts=["No", "Yes"], template={"prompt": "{passage}\n{question}",
                                                 "answer": "{answer}, {passage}"},
                  compare={"rule": "by_id", "names": [["False"], ["True"]]})
    found = row_to_answers(row, "answers", made, "f:1")
    assert found.prompt == ({"role": "user", "content": "It rains.\nIs it wet?"},)
    assert (found.texts, found.values) == (("No, It rains.", "Yes, It rains."), (0, 1))


def test_a_system_message_is_read_by_its_name_or_where_keys_name_it():
    row = {"prompt": "Hi?", "system": "Be brief.", "chosen": "a", "rejected": "b"}
    without = config(keys={"system": ""})
    assert row_to_answers(row, "prompt_answers", without, "").prompt == ASK
    named = config(keys={"system": "system"})
    assert row_to_answers(row, "prompt_answers", config(), "") == (
        row_to_answers(row, "prompt_answers", named, ""))
    assert row_to_answers(row, "prompt_answers", named, "").prompt == (
        {"role": "system", "content": "Be brief."}, *ASK)
    assert row_to_answers({**row, "system": " "}, "prompt_answers", named, "").prompt == ASK


@pytest.mark.parametrize("wrong", [
    {"columns": ["a"], "compare": {"rule": "by_score"}}, {"columns": ["a"], "texts": ["b"]},
    {"compare": {"rule": "by_rank", "scores": ["a"]}}, {"compare": {"votes": ["a"]}},
    {"compare": {"min_ratio": 0.5}}, {"compare": {"rule": "best"}}, {"template": {"text": "a"}},
    {"limit": 0}])
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError):
        config(**wrong)
