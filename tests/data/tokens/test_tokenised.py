"""Tokens on disk: the right ids, the same pairs for every tokenizer, whole or not at all."""

import dataclasses
import gc
import json
import multiprocessing
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data.pairs.build
from configs.data_schema import CompareConfig
from configs.schema import DataConfig
from data.manifest import config_differences, read_manifest
from data.pairs.pair_files import read_pairs
from data.prepare import TokenizerSpec, prepare
from data.records import SPLITS
from data.tokens import tokenise
from data.tokens.formatting import encode_pair, load_tokenizer, tokenizer_key
from data.tokens.tokenised import open_split
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from tests.tiny_data import TURNS, gpt2_like, llama_like, save, text_rows, write_jsonl

REFUSES_RARE = ("{% for m in messages %}{% if 'rare' in m['content'] %}"
                "{{ raise_exception('rare') }}{% endif %}{% endfor %}" + TURNS)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(data.pairs.build, "BATCH", 10)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


class World:
    """A raw file, a folder to prepare, and two tokenizers of which the second makes more tokens."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.out = folder / "out"
        self.raw = write_jsonl(folder / "raw.jsonl", text_rows(120))
        self.llama = TokenizerSpec("llama", save(llama_like(), folder / "llama"))
        self.gpt2 = TokenizerSpec("gpt2", save(gpt2_like(), folder / "gpt2"), "chatml.jinja")

    def config(self, **changes):
        return DataConfig(**{"name": "test", "path": str(self.raw), "max_length": 10_000,
                             **changes})

    def prepare(self, *specs, out=None, num_proc=1, overwrite=False, **changes):
        return prepare(self.config(**changes), out or self.out, list(specs), num_proc, overwrite)

    def key(self, spec):
        return tokenizer_key(load_tokenizer(spec.path, spec.chat_template))

    def split(self, spec, name="train_1", out=None):
        return open_split(out or self.out, self.key(spec), name)


def row_lengths(split):
    lengths = split.lengths()
    return lengths[:, 0] + lengths[:, 1:].max(axis=1)


def all_rows(split):
    return split.rows(range(len(split)))


def test_each_row_holds_the_ids_of_its_pair(world):
    world.prepare(world.llama)
    tokenizer = load_tokenizer(world.llama.path)
    for name in SPLITS:
        split = world.split(world.llama, name)
        pairs = {row["pair_id"]: row for row in read_pairs(world.out, name).to_pylist()}
        assert set(pairs) == set(split.pair_ids) and len(split) == len(pairs)
        for i, row in enumerate(all_rows(split)):
            pair = pairs[row["pair_id"]]
            messages = [{"role": "user", "content": row_question(pair)}]
            ids = encode_pair(tokenizer, messages, pair["chosen"], pair["rejected"])
            assert (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == ids
            assert row == split[i]
            assert [view.tolist() for view in split.ids([i, i, i], [0, 1, 2])] == list(ids)
            assert split.lengths()[i].tolist() == [len(part) for part in ids]
            assert split.prompt_ids[i] == pair["prompt_id"] == row["prompt_id"]


def row_question(pair):
    return f"Question {int(pair['chosen'].split()[-1][:-1]) // 2}?"


def test_several_processes_write_what_one_writes(world, monkeypatch):
    world.prepare(world.llama)
    monkeypatch.setattr(tokenise, "write_part", in_a_worker)
    world.prepare(world.llama, out=world.folder / "parallel", num_proc=2)
    files = sorted(p.relative_to(world.out) for p in world.out.rglob("*.arrow"))
    assert len(files) == 14
    for name in files:
        assert (world.out / name).read_bytes() == (world.folder / "parallel" / name).read_bytes()


def in_a_worker(job):
    """write_part as the pool runs it; val and test have too few parts to be shared out."""
    assert multiprocessing.parent_process() or job.pairs.stem in ("val", "test")
    WRITE_PART(job)


WRITE_PART = tokenise.write_part


def test_a_pair_too_long_for_one_tokenizer_is_dropped_for_all(world):
    world.prepare(world.llama, world.gpt2)
    limit = int(np.median(row_lengths(world.split(world.gpt2))))
    out = world.folder / "limited"
    manifest, _ = world.prepare(world.llama, world.gpt2, out=out, max_length=limit)
    assert manifest["over_length"]["count"] == len(manifest["over_length"]["pair_ids"]) > 0
    for name in SPLITS:
        splits = [world.split(spec, name, out) for spec in (world.llama, world.gpt2)]
        stored = read_pairs(out, name)["pair_id"].to_pylist()
        assert splits[0].pair_ids.tolist() == splits[1].pair_ids.tolist() == stored
        assert max(row_lengths(split).max() for split in splits) <= limit
        assert not set(stored) & set(manifest["over_length"]["pair_ids"])
        assert manifest["splits"][name]["pairs"] == len(stored)
    assert sum(s["pairs"] for s in manifest["splits"].values()) + manifest[
        "over_length"]["count"] == 120


def test_tokenizers_added_one_by_one_end_in_the_same_pairs_as_together(world):
    world.prepare(world.llama, world.gpt2)
    limit = int(np.median(row_lengths(world.split(world.gpt2))))
    outs = [world.folder / name for name in ("together", "either", "other")]
    for out, calls in zip(outs, ([[world.llama, world.gpt2]], [[world.llama], [world.gpt2]],
                                 [[], [world.gpt2], [world.llama]]), strict=True):
        for specs in calls:
            manifest, worked = world.prepare(*specs, out=out, max_length=limit)
            assert worked
    manifests = [read_manifest(out) for out in outs]
    assert len({m["data_hash"] for m in manifests}) == 1
    for spec in (world.llama, world.gpt2):
        rows = [all_rows(world.split(spec, "test", out)) for out in outs]
        assert rows[0] == rows[1] == rows[2] != []


def test_a_tokenizer_that_leaves_out_more_pairs_says_whose_runs_no_longer_count(world, capsys):
    world.prepare(world.llama, world.gpt2)
    short, long = world.llama, world.gpt2
    limit = int(np.median(row_lengths(world.split(long))))
    out = world.folder / "grown"
    first = world.prepare(short, out=out, max_length=limit)[0]["data_hash"]
    assert "warning" not in capsys.readouterr().err
    grown = world.prepare(long, out=out, max_length=limit)[0]["data_hash"]
    told = capsys.readouterr().err
    assert grown != first
    assert f"{long.name} left out pairs that {short.name} had" in told
    assert f"prepare for {short.name} alone with --overwrite True" in told
    world.prepare(long, out=out, max_length=limit)
    assert not capsys.readouterr().err
    alone, _ = world.prepare(short, out=out, max_length=limit, overwrite=True)
    assert alone["data_hash"] == first


def test_left_cuts_the_prompt_and_keeps_answers_whole_and_bos_first(world):
    write_jsonl(world.raw, [{"prompt": "long " * (i % 40) + f"{i}", "chosen": f"Good {i}.",
                             "rejected": "Bad " * (1 + i % 9)} for i in range(200)])
    world.prepare(world.llama)
    out = world.folder / "cut"
    manifest, _ = world.prepare(world.llama, out=out, max_length=60, truncation="left")
    assert manifest["over_length"]["count"] == 0
    cut_rows = 0
    for name in SPLITS:
        whole, cut = world.split(world.llama, name), world.split(world.llama, name, out)
        for before, after in zip(all_rows(whole), all_rows(cut), strict=True):
            assert before["chosen_ids"] == after["chosen_ids"]
            assert before["rejected_ids"] == after["rejected_ids"]
            kept = after["prompt_ids"]
            longest = max(len(after["chosen_ids"]), len(after["rejected_ids"]))
            assert len(kept) == min(len(before["prompt_ids"]), 60 - longest)
            assert kept[0] == before["prompt_ids"][0]
            assert kept[1:] == before["prompt_ids"][len(before["prompt_ids"]) - len(kept) + 1:]
            cut_rows += len(kept) < len(before["prompt_ids"])
    assert cut_rows > 20


def test_a_tokenizer_is_added_where_every_pair_of_a_row_group_was_too_long(world, monkeypatch):
    monkeypatch.setattr(data.pairs.build, "BATCH", 1)
    rows = text_rows(40)
    rows[7]["chosen"] = "x" * 300
    write_jsonl(world.raw, rows)
    world.prepare(world.llama, max_length=200)
    for name in SPLITS:
        path = world.out / "pairs" / f"{name}.parquet"
        with pq.ParquetFile(path) as file:
            groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
        assert all(len(group) for group in groups)
        with pq.ParquetWriter(path, groups[0].schema) as writer:  # as folders have it from before
            for group in [groups[0].slice(0, 0), *groups]:
                writer.write_table(group)
    manifest, worked = world.prepare(world.llama, world.gpt2, max_length=200)
    assert worked and manifest["over_length"]["count"] == 1
    for name in SPLITS:
        added = world.split(world.gpt2, name).pair_ids.tolist()
        assert added == world.split(world.llama, name).pair_ids.tolist()


def test_left_drops_and_counts_a_pair_whose_answer_alone_is_too_long(world):
    rows = text_rows(40)
    rows[7]["chosen"] = "x" * 100
    write_jsonl(world.raw, rows)
    manifest, _ = world.prepare(world.llama, max_length=80, truncation="left")
    assert manifest["over_length"]["count"] == 1
    assert sum(entry["pairs"] for entry in manifest["splits"].values()) == 39


def test_truncation_error_stops_and_leaves_nothing(world):
    with pytest.raises(UserError, match="truncation is error"):
        world.prepare(world.llama, max_length=40, truncation="error")
    assert not world.out.exists()


def test_limit_that_empties_a_split_is_an_error(world):
    with pytest.raises(UserError, match="longer than max_length.*max_length is 5"):
        world.prepare(world.llama, max_length=5)


def test_pairs_that_the_chat_template_refuses_are_counted_or_stop_the_command(world):
    rows = text_rows(200)
    rows[3]["chosen"] += " rare"
    write_jsonl(world.raw, rows)
    picky = TokenizerSpec("picky", save(llama_like(REFUSES_RARE), world.folder / "picky"))
    manifest, _ = world.prepare(picky, world.llama)
    assert manifest["refused"]["count"] == 1
    assert sum(entry["pairs"] for entry in manifest["splits"].values()) == 199
    for name in SPLITS:
        assert min(row_lengths(world.split(picky, name))) > 0
        assert len(world.split(picky, name)) == len(world.split(world.llama, name))
    write_jsonl(world.raw, [{**row, "chosen": row["chosen"] + " rare"} for row in rows])
    with pytest.raises(UserError, match="chat template of picky refuses 200 of 200"):
        world.prepare(picky, out=world.folder / "second")


@dataclass(frozen=True)
class LaterCompare(CompareConfig):
    """CompareConfig, once it has a key that nobody has thought of yet."""

    margin: float = 0.0


@dataclass(frozen=True)
class LaterData(DataConfig):
    shards: int = 1
    languages: tuple[str, ...] = ()
    compare: LaterCompare = LaterCompare()


def later(config: DataConfig, **values) -> LaterData:
    kept = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
            if field.name != "compare"}
    return LaterData(**{**kept, **values})


def test_new_keys_at_their_defaults_leave_a_prepared_folder_and_its_tokens_as_they_are(world):
    before, _ = world.prepare(world.llama)
    files = {path: path.stat().st_mtime_ns for path in world.out.rglob("*") if path.is_file()}
    manifest, worked = prepare(later(world.config()), world.out, [world.llama])
    assert not worked and manifest == json.loads(json.dumps(before))
    assert files == {path: path.stat().st_mtime_ns for path in files}
    both, worked = prepare(later(world.config()), world.out, [world.llama, world.gpt2])
    assert worked and both["data_hash"] == before["data_hash"]
    assert len(world.split(world.gpt2)) == len(world.split(world.llama)) > 0


@pytest.mark.parametrize(("values", "message"), [
    ({"shards": 2}, "shards: 1, not 2"),
    ({"languages": ("en",)}, r"languages: \[\], not \['en'\]"),
    ({"compare": LaterCompare(margin=1.0)}, "compare: .*'margin': 0.0.*'margin': 1.0")])
def test_a_new_key_off_its_default_asks_for_another_folder(world, values, message):
    world.prepare(world.llama)
    with pytest.raises(UserError, match=message):
        prepare(later(world.config(), **values), world.out, [world.llama])


def test_a_folder_of_before_there_was_a_block_of_keys_had_all_its_defaults(world):
    world.prepare(world.llama)
    manifest = read_manifest(world.out)
    del manifest["config"]["compare"]
    assert config_differences(manifest["config"], world.config()) == []


def test_finished_parts_are_kept_and_only_missing_ones_are_made(world, monkeypatch):
    world.prepare(world.llama)
    before = {p: p.read_bytes() for p in world.out.rglob("*.arrow")}
    lost, cut, *_ = sorted(before)
    lost.unlink()
    cut.write_bytes(before[cut][:-30])
    written = []
    real = tokenise.write_part
    monkeypatch.setattr(tokenise, "write_part", lambda job: (written.append(job.part), real(job)))
    _, worked = world.prepare(world.llama)
    assert worked and sorted(written) == [lost, cut]
    assert {p: p.read_bytes() for p in world.out.rglob("*.arrow")} == before


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import data.pairs.build, data.tokens.tokenise
from configs.schema import DataConfig
from data.prepare import TokenizerSpec, prepare
from pathlib import Path
data.pairs.build.BATCH = 10
real, done = data.tokens.tokenise.write_part, []
def write_part(job):
    if len(done) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(job)
    real(job)
data.tokens.tokenise.write_part = write_part
prepare(DataConfig(name="test", path={raw!r}, max_length=10_000), Path({out!r}),
        [TokenizerSpec("llama", {llama!r})])
"""


def test_after_kill_9_the_same_command_ends_as_if_nothing_had_happened(world):
    killed = world.folder / "killed"
    script = KILLED.format(root=str(REPO_ROOT), raw=str(world.raw),
                           out=str(killed), llama=world.llama.path)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -9
    parts = {p: p.stat().st_mtime_ns for p in killed.rglob("part-*.arrow")}
    assert len(parts) == 5
    with pytest.raises(UserError, match="not prepared for"):
        world.split(world.llama, out=killed)
    world.prepare(world.llama, out=killed)
    world.prepare(world.llama)
    assert all(p.stat().st_mtime_ns == when for p, when in parts.items())
    names = [p.relative_to(world.out) for p in world.out.rglob("*") if p.is_file()]
    assert sorted(names) == sorted(p.relative_to(killed) for p in killed.rglob("*")
                                   if p.is_file())
    for name in names:
        assert (world.out / name).read_bytes() == (killed / name).read_bytes()


def test_parts_of_other_pairs_are_never_taken_for_finished(world):
    world.prepare(world.llama)
    stale = world.out / "tokens"
    stale.rename(world.folder / "stale")
    write_jsonl(world.raw, [{**row, "chosen": row["chosen"] + "!"} for row in text_rows(120)])
    world.prepare(overwrite=True)
    (world.folder / "stale").rename(stale)
    world.prepare(world.llama)
    chosen = load_tokenizer(world.llama.path).decode(world.split(world.llama)[0]["chosen_ids"])
    assert chosen.endswith(".!<|end|>")
    assert len(list(world.out.rglob("*.arrow"))) == 14


def test_missing_data_other_tokenizer_and_damage_name_the_command_that_mends_it(world):
    with pytest.raises(UserError, match="python data/preprocess.py"):
        open_split(world.out, "0" * 12, "test")
    world.prepare(world.llama)
    with pytest.raises(UserError, match="prepared for: llama.*python data/preprocess.py"):
        world.split(world.gpt2)
    with pytest.raises(UserError, match="no split 'train_3'"):
        world.split(world.llama, "train_3")
    part = next((world.out / "tokens").rglob("*.arrow"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-7])
    with pytest.raises(UserError, match="cut short.*python data/preprocess.py"):
        world.split(world.llama, part.parent.name)
    part.write_bytes(whole[:-8] + b"garbage!")
    with pytest.raises(UserError, match="unreadable part"):
        world.split(world.llama, part.parent.name)
    (world.out / "manifest.json").write_text('{"format": 1, "spl')
    with pytest.raises(UserError, match="not a whole manifest"):
        world.split(world.llama)
    (world.out / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 2"):
        world.split(world.llama)


def test_pairs_file_cut_short_is_refused_and_made_again(world):
    world.prepare()
    path = world.out / "pairs" / "test.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="whole parquet file"):
        read_pairs(world.out, "test")
    _, worked = world.prepare()
    assert worked and path.read_bytes() == whole


def test_rows_are_read_from_disk_without_an_open_file_for_each_part(world):
    world.prepare(world.llama)
    gc.collect()  # files that errors of earlier tests still hold
    before = len(list(Path("/proc/self/fd").iterdir()))
    split = world.split(world.llama, "train_1")
    assert len(split._offsets) > 3
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert split.rows([3, 0, 3])[0] == split[3] == split.rows([3])[0]


def test_row_groups_and_parts_hold_the_same_pairs(world):
    world.prepare(world.llama)
    with pq.ParquetFile(world.out / "pairs" / "train_1.parquet") as file:
        groups = [file.read_row_group(i)["pair_id"].to_pylist()
                  for i in range(file.num_row_groups)]
    parts = [pa.ipc.open_file(path).read_all()["pair_id"].to_pylist() for path in
             sorted((world.out / "tokens" / world.key(world.llama) / "train_1").iterdir())]
    assert groups == parts and len(groups) > 3
