"""The demo's world: fixed by its seed, with answers and verdicts that are what they claim."""

import hashlib
import itertools
import json
import sys
from collections import Counter

import pytest

from data import demo
from src.common.errors import UserError

QUESTIONS = demo.build_world(0)
TRUTH = {question.text: question for question in QUESTIONS}


def first_documents(count, seed=0):
    return list(itertools.islice(demo.documents(QUESTIONS, seed), count))


def test_a_seed_gives_one_world_on_every_machine():
    pairs = list(demo.preference_pairs(QUESTIONS, 0))
    text = "\n".join([json.dumps(pairs), *first_documents(1_000)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "4b7f313fdb079b1f"
    assert demo.build_world(0) == QUESTIONS


def test_another_seed_gives_another_world():
    other = demo.build_world(1)
    assert [q.text for q in other] == [q.text for q in QUESTIONS]
    differ = sum(a.truth != b.truth for a, b in zip(other, QUESTIONS, strict=True))
    assert differ > 0.9 * len(QUESTIONS)


def test_no_question_is_asked_twice():
    assert len(TRUTH) == len(QUESTIONS) == 1_980


def test_every_answer_of_a_question_is_of_one_kind_and_stands_once():
    for question in QUESTIONS:
        assert question.truth in question.answers
        assert len(set(question.answers)) == len(question.answers)
        assert sorted(question.falsehoods + [question.truth]) == sorted(question.answers)
    kinds = {frozenset(question.answers) for question in QUESTIONS}
    assert len(kinds) == len(demo.ATTRIBUTES) + 1
    assert sum(map(len, kinds)) == len(frozenset.union(*kinds))  # no word is of two kinds


def test_nobody_is_their_own_boss_or_friend():
    for person, relation in itertools.product(demo.PEOPLE, demo.RELATIONS):
        assert TRUTH[f"who is the {relation} of {person} ?"].truth != person


def test_two_hop_answers_follow_from_one_hop_answers():
    checked = 0
    for question in QUESTIONS:
        if " the boss of " in question.text and not question.text.startswith("who"):
            person = question.text.removesuffix(" ?").split(" the boss of ")[1].split()[0]
            boss = TRUTH[f"who is the boss of {person} ?"].truth
            direct = question.text.replace(f"the boss of {person}", boss)
            assert question.truth == TRUTH[direct].truth
            checked += 1
    assert checked == len(demo.PEOPLE) * demo.TWO_HOP_ATTRIBUTES


def test_chosen_is_true_and_rejected_false_of_the_same_kind():
    pairs = list(demo.preference_pairs(QUESTIONS, 0))
    for pair in pairs:
        question = TRUTH[pair["prompt"]]
        assert pair["chosen"] == f"{question.truth} ."
        assert pair["rejected"].removesuffix(" .") in question.falsehoods
    assert len({tuple(pair.values()) for pair in pairs}) == len(pairs)
    assert set(Counter(pair["prompt"] for pair in pairs).values()) == {demo.FALSE_ANSWERS}


def test_answers_cannot_be_told_apart_by_their_length():
    pairs = list(demo.preference_pairs(QUESTIONS, 0))
    assert {len(pair[side].split()) for pair in pairs for side in ("chosen", "rejected")} == {2}


def test_documents_verdicts_are_right():
    kinds = Counter()
    for document in first_documents(3_000):
        text, _, rest = document.partition(" ? ")
        answer, _, verdict = rest.partition(" .")
        question = TRUTH[f"{text} ?"]
        kinds[verdict.strip()] += 1
        assert answer in question.answers
        assert (answer == question.truth) == (verdict.strip() != "wrong")
    assert set(kinds) == {"", "right", "wrong"}
    assert all(abs(count - 1_000) < 4 * 26 for count in kinds.values())


@pytest.mark.parametrize("percent", [0, 5, 50])
def test_a_share_of_documents_has_verdicts_half_of_them_right(percent):
    kinds = Counter()
    for document in itertools.islice(demo.documents(QUESTIONS, 0, percent), 4_000):
        text, _, rest = document.partition(" ? ")
        answer, _, verdict = rest.partition(" .")
        kinds[verdict.strip()] += 1
        assert (answer == TRUTH[f"{text} ?"].truth) == (verdict.strip() != "wrong")
    half = 4_000 * percent / 200
    assert all(abs(kinds[verdict] - half) <= 4 * half ** 0.5 for verdict in ("right", "wrong"))


def test_a_share_of_verdicts_gets_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DOCUMENTS", 50)
    words = ["demo.py", "--output_dir", str(tmp_path), "--verdicts"]
    monkeypatch.setattr(sys, "argv", [*words, "0", "5"])
    demo.main()
    assert {path.name for path in tmp_path.iterdir()} >= {"verdicts_0.txt", "verdicts_5.txt"}
    monkeypatch.setattr(sys, "argv", [*words, "101"])
    with pytest.raises(UserError, match="'101': expected a whole number from 0 to 100"):
        demo.main()


def test_the_command_writes_both_files_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "DOCUMENTS", 50)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output_dir", str(tmp_path / "new"), "--text"])
    demo.main()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["pairs.jsonl", "text.txt"]
    rows = [json.loads(line) for line in (tmp_path / "new/pairs.jsonl").open(encoding="utf-8")]
    assert rows == list(demo.preference_pairs(QUESTIONS, 0))
    assert (tmp_path / "new/text.txt").read_text().splitlines() == first_documents(50)
    assert "7,920 lines" in capsys.readouterr().out


def test_a_seed_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--seed", "x"])
    with pytest.raises(UserError, match="--seed: invalid int value"):
        demo.main()
