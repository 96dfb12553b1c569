"""The benchmarks: what they are run on, how it is counted, and that every command works, tiny."""

import json
import subprocess
import sys

import pytest

from data.tokens.tokenised import IDS
from speed import measure, mixes, rows, sweep_cost, table
from speed.mixes import MIXES, draw
from speed.peers import padded
from speed.shapes import Shape
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from tests.tiny_experiment import in_process

COMMANDS = ("train_throughput", "score_throughput", "sweep_cost", "scaling", "two_workers",
            "big_pages", "table")
KEYS = {"mix", "system", "pairs_per_s", "tokens_computed", "tokens_useful", "peak_mib", "ratio",
        "ratio_low", "ratio_high"}
TINY = ("--hidden", "16", "--layers", "2", "--pairs", "6", "--batch_pairs", "3", "--rounds", "1",
        "--length_scale", "0.05")
VOCAB = 50

each_mix = pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)


def pair(prompt_id: str, prompt: int, chosen: int, rejected: int) -> dict:
    """A pair of these lengths; responses of one length to one prompt are the same."""
    return {"pair_id": f"{prompt_id}-{chosen}-{rejected}", "prompt_id": prompt_id,
            "prompt_ids": [1] * prompt, "chosen_ids": [2] * chosen, "rejected_ids": [2] * rejected}


THREE = [pair("a", 10, 2, 3), pair("a", 10, 3, 4), pair("b", 5, 1, 2)]


@each_mix
@pytest.mark.parametrize("pairs", [48, 96])
def test_a_mix_has_the_ratio_that_it_claims(mix, pairs):
    assert rows.drawn_ratio(draw(mix, pairs, 0, 4096)) == pytest.approx(mix.ratio, rel=0.03)


@each_mix
def test_a_mix_is_fixed_by_its_seed(mix):
    assert draw(mix, 12, 1, VOCAB) == draw(mix, 12, 1, VOCAB) != draw(mix, 12, 2, VOCAB)


@each_mix
def test_the_pairs_of_a_prompt_are_all_pairs_of_its_distinct_responses(mix):
    drawn = draw(mix, 12, 0, VOCAB)
    assert len({row["pair_id"] for row in drawn}) == 12
    for prompt in {row["prompt_id"] for row in drawn}:
        of_prompt = [row for row in drawn if row["prompt_id"] == prompt]
        found = {frozenset({tuple(row["chosen_ids"]), tuple(row["rejected_ids"])})
                 for row in of_prompt}
        assert len(of_prompt) == len(found) == mix.pairs_of_prompt
        assert len(frozenset.union(*found)) == mix.responses


def test_no_id_is_the_padding_id():
    ids = [i for row in draw(MIXES["multi_turn"], 12, 0, VOCAB) for name in IDS for i in row[name]]
    assert min(ids) >= 1 and max(ids) < VOCAB - 1


def test_four_responses_come_in_whole_prompts():
    with pytest.raises(UserError, match="6 pairs to a prompt"):
        draw(MIXES["four_responses"], 16, 0, VOCAB)


def test_useful_tokens_count_each_prompt_and_each_response_once():
    assert rows.useful_tokens(THREE) == (10 + 2 + 3 + 4) + (5 + 1 + 2)


def test_padding_is_what_fills_rows_up_to_the_longest_of_a_batch():
    real = (12 + 13) + (13 + 14) + (6 + 7)
    assert rows.padding_share(THREE, 3, seed=0) == pytest.approx(1 - real / (6 * 14))


def test_padded_batches_hold_two_rows_a_pair_chosen_sides_first():
    batch = padded.pad_pairs(padded.sides_of(THREE), pad=9)
    assert batch["input_ids"].shape == (6, 14)
    assert batch["attention_mask"].sum(dim=1).tolist() == [12, 13, 6, 13, 14, 7]
    assert (batch["input_ids"] == 9).sum() == 6 * 14 - batch["attention_mask"].sum()


def test_rounds_by_length_hold_every_pair_once_and_batches_of_one_length():
    drawn = draw(MIXES["short_prompt"], 48, 0, VOCAB)
    parts = mixes.grouped_rounds(drawn, 3, 4, mixes.longer_side)
    assert [len(part) for part in parts] == [16] * 3
    assert sorted(row["pair_id"] for part in parts for row in part) == sorted(
        row["pair_id"] for row in drawn)
    longest = [mixes.longer_side(row) for row in sorted(drawn, key=mixes.longer_side)[-4:]]
    assert sorted(map(mixes.longer_side, parts[0][:4])) == longest


def test_a_split_holds_the_rows_it_was_written_from(tmp_path):
    drawn = draw(MIXES["multi_turn"], 4, 0, VOCAB)
    split = mixes.write_split(drawn, tmp_path / "part.arrow")
    assert [split[i] for i in range(4)] == drawn


def measured(seconds: list[float], sizes: list[int], same_pairs: bool = True) -> measure.Measured:
    system = measure.System("x", lambda number: None, same_pairs)
    return measure.Measured(system, None, [measure.Round(s, s, n) for s, n in
                                           zip(seconds, sizes, strict=True)])


def test_ratios_are_taken_round_by_round():
    ratio = measure.ratios(measured([1, 2, 1], [5, 5, 5]), measured([2, 2, 5], [9, 9, 9]))
    assert (ratio.median, ratio.low, ratio.high) == (2, 1, 5)


def test_ours_is_held_against_every_row_round_by_round():
    peer, best = measured([2, 3], [9, 9]), measured([1, 1], [5, 5])
    assert rows.beside(best, peer) == {"ours": 2.5, "ours_low": 2, "ours_high": 3, "ours_cpu": 2.5}
    assert rows.beside(None, peer) == {}


def test_rounds_of_other_pairs_are_compared_by_their_share_of_tokens():
    ratio = measure.ratios(measured([3, 1], [30, 10], same_pairs=False), measured([4, 4], [9, 9]))
    assert (ratio.median, ratio.low, ratio.high) == (2, 2, 2)


def test_systems_take_turns_and_the_first_round_does_not_count():
    calls = []

    def system(name: str) -> measure.System:
        return measure.System(name, lambda number: calls.append((name, number))
                              or measure.Round(1.0, 1.0, len(calls)))

    found = measure.alternate([system("a"), system("b")], 2, "")
    assert calls == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [each.tokens for each in found] == [3 + 5, 4 + 6]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        in_process(f"speed.{command}", "--help")
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("command", [("train_throughput", "--no_trl"), ("score_throughput",)],
                         ids=lambda command: command[0])
def test_a_command_writes_rows_with_the_promised_keys(command, tmp_path, capsys):
    file = tmp_path / "rows.json"
    name, *more = command
    in_process(f"speed.{name}", *TINY, "--json", str(file), *more)
    found = json.loads(file.read_text())
    assert len({row["system"] for row in found}) == len(found) >= 5
    for row in found:
        assert set(row) >= KEYS | {"benchmark", "layers", "seed", "commit", "torch"}
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["tokens_computed"] >= row["tokens_useful"] > 0
        assert row["reward_difference"] < 1e-5
    printed = capsys.readouterr().out
    assert printed.strip() == table.render(table.read_rows(file)).strip()
    by_hand = draw(MIXES["multi_turn"].scaled(0.05), 6, 0, 4096)
    assert found[-1]["tokens_computed"] == rows.useful_tokens(by_hand)  # packed: no padding


@pytest.mark.parametrize("command", [("train_throughput", "--no_trl"), ("score_throughput",)],
                         ids=lambda command: command[0])
def test_bf16_is_one_more_row_of_the_same_work(command, tmp_path):
    file = tmp_path / "rows.json"
    name, *more = command
    in_process(f"speed.{name}", *TINY, "--bf16", "--json", str(file), *more)
    last, bf16 = json.loads(file.read_text())[-2:]
    assert bf16["system"] == "+ bf16 products" and bf16["ratio"] != last["ratio"]
    assert bf16["tokens_computed"] == last["tokens_computed"]


@pytest.mark.parametrize("part", ["demo", "deep", "methods"])
def test_a_sweep_that_shares_more_computes_fewer_tokens(part, tmp_path, monkeypatch):
    for name, value in (("SEEDS", 1), ("TEACHERS", 1), ("METHOD_SEEDS", 1), ("METHOD_TEACHERS", 1)):
        monkeypatch.setattr(sweep_cost, name, value)
    file = tmp_path / "rows.json"
    in_process("speed.sweep_cost", "--part", part, *TINY, "--layers", "3", "--pairs", "8",
               "--batch_pairs", "4", "--demo_pairs", "8", "--json", str(file))
    found = json.loads(file.read_text())
    computed = [row["tokens_computed"] for row in found]
    assert len(found) == 3
    # In `deep` frozen layers are passed by, and their tokens count in full.
    assert part == "deep" or computed[0] > computed[2]
    assert {row["commit"] for row in found} and found[0]["ratio"] == 1


def test_a_table_is_rendered_without_the_libraries_of_training(tmp_path):
    row = table.TableRow("m", "s", 12.345, 200, 100, None, 2.0, 1.5, 2.5, facts={
        "benchmark": "b", "layers": 4, "commit": "abc", "rounds": 5})
    table.write_rows([row, row], tmp_path / "rows.json")
    code = ("import sys, speed.table as t; sys.argv[1:] = [sys.argv[1]]; t.main(); "
            "print([name for name in ('torch', 'transformers') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "rows.json"], cwd=REPO_ROOT,
                          capture_output=True, text=True, timeout=60)
    assert "| s      |    12.3 |             200 |  50.0% |  2.00 | 1.50 to 2.50 |" in done.stdout
    assert "### b: m, 4 layers" in done.stdout and "rounds 5." in done.stdout
    assert done.stdout.count("###") == 1 and done.stdout.strip().endswith("[]"), done.stderr


@pytest.mark.parametrize("arguments, words", [
    (("--pairs", "10", "--batch_pairs", "3"), "--pairs 10: must be a multiple of --batch_pairs 3"),
    (("--rounds", "0"), "--rounds 0: must be above 0"),
    (("--hidden", "10"), "--hidden 10: must be a multiple of 8"),
    (("--mix", "four_responses", "--pairs", "16"), "four_responses has 6 pairs to a prompt"),
    (("--data", "nowhere"), "--data nowhere: no prepared data"),
])
def test_a_mistake_is_a_user_error(arguments, words):
    with pytest.raises(UserError) as error:
        in_process("speed.score_throughput", *arguments)
    assert words in str(error.value)


def test_a_file_that_holds_no_rows_is_a_user_error(tmp_path):
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(UserError, match="a file that a benchmark wrote"):
        table.read_rows(tmp_path / "other.json")


def test_utilisation_is_the_distinct_tokens_share_of_the_devices_peak(monkeypatch):
    monkeypatch.setattr(rows.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rows.torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    shape = Shape(hidden=8, layers=2, heads=2, kv_heads=1, intermediate=16)
    assert shape.parameters == 2 * (3 * 8 * 8 + 3 * 8 * 16)
    flops = 2 * 3 * shape.parameters * 100
    assert rows.mfu(shape, 100, 2.0, passes=3) == pytest.approx(flops / 2.0 / 989e12)
    monkeypatch.setattr(rows.torch.cuda, "get_device_name", lambda: "Unheard-of 1")
    assert rows.mfu(shape, 100, 2.0, passes=3) is None
