"""A mixture: every source keeps its rules, a prompt stays with the first source that has it."""

import json

import pytest
import yaml

from configs.data_schema import CompareConfig
from configs.schema import CONFIG_ROOT, DataConfig, load_config
from data.manifest import read_manifest, write_manifest
from data.pairs.build import build_pairs
from data.pairs.mixture import parts_of
from data.pairs.pair_files import read_pairs
from data.prepare import prepare
from data.read.sources import named_data
from data.records import SPLITS
from data.samples import print_summary
from src.common.errors import UserError
from tests.tiny_data import text_rows, write_jsonl

MIXTURES = sorted(path.stem for path in (CONFIG_ROOT / "data").glob("mixture_v*.yaml"))


class World:
    """A folder with sources and the mixture of them."""

    def __init__(self, folder):
        self.folder, self.names = folder, []

    def source(self, name, rows, **keys):
        raw = write_jsonl(self.folder / f"{name}.jsonl", rows)
        place = {} if "files" in keys else {"path": str(raw)}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"source": "made", **place, **keys}))
        self.names.append(str(path))

    def mixture(self, **changes):
        return DataConfig(**{"name": "mix", "sources": tuple(self.names), "test_pairs": 10,
                             "val_pairs": 4, **changes})

    def build(self, **changes):
        out = self.folder / "out"
        report = build_pairs(self.mixture(**changes), out)
        pairs = [row | {"split": split} for split in SPLITS
                 if (out / "pairs" / f"{split}.parquet").exists()
                 for row in read_pairs(out, split).to_pylist()]
        return report, pairs


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def rows_of(prompts, tag=""):
    return [{"prompt": f"Prompt {p}?", "chosen": f"Good {p} {tag}{i}", "rejected": f"Bad {p} {i}"}
            for i, p in enumerate(prompts)]


def question(row):
    return json.loads(row["prompt"])[0]["content"]


def test_a_prompt_of_several_sources_stays_with_the_first_and_the_others_are_counted(world):
    first, second, third = range(40), range(30, 70), range(20, 90)
    world.source("a", rows_of(first, "a"))
    world.source("b", rows_of(second, "b"))
    world.source("c", rows_of([*third, *third], "c"))
    report, pairs = world.build()
    owner = {f"Prompt {p}?": name for name, prompts in
             (("c", third), ("b", second), ("a", first)) for p in prompts}
    assert {question(row): row["subset"] for row in pairs} == owner
    assert len(pairs) == 40 + 30 + 2 * 20
    gone = {name: entry["dropped"].get("prompt of an earlier source", 0)
            for name, entry in report.sources.items()}
    assert gone == {"a": 0, "b": 10, "c": 100}
    assert report.dropped["prompt of an earlier source"]["count"] == 110
    assert "b/b.jsonl:1" in report.dropped["prompt of an earlier source"]["rows"]


def test_every_pair_of_every_source_is_kept_or_counted(world):
    world.source("a", rows_of([*range(40), 1, 2]) + [rows_of([3])[0]] * 2 + [{"prompt": "p"}],
                 max_bad_frac=0.1)
    world.source("b", rows_of([p for p in range(20, 60) for _ in range(4)]),
                 compare={"pairs_per_prompt": 3})
    report, pairs = world.build(fraction=0.9, train_pairs=20)
    for name, entry in report.sources.items():
        assert entry["kept"] == sum(row["subset"] == name for row in pairs) > 0
    rows = sum(entry["rows"] for entry in report.sources.values())
    dropped = sum(n for entry in report.sources.values() for n in entry["dropped"].values())
    assert rows == 45 + 160 == len(pairs) + dropped + sum(report.unused.values())
    assert dropped == sum(entry["count"] for entry in report.dropped.values())
    assert report.dropped["missing key chosen"]["rows"] == ["a/a.jsonl:45"]
    made = sum(entry["pairs"] for entry in report.sources.values())
    assert made == rows - 1 - report.unused["beyond pairs_per_prompt"]


def test_copies_and_contradictions_go_within_a_source_only(world):
    same, other = rows_of([1])[0], rows_of([2])[0]
    turned = {**other, "chosen": other["rejected"], "rejected": other["chosen"]}
    world.source("a", [same, same, *rows_of(range(100, 140))])
    world.source("b", [other, turned, *rows_of(range(200, 240))])
    world.source("c", [other])
    report, pairs = world.build()
    assert report.sources["a"]["dropped"] == {"duplicate": 1}
    assert report.sources["b"]["dropped"] == {"contradictory duplicate": 2}
    assert [row["subset"] for row in pairs if question(row) == "Prompt 2?"] == ["c"]


def test_each_source_is_read_by_its_own_rules(world):
    scored = [{"question": f"Scored {i}?", "response_a": f"Low {i}", "response_b": f"High {i}",
               "score_a": 1, "score_b": 2} for i in range(30)]
    world.source("texts", text_rows(60))
    world.source("scored", scored, keys={"prompt": "question"})
    world.source("many", rows_of([p for p in range(30) for _ in range(5)]),
                 compare={"pairs_per_prompt": 2})
    report, pairs = world.build()
    assert report.form == "prompt_answers, scored_answers"
    kept = {name: [row for row in pairs if row["subset"] == name]
            for name in ("texts", "scored", "many")}
    assert {name: len(rows) for name, rows in kept.items()} == {"texts": 60, "scored": 30,
                                                                "many": 60}
    assert all(row["chosen"].startswith("High") and row["score_chosen"] == 2
               for row in kept["scored"])


def test_splits_of_the_mixture_hold_every_source_and_share_no_prompt(world):
    for name in "abc":
        world.source(name, [{**row, "prompt": f"{name}: {row['prompt']}"} for row in
                            text_rows(200)])
    _, pairs = world.build(test_pairs=100, val_pairs=20)
    for split in ("train_1", "train_2", "test"):
        assert {row["subset"] for row in pairs if row["split"] == split} == {"a", "b", "c"}
    prompts = {split: {question(row) for row in pairs if row["split"] == split}
               for split in SPLITS}
    assert sum(map(len, prompts.values())) == len(set().union(*prompts.values())) == 300


def test_files_that_a_source_keeps_for_testing_stay_out(world):
    train, test = (write_jsonl(world.folder / f"{name}.raw.jsonl", rows) for name, rows in (
        ("train", rows_of(range(60))), ("test", rows_of(range(500, 600)))))
    world.source("split", [], files={"train": str(train), "test": str(test)})
    report, pairs = world.build()
    assert [entry["path"] for entry in report.source] == [str(train)]
    assert len(pairs) == 60
    world.names.clear()
    world.source("only", [], files={"test": str(test)})
    with pytest.raises(UserError, match="only has files to test on .*decontaminate"):
        parts_of(world.mixture())


def test_limit_holds_for_each_source(world):
    world.source("a", rows_of(range(50)))
    world.source("b", rows_of(range(100, 150)), limit=12)
    report, _ = world.build(limit=20)
    assert {name: entry["rows"] for name, entry in report.sources.items()} == {"a": 20, "b": 12}


def test_sources_twice_or_within_another_mixture_or_unknown_are_refused(world):
    world.source("a", rows_of(range(9)))
    nested = world.folder / "nested.yaml"
    nested.write_text(yaml.safe_dump({"source": "made", "sources": world.names}))
    for names, message in (((world.names * 2), "a is there twice"),
                           ([*world.names, str(nested)], "nested is a mixture itself"),
                           (["no_such_source"], "no data config 'no_such_source'")):
        with pytest.raises(UserError, match=message):
            build_pairs(world.mixture(sources=tuple(names)), world.folder / "out")
    assert not (world.folder / "out").exists()


def test_a_rule_of_the_mixture_itself_is_refused(world):
    world.source("a", rows_of(range(9)))
    for changes in ({"form": "messages"}, {"keys": {"prompt": "q"}}, {"pointwise": True},
                    {"compare": CompareConfig(pairs_per_prompt=1)}):
        with pytest.raises(UserError, match=f"{min(changes)}: a mixture reads each source by"):
            parts_of(world.mixture(**changes))


def test_the_larger_share_of_bad_rows_that_mixture_or_source_allow_holds(world):
    world.source("a", [*rows_of(range(60)), *[{"prompt": "p"}] * 20])
    with pytest.raises(UserError, match="20 of 80 rows are unusable"):
        world.build()
    assert world.build(max_bad_frac=0.3)[0].sources["a"]["rows"] == 80


def test_another_rule_or_other_bytes_of_a_source_need_another_folder(world):
    world.source("a", rows_of(range(60)))
    world.source("b", rows_of([p for p in range(100, 130) for _ in range(3)]))
    out = world.folder / "out"
    assert prepare(world.mixture(), out, [])[1]
    assert not prepare(world.mixture(), out, [])[1]
    world.names.pop()
    world.source("b", rows_of([p for p in range(100, 130) for _ in range(3)]),
                 compare={"pairs_per_prompt": 1})
    with pytest.raises(UserError, match="b: compare: .*overwrite"):
        prepare(world.mixture(), out, [])
    prepare(world.mixture(), out, [], overwrite=True)
    write_jsonl(world.folder / "b.jsonl", rows_of(range(100, 150)))
    with pytest.raises(UserError, match="b: another content of"):
        prepare(world.mixture(), out, [])


@pytest.mark.parametrize("recorded", [True, False])
def test_a_mixture_of_one_source_is_prepared_once_and_knows_another_rule_or_other_bytes(world,
                                                                                        recorded):
    """Folders of an older version do not hold the source's config: its bytes are compared."""
    world.source("a", rows_of(range(60)))
    out = world.folder / "out"
    manifest, _ = prepare(world.mixture(), out, [])
    if not recorded:
        del manifest["sources"]["a"]["config"]
        write_manifest(out, manifest)
    assert not prepare(world.mixture(), out, [])[1]
    world.names.clear()
    world.source("a", rows_of(range(60)), compare={"pairs_per_prompt": 1})
    if recorded:
        with pytest.raises(UserError, match="a: compare: .*overwrite"):
            prepare(world.mixture(), out, [])
    world.names.clear()
    world.source("a", rows_of(range(61)))
    with pytest.raises(UserError, match="a: another content of"):
        prepare(world.mixture(), out, [])
    (world.folder / "a.jsonl").rename(world.folder / "b.jsonl")
    (world.folder / "a.yaml").write_text(f"path: {world.folder / 'b.jsonl'}\n")
    with pytest.raises(UserError, match="a: another content of"):
        prepare(world.mixture(), out, [])


def test_summary_has_a_line_for_each_source_and_the_published_counts_that_differ(world, capsys):
    world.source("a", rows_of(range(60)))
    world.source("b", rows_of([p for p in range(50, 90) for _ in range(2)]),
                 compare={"pairs_per_prompt": 1})
    out = world.folder / "out"
    manifest, _ = prepare(world.mixture(expected={"a": 60, "b": 999}), out, [])
    assert manifest == read_manifest(out) | {"config": manifest["config"],
                                             "sources": manifest["sources"]}
    print_summary(out, manifest)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["source", "rows", "pairs", "published", "of", "an", "earlier", "source",
            "kept"] in lines
    assert ["a", "60", "60", "60", "0", "60"] in lines
    assert ["b", "80", "40", "999", "10", "30"] in lines
    notes = [" ".join(line) for line in lines if line[0] == "note:"]
    assert notes == ["note: expected 999 pairs of b (published), found 40"]


def test_a_published_count_may_speak_of_all_sources_whose_names_begin_so(world):
    for i, name in enumerate(("hh_one", "hh_two", "hhh")):
        world.source(name, rows_of(range(100 * i, 100 * i + 20)))
    report, _ = world.build(expected={"hh": 41, "hhh": 20})
    assert report.expected == {"hh": {"published": 41, "found": 40},
                               "hhh": {"published": 20, "found": 20}}
    with pytest.raises(UserError, match="expected: hh_: no source"):
        world.build(expected={"hh_": 1})


def test_rows_are_counted_in_the_file_where_several_make_one_prompt(world, tmp_path):
    rows = [{"prompt": f"Prompt {p}?", "response": f"{p} {i}", "score": i} for p in range(20)
            for i in range(3)]
    world.source("grouped", rows, form="one_answer", keys={"answer": "response"})
    report, pairs = world.build()
    assert report.sources["grouped"]["rows"] == 60 == len(pairs)
    assert report.source[0]["rows"] == 60


def test_published_rows_of_a_single_source_are_told_only_where_it_was_read_whole(world, capsys):
    raw = write_jsonl(world.folder / "a.jsonl", rows_of(range(60)))
    for limit, told in ((None, True), (50, False)):
        config = DataConfig(name="a", path=str(raw), expected={"rows": 61}, limit=limit)
        manifest, _ = prepare(config, world.folder / f"out-{limit}", [])
        print_summary(world.folder, manifest)
        assert ("expected 61 rows (published), found 60" in capsys.readouterr().out) == told


def test_a_published_count_of_what_nobody_counts_is_refused_before_anything_is_read(world):
    world.source("a", rows_of(range(20)), expected={"train": 60})
    with pytest.raises(UserError, match="a.yaml: expected train: .* rows or pairs"):
        load_config(DataConfig, world.names[0])
    world.source("a", rows_of(range(20)), expected={"rows": 20, "pairs": 19})
    report = build_pairs(load_config(DataConfig, world.names[0]), world.folder / "out")
    assert report.expected == {"rows": {"published": 20, "found": 20},
                               "pairs": {"published": 19, "found": 20}}
    path = world.folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"sources": [world.names[0]], "expected": {"a": 20}}))
    assert named_data(f"{path}={world.folder}/a.jsonl").files == {
        "test": f"{world.folder}/a.jsonl"}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_known_mixture_names_known_sources_and_their_published_counts(name):
    mixture = load_config(DataConfig, name)
    assert len(mixture.sources) > 5 and mixture.expected
    assert [part.name for part in parts_of(mixture)] == list(mixture.sources)


def test_all_four_known_mixtures_are_there():
    assert [f"mixture_v{i}" for i in (1, 2, 3, 4)] == MIXTURES
