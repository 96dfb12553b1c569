"""The benchmark of preprocessing: the rows it makes, and what it sees of a command from outside."""

import json
import os
import subprocess
import sys

import pytest

from speed import preprocess_rate
from speed.mixes import PROMPT_WORDS, RESPONSE_WORDS, write_raw_rows
from speed.preparing.watched import Phases, Run, read_memory
from src.common.errors import UserError


def made(path, pairs, seed):
    write_raw_rows(path, pairs, seed)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_made_rows_have_two_pairs_a_prompt_the_claimed_lengths_and_are_fixed_by_the_seed(tmp_path):
    rows = made(tmp_path / "a", 1_200, seed=1)
    prompts = [row["chosen"][0]["content"] for row in rows]
    assert prompts == [row["rejected"][0]["content"] for row in rows]
    assert len(rows) == 1_200 and len(set(prompts)) == 600
    answers = [row[side][1]["content"] for row in rows for side in ("chosen", "rejected")]
    assert len(set(answers)) == 2_400
    for texts, mean in ((set(prompts), PROMPT_WORDS), (answers, RESPONSE_WORDS)):
        assert sum(len(text.split()) for text in texts) / len(texts) == pytest.approx(mean, rel=.05)
    assert made(tmp_path / "b", 1_200, seed=1) == rows != made(tmp_path / "c", 1_200, seed=2)


def test_phases_are_told_by_the_files_of_the_command_in_its_order(tmp_path):
    out, phases = tmp_path / "out", Phases(tmp_path / "out")
    for path in (".work/spill.arrow/x", ".work/pairs/x"):
        (out / path).mkdir(parents=True)
        phases.look()
    (out / ".work").rename(tmp_path / "gone")
    (out / "pairs").mkdir()
    phases.look()
    (out / "tokens" / "key" / "test").mkdir(parents=True)
    (out / "tokens" / "key" / "test" / "part-00000-aa.arrow").touch()
    phases.look()
    assert phases.parts() == 1
    assert list(phases.ended()) == ["start", "read and split", "write pairs", "count", "tokenise"]


def test_memory_is_that_of_a_process_and_its_children():
    hold = "held = bytearray(80 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        alone, both = Run("child", 1), Run("both", 1)
        read_memory(child.pid, alone)
        read_memory(os.getpid(), both)
        child.communicate(b"\n")
    assert 80 < alone.peak_anonymous_mib <= alone.peak_mib < 200
    assert both.peak_mib > alone.peak_mib + 20


def test_too_few_pairs_are_refused_with_the_number(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["preprocess_rate.py", "--pairs", "100"])
    with pytest.raises(UserError, match="--pairs 100: expected an even number of at least 4000"):
        preprocess_rate.parse_args()


def test_a_folder_that_is_no_checkout_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["preprocess_rate.py", "--against", str(tmp_path)])
    with pytest.raises(UserError, match="no checkout of this repository"):
        preprocess_rate.parse_args()


def test_two_checkouts_are_called_in_turn_and_must_write_the_same_bytes(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "preprocess.py").touch()
    monkeypatch.setattr(sys, "argv", ["preprocess_rate.py", "--against", str(tmp_path),
                                      "--pairs", "4000"])
    args, written = preprocess_rate.parse_args(), {"same": "same"}

    def call(name, config, out, args, pairs, root):
        out.mkdir(parents=True)
        (out / "part").write_text(written.get(str(root), "same"))
        return Run(name, pairs, processor_seconds=1, peak_mib=1, peak_anonymous_mib=1)

    monkeypatch.setattr(preprocess_rate, "call", call)
    names = [run.name for run in preprocess_rate.compare(args, tmp_path)]
    assert names == ["against 0", "here 0", "against 1", "here 1"]
    written[str(tmp_path)] = "other"
    with pytest.raises(UserError, match="writes other bytes"):
        preprocess_rate.compare(args, tmp_path)
