"""Prompts that share a run of words with an evaluation set leave the splits; brute force agrees."""

import itertools
import json
import random
import string
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

import data.pairs.decontaminate
from configs.schema import DataConfig
from data.pairs.build import build_pairs
from data.pairs.decontaminate import RunSet, drop_overlaps, run_hashes, words_of
from data.pairs.pair_files import read_pairs
from data.prepare import prepare
from data.records import SPLITS
from data.samples import print_summary
from src.common.errors import UserError
from tests.tiny_data import write_jsonl

WORDS = ["red", "Blue,", "GREEN", "don't", "well-known", "no.", "été", "中文", "1", "..."]


def slow_words(text):
    """By character: lower case, punctuation out, parted by white space."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return tuple(kept.split()) or (text.strip(),)


def slow_runs(text, n):
    """All runs as tuples of words."""
    words = slow_words(text)
    if len(words) < n:
        return {words}
    return {words[i:i + n] for i in range(len(words) - n + 1)}


def made_texts(count, longest, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 13])
def test_overlaps_are_those_that_sets_of_word_tuples_give(n):
    known, asked = made_texts(40, 9, seed=n), made_texts(300, 30, seed=100 + n)
    runs = set().union(*(slow_runs(text, n) for text in known))
    expected = [bool(slow_runs(text, n) & runs) for text in asked]
    found = RunSet([known[:13], known[13:]], n)
    assert found.overlaps(asked).tolist() == expected
    assert (len(found), found.texts) == (len(runs), 40)
    assert n == 13 or 0 < sum(expected) < 300 or n == 1


def test_as_many_hashes_as_runs_and_each_at_its_text():
    texts = made_texts(50, 20, seed=1)
    hashes, places = run_hashes(texts, 4)
    expected = [max(len(slow_words(text)) - 3, 1) for text in texts]
    assert np.bincount(places).tolist() == expected
    distinct = set().union(*(slow_runs(text, 4) for text in texts))
    assert len(set(hashes.tolist())) == len(distinct)


def test_case_and_punctuation_do_not_count_and_order_does():
    known = RunSet([["The quick, brown fox!"]], 3)
    asked = ["so THE QUICK BROWN dog", "quick the brown fox", "the quick", "the quick brow n"]
    assert known.overlaps(asked).tolist() == [True, False, False, False]
    assert words_of("Don't_stop... (now)") == ["dontstop", "now"]


def test_an_accent_is_the_same_as_one_character_and_as_two():
    text = "Où étaient les élèves de Zoë ?"
    apart = unicodedata.normalize("NFD", text)
    assert apart != text and words_of(apart) == words_of(text)
    for known, asked in ((text, apart), (apart, text)):
        assert RunSet([[known]], 3).overlaps([asked]).tolist() == [True]


def test_a_short_prompt_matches_only_the_whole_of_another():
    known = RunSet([["What is it?", "one two three four five"]], 5)
    asked = ["what is it", "what is", "and what is it", "two three four", "?!", ""]
    assert known.overlaps(asked).tolist() == [True, False, False, False, False, False]
    assert RunSet([["?!"]], 5).overlaps(["?!", "!?", "?! x"]).tolist() == [True, False, False]


def test_an_empty_set_overlaps_with_nothing():
    assert RunSet([], 3).overlaps(["a b c", "d"]).tolist() == [False, False]


def prompts_of(*texts):
    return pa.chunked_array([[json.dumps([{"role": "user", "content": t}]) for t in texts]])


def drop(prompts, splits, benchmarks=None, n=3, **changes):
    """Split names after cleaning ("" where the pair went), and the counts."""
    config = DataConfig(**{"name": "mine", "path": "x", "ngram": n, **changes})
    split = np.array([SPLITS.index(name) for name in splits], np.int8)
    reason = np.full(len(split), -1, np.int8)
    counts = drop_overlaps(prompts, benchmarks or {}, config, split, reason)
    assert ((split == -1) == (reason >= 0)).all()
    return [SPLITS[code] if code >= 0 else "" for code in split], counts


def test_a_benchmark_cleans_every_split_and_counts_each():
    prompts = prompts_of("a b c d", "x a b c", "e f g", "a b", "b c d")
    splits = ["train_1", "test", "val", "train_2", "train_2"]
    benchmark = RunSet([["a b c", "b c d"]], 3)
    left, counts = drop(prompts, splits, {"bench": benchmark})
    assert left == ["", "", "val", "train_2", ""]
    assert counts == {"bench": {"prompts": 2, "runs": 2, "pairs": {
        "train_1": 1, "train_2": 1, "val": 0, "test": 1}}}


def test_a_pair_that_overlaps_two_benchmarks_counts_for_both():
    sets = {"one": RunSet([["a b c"]], 3), "two": RunSet([["b c d"]], 3)}
    left, counts = drop(prompts_of("a b c d", "b c d e"), ["val", "val"], sets)
    assert left == ["", ""]
    assert [counts[name]["pairs"]["val"] for name in sets] == [1, 2]


def test_own_test_prompts_are_near_no_training_prompt_of_a_mixture_and_test_stays():
    prompts = prompts_of("one two three four", "zero one two three", "two three four!", "other",
                         "two three", "Other.", "three four five")
    splits = ["test", "train_1", "train_2", "test", "val", "val", "train_1"]
    for changes in ({"path": "", "sources": ("a",)}, {"decontaminate": ("mine",)}):
        left, counts = drop(prompts, splits, **changes)
        assert left == ["test", "", "", "test", "val", "", "train_1"]
        assert counts == {"mine: test": {"prompts": 2, "runs": 3, "pairs": {
            "train_1": 1, "train_2": 1, "val": 1, "test": 0}}}
    assert drop(prompts, splits) == (splits, {})


def test_what_a_benchmark_takes_out_of_test_cleans_no_training():
    prompts = prompts_of("a b c x y z", "x y z", "a b c")
    benchmark = {"bench": RunSet([["a b c"]], 3)}
    left, _ = drop(prompts, ["test", "train_1", "train_1"], benchmark, decontaminate=("mine",))
    assert left == ["", "train_1", ""]


def test_system_messages_do_not_count_and_earlier_turns_do():
    def prompt(*turns):
        return json.dumps([{"role": role, "content": text} for role, text in turns])

    system = ("system", "you are a helpful one")
    prompts = pa.chunked_array([[prompt(system, ("user", "who is it"), ("assistant", "a b c"),
                                        ("user", "d")),
                                 prompt(system, ("user", "a b c")), prompt(system, ("user", "e"))]])
    left, _ = drop(prompts, ["test", "train_1", "train_2"], decontaminate=("mine",))
    assert left == ["test", "", "train_2"]


def test_the_result_does_not_depend_on_how_texts_are_batched(monkeypatch):
    texts = made_texts(120, 12, seed=5)
    splits = [SPLITS[i % 4] for i in range(120)]
    results = []
    for batch in (1, 7, 1_000):
        monkeypatch.setattr(data.pairs.decontaminate, "BATCH", batch)
        results.append(drop(prompts_of(*texts), splits, {"b": RunSet([texts[:3]], 4)}, n=4,
                            decontaminate=("mine",)))
    assert results[0] == results[1] == results[2]
    assert 0 < results[0][0].count("") < 120


def numbered(count, words=20):
    """Rows whose prompts have no two words in common."""
    return [{"prompt": " ".join(f"w{i}x{k}" for k in range(words)), "chosen": f"good {i}",
             "rejected": f"bad {i}"} for i in range(count)]


def test_preprocessing_leaves_no_shared_run_between_test_and_training(tmp_path, capsys):
    rows = numbered(200)
    for i, j in itertools.pairwise(range(0, 200, 2)):  # the middle of one in the other
        shared = rows[i]["prompt"].split()[4:4 + 6 + i % 5]
        rows[j]["prompt"] += " " + " ".join(shared)
    raw = write_jsonl(tmp_path / "raw.jsonl", rows)
    config = DataConfig(name="mine", path=str(raw), ngram=8, test_pairs=40, val_pairs=10,
                        decontaminate=("mine",))
    manifest, _ = prepare(config, tmp_path / "out", [])
    prompts = {name: [json.loads(p)[0]["content"] for p in
                      read_pairs(tmp_path / "out", name)["prompt"].to_pylist()] for name in SPLITS}
    test = set().union(*(slow_runs(text, 8) for text in prompts["test"]))
    training = [text for name in SPLITS[:3] for text in prompts[name]]
    assert len(prompts["test"]) == 40 and not any(slow_runs(text, 8) & test for text in training)
    gone = [row["prompt"] for row in rows if row["prompt"] not in {*training, *prompts["test"]}]
    assert gone and all(slow_runs(text, 8) & test for text in gone)
    counted = manifest["decontaminated"]["mine: test"]["pairs"]
    assert sum(counted.values()) == len(gone) == manifest["dropped"]["prompt overlaps test"][
        "count"]
    print_summary(tmp_path, manifest)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mine:", "test", "40", *(str(counted[name]) for name in SPLITS)] in lines


def test_train_pairs_are_reached_with_what_is_clean(tmp_path):
    rows = numbered(200)
    raw = write_jsonl(tmp_path / "raw.jsonl", rows)
    bench = write_jsonl(tmp_path / "bench.jsonl", rows[:60])
    (tmp_path / "bench.yaml").write_text(f"path: {bench}\n")
    config = DataConfig(name="mine", path=str(raw), test_pairs=20, val_pairs=5, train_pairs=50,
                        decontaminate=(str(tmp_path / "bench.yaml"),))
    report = build_pairs(config, tmp_path / "out")
    assert [read_pairs(tmp_path / "out", name).num_rows for name in ("train_1", "train_2")] == [
        50, 50]
    counts = report.decontaminated[str(tmp_path / "bench.yaml")]
    assert counts["prompts"] == 60 and sum(counts["pairs"].values()) == 60


def test_an_evaluation_set_s_test_file_counts_and_its_training_file_does_not(tmp_path):
    rows = numbered(100)
    raw = write_jsonl(tmp_path / "raw.jsonl", rows)
    for name, part in (("train", rows[:30]), ("test", rows[30:40])):
        write_jsonl(tmp_path / f"{name}.jsonl", part)
    (tmp_path / "bench.yaml").write_text(
        f"files: {{train: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl}}\n")
    report = build_pairs(DataConfig(name="mine", path=str(raw), test_pairs=20, val_pairs=5,
                                    decontaminate=(str(tmp_path / "bench.yaml"),)),
                         tmp_path / "out")
    assert report.dropped["prompt overlaps a benchmark"]["rows"] == [
        f"raw.jsonl:{i}" for i in range(31, 41)]


def test_a_benchmark_that_cannot_be_read_stops_at_once_with_a_remedy(tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", numbered(50))
    (tmp_path / "gone.yaml").write_text(f"path: {tmp_path}/gone.jsonl\n")
    for name, message in ((str(tmp_path / "gone.yaml"), "no such file"),
                          ("no_such_bench", "no data config")):
        with pytest.raises(UserError, match=f"decontaminate: .*{message}.*leave it out"):
            build_pairs(DataConfig(name="mine", path=str(raw), decontaminate=(name,)),
                        tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_benchmark_without_a_readable_prompt_stops_and_does_not_pass_for_one_without_overlaps(
        tmp_path):
    rows = numbered(50)
    raw = write_jsonl(tmp_path / "raw.jsonl", rows)
    bench = write_jsonl(tmp_path / "bench.jsonl", [{"Prompt" if key == "prompt" else key: value
                                                    for key, value in row.items()} for row in rows])
    (tmp_path / "bench.yaml").write_text(f"path: {bench}\nform: prompt_answers\n")
    with pytest.raises(UserError, match="decontaminate: .*bench.jsonl: no prompt in any of 50 rows "
                                        r"as form prompt_answers \(row 1: missing key prompt\)"):
        build_pairs(DataConfig(name="mine", path=str(raw),
                               decontaminate=(str(tmp_path / "bench.yaml"),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
