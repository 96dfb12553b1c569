"""JudgeBench, LLMBar, PandaLM and the pair benchmarks against their scripts' arithmetic, told anew.

Each reference below goes through the protocol that the published script goes through, pair by pair;
rewards are made, with many ties.
"""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from src.common.errors import UserError
from src.evaluation.benchmark_source import read_rows
from src.measures.benchmarks.rm_bench import style_matrix
from src.measures.benchmarks.rows import read_subsets
from src.measures.benchmarks.scores import benchmark_scores
from tests.evaluation.test_benchmark import run
from tests.measures.test_benchmark_scores import scores, table
from tests.tiny_data import write_jsonl
from tests.tiny_reward_model import make_reward_model

SOURCES = ("mmlu-pro-law", "mmlu-pro-math", "livebench-reasoning", "livebench-math",
           "livecodebench")
LLMBAR = ("Natural", "Adversarial_Neighbor", "Adversarial_GPTInst", "Adversarial_GPTOut",
          "Adversarial_Manual")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("rm"))


def drawn(names: tuple[str, ...], count: int, seed: int) -> list[tuple]:
    """Rows of two responses with rewards of three values, so that a third of them tie."""
    rng = np.random.default_rng(seed)
    return [(str(rng.choice(names)), [float(rng.integers(3))], [float(rng.integers(3))])
            for _ in range(count)]


def judged_in_both_orders(right: float, wrong: float, right_is_a: bool) -> bool:
    """A reward model as a judge: A where its reward is higher, else B; asked twice, the second time
    with the responses exchanged. Correct where it is right more often than wrong."""
    first, second = (right, wrong) if right_is_a else (wrong, right)
    label = "A" if right_is_a else "B"
    said = ["A" if first > second else "B", "B" if second > first else "A"]
    return sum(1 if each == label else -1 for each in said) > 0


@pytest.mark.parametrize("seed", range(3))
def test_judge_bench_pools_pairs_in_four_groups_and_a_tie_is_never_right(seed):
    rows = drawn(SOURCES, 200, seed)
    coin = np.random.default_rng(seed + 100).integers(2, size=len(rows))
    correct = [judged_in_both_orders(right[0], wrong[0], bool(side))
               for (_, right, wrong), side in zip(rows, coin, strict=True)]
    found = scores("judge_bench", *rows)
    for group in ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench"):
        own = [each for each, (source, *_) in zip(correct, rows, strict=True)
               if source.startswith(group)]
        assert found[group].score == pytest.approx(np.mean(own))
        assert found[group].n == len(own)
    assert found["overall"].score == pytest.approx(np.mean(correct))
    assert found["overall"].accuracy > found["overall"].score  # ours: a tie counts one half


def test_judge_bench_s_score_is_not_the_mean_of_its_sources():
    rows = [("mmlu-pro-law", [1.0], [0.0])] * 9 + [("livecodebench", [0.0], [1.0])]
    assert scores("judge_bench", *rows)["overall"].score == pytest.approx(0.9)


@pytest.mark.parametrize("seed", range(3))
def test_llmbar_is_the_mean_over_both_orders(seed):
    rows = drawn(LLMBAR, 200, seed)
    of_subset = {name: [] for name in LLMBAR}
    for name, (right,), (wrong,) in rows:  # output 1 wins the first order unless output 2 is higher
        in_order, exchanged = right > wrong, not wrong > right
        of_subset[name].append((in_order + exchanged) / 2)
    accuracy = {name: np.mean(own) for name, own in of_subset.items()}
    found = scores("llmbar", *rows)
    assert found["Natural"].score == pytest.approx(accuracy["Natural"])
    assert found["Adversarial"].score == pytest.approx(
        np.mean([accuracy[name] for name in LLMBAR[1:]]))
    assert found["overall"].score == pytest.approx(np.mean(list(accuracy.values())))


def test_llmbar_s_adversarial_mean_is_the_published_one():
    """GPT-4 with metrics and reference: 82.8 over 134, 92, 47 and 46 rows, judged in two orders."""
    right = {"Neighbor": (115, 114, 134), "GPTInst": (80, 85, 92), "GPTOut": (34, 34, 47),
             "Manual": (37, 40, 46)}
    rows = []
    for name, (first, second, count) in right.items():
        halves = first + second  # a row that is right in one of the orders is a tie
        credit = [2] * (halves // 2) + [1] * (halves % 2)
        credit += [0] * (count - len(credit))
        rows += [(f"Adversarial_{name}", [each / 2], [0.5]) for each in credit]
    assert round(scores("llmbar", *rows)["Adversarial"].score, 3) == 0.828


@pytest.mark.parametrize("seed", range(3))
def test_pandalm_has_three_classes_as_its_script_and_scikit_learn_have(seed):
    rng = np.random.default_rng(seed)
    truth, said, lines = rng.integers(3, size=150), [], []
    for number, label in enumerate(truth):
        rewards = rng.integers(3, size=2).astype(float)
        said.append(0 if rewards[0] == rewards[1] else 1 if rewards[0] > rewards[1] else 2)
        values = {0: (0.0, 0.0), 1: (1.0, 0.0), 2: (0.0, 1.0)}[int(label)]
        lines += [{"row": number, "id": "", "subset": "all rows", "response": i,
                   "value": values[i], "reward": rewards[i]} for i in range(2)]
    found = {score.name: score for score in benchmark_scores("pandalm", pd.DataFrame(lines))}
    assert found["overall"].score == pytest.approx(accuracy_score(truth, said))
    expected = precision_recall_fscore_support(truth, said, labels=[0, 1, 2], average="macro",
                                               zero_division=0)
    for name, value in zip(("precision", "recall", "F1"), expected, strict=False):
        assert found[f"macro {name}"].score == pytest.approx(value)
    assert found["overall"].n == 150
    assert found["overall"].low <= found["overall"].score <= found["overall"].high


def test_reward_bench_follows_its_weighted_sections_on_drawn_rewards():
    weights = {"Chat": {"alpacaeval-easy": 100, "mt-bench-easy": 28},
               "Chat Hard": {"mt-bench-hard": 37, "llmbar-natural": 100},
               "Safety": {"donotanswer": 136}, "Reasoning": {"math-prm": 984, "hep-rust": 164}}
    rows = drawn(tuple(name for own in weights.values() for name in own), 300, 4)
    right = {name: [float(a[0] > b[0]) for subset, a, b in rows if subset == name]
             for own in weights.values() for name in own}
    sections = [sum(np.mean(right[name]) * weight for name, weight in own.items())
                / sum(own.values()) for own in weights.values()]
    assert scores("reward_bench", *rows)["overall"].score == pytest.approx(np.mean(sections))


def test_rm_bench_compares_every_right_with_every_wrong_response():
    rng = np.random.default_rng(5)
    rows = [(str(rng.choice(["chat", "math", "safety-refuse", "safety-response"])),
             rng.integers(4, size=3).astype(float).tolist(),
             rng.integers(4, size=3).astype(float).tolist()) for _ in range(120)]
    levels = {"hard": lambda i, j: i < j, "normal": lambda i, j: i == j, "easy": lambda i, j: i > j}
    found = scores("rm_bench", *rows)
    means = []
    for domain in ("chat", "math", "safety"):
        own = [row for row in rows if row[0].startswith(domain)]
        shares = {level: np.mean([right[i] > wrong[j] for _, right, wrong in own for i in range(3)
                                  for j in range(3) if takes(i, j)])
                  for level, takes in levels.items()}
        for level, share in shares.items():
            assert found[f"{domain}, {level}"].score == pytest.approx(share)
        means.append(np.mean(list(shares.values())))
    assert found["overall"].score == pytest.approx(np.mean(means))
    assert style_matrix(read_subsets(table(*rows))).shape == (3, 3)


def made_rows(count: int = 6) -> list[tuple[str, str, str]]:
    """Prompts with a right and a wrong response, of which every third pair is the same text."""
    return [(f"Question {i}?", f"Answer {i}.", f"Answer {i}." if i % 3 == 2 else "No. " * (i + 1))
            for i in range(count)]


def margins_of(folder, order: list[str]) -> list[float]:
    """Reward of the better response less that of the other, of each row of rewards.parquet."""
    rewards = pd.read_parquet(folder / "rewards.parquet")
    assert rewards.groupby("row", sort=True)["subset"].first().tolist() == order
    better = rewards[rewards.value == 1].set_index("row").reward
    return (better - rewards[rewards.value == 0].set_index("row").reward).tolist()


def test_judge_bench_s_own_file_gives_its_official_number(model, tmp_path):
    rows = [{"pair_id": str(i), "original_id": str(i), "source": SOURCES[i % 5], "question": q,
             "response_model": "gpt-4o-2024-05-13", "response_A": a if i % 2 else b,
             "response_B": b if i % 2 else a, "label": "A>B" if i % 2 else "B>A"}
            for i, (q, a, b) in enumerate(made_rows(10))]
    path = write_jsonl(tmp_path / "dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl", rows)
    found = run(tmp_path, "--model", model, "--data", f"judge_bench={path}")
    margins = margins_of(tmp_path / "out", [row["source"] for row in rows])
    assert margins[2] == 0  # the same text twice
    assert found.score["overall"] == pytest.approx(np.mean(np.array(margins) > 0))
    law = np.mean([margin > 0 for margin, row in zip(margins, rows, strict=True)
                   if row["source"].startswith("mmlu-pro")])
    assert found.score["mmlu-pro"] == pytest.approx(law)


def test_llmbar_s_own_folder_gives_its_official_number(model, tmp_path):
    folder = tmp_path / "LLMBar"
    places = {"Natural": "Natural", **{f"Adversarial_{name}": f"Adversarial/{name}"
                                       for name in ("Neighbor", "GPTInst", "GPTOut", "Manual")}}
    for place in places.values():
        (folder / place / "evaluators").mkdir(parents=True)
        (folder / place / "evaluators" / "result.json").write_text("[]")
        rows = [{"input": f"{place}: {q}", "output_1": a if i % 2 else b,
                 "output_2": b if i % 2 else a, "label": 1 if i % 2 else 2}
                for i, (q, a, b) in enumerate(made_rows())]
        (folder / place / "dataset.json").write_text(json.dumps(rows, indent=2))
    found = run(tmp_path, "--model", model, "--data", f"llmbar={folder}")
    order = sorted(places, key=lambda name: places[name])
    margins = np.array(margins_of(tmp_path / "out", [name for name in order for _ in range(6)]))
    credit = dict(zip(order, ((margins > 0) + (margins == 0) / 2).reshape(5, 6).mean(axis=1),
                      strict=True))
    assert found.score["overall"] == pytest.approx(np.mean(list(credit.values())))
    assert found.score["Adversarial"] == pytest.approx(
        np.mean([credit[name] for name in LLMBAR[1:]]))


def test_pandalm_s_own_file_gives_its_official_number(model, tmp_path):
    votes = [(1, 1, 0), (2, 2, 2), (0, 0, 1), (1, 2, 0), (0, 1, 2), (2, 1, 2)]
    rows = [{"idx": i, "motivation_app": "Made", "cmp_key": "a_b", "instruction": q,
             "input": float("nan"), "response1": a, "response2": b, "annotator1": one,
             "annotator2": two, "annotator3": three}
            for i, ((q, a, b), (one, two, three)) in enumerate(zip(made_rows(6), votes,
                                                                   strict=True))]
    rows[0]["response2"] = True  # as its file has it, six times
    path = tmp_path / "testset-v1.json"
    path.write_text(json.dumps(rows, indent=4))
    found = run(tmp_path, "--model", model, "--data", f"pandalm={path}")
    rewards = pd.read_parquet(tmp_path / "out" / "rewards.parquet").reward.to_numpy().reshape(-1, 2)
    said = np.where(rewards[:, 0] == rewards[:, 1], 0, 1 + rewards.argmax(axis=1))
    label = [max(each, key=each.count) for each in votes]  # of all different ones the first
    assert label == [1, 2, 0, 1, 0, 2] and said[2] == said[5] == 0  # the same text twice
    assert found.n["overall"] == 6
    assert found.score["overall"] == pytest.approx(accuracy_score(label, said))
    assert found.score["macro F1"] == pytest.approx(precision_recall_fscore_support(
        label, said, labels=[0, 1, 2], average="macro", zero_division=0)[2])


def rm_rows(count: int) -> list[dict]:
    """Rows as RM-Bench's repository has them: without a domain, which is the file's."""
    return [{"id": f"{i}", "prompt": q, "chosen": [a, f"{a} {a}", f"**{a}**"],
             "rejected": [b, f"{b} {b}", f"**{b}**"], "error_key": "", "error": ""}
            for i, (q, a, b) in enumerate(made_rows(count))]


@pytest.mark.parametrize("domains", [("chat", "code", "math", "safety"),
                                     ("chat", "code", "math", "safety-refuse", "safety-response")])
def test_rm_bench_s_own_folder_gives_its_official_number(model, tmp_path, domains):
    folder = tmp_path / "data"
    folder.mkdir()
    for domain in domains:
        (folder / f"{domain}_filtered.json").write_text(json.dumps(rm_rows(3), indent=1))
    (folder / "total_dataset.json").write_text("[]")
    found = run(tmp_path, "--model", model, "--data", f"rm_bench={folder}")
    rewards = pd.read_parquet(tmp_path / "out" / "rewards.parquet")
    assert len(rewards) == 3 * 6 * len(domains) and set(rewards.subset) == set(domains)
    by_domain = []
    for domain in ("chat", "code", "math", "safety"):
        own = rewards[rewards.subset.str.startswith(domain)].reward.to_numpy().reshape(-1, 2, 3)
        wins = (own[:, 0, :, None] > own[:, 1, None, :]).mean(axis=0)  # (3, 3)
        by_domain.append(np.mean([wins[np.triu_indices(3, 1)].mean(), np.diag(wins).mean(),
                                  wins[np.tril_indices(3, -1)].mean()]))
    assert found.score["overall"] == pytest.approx(np.mean(by_domain))


def test_one_domain_s_file_is_that_domain(tmp_path):
    path = tmp_path / "math_filtered.json"
    path.write_text(json.dumps(rm_rows(3)))
    from src.evaluation.benchmark import benchmark_config
    assert {row.subset for row in read_rows(benchmark_config(f"rm_bench={path}")).answers} == {
        "math"}


@pytest.mark.parametrize(("name", "message"), [("rm_bench", "none is one of"),
                                               ("llmbar", "give the folder Dataset/LLMBar"),
                                               ("reward_bench_2", "expected ref:NUMBER")])
def test_rows_of_another_benchmark_are_refused_before_a_model_reads_them(
        model, tmp_path, monkeypatch, name, message):
    rows = {"rm_bench": rm_rows(3),
            "llmbar": [{"input": "Q?", "output_1": "A.", "output_2": "B.", "label": 1}],
            "reward_bench_2": [{"prompt": "Q?", "chosen": ["A."], "rejected": ["B."],
                                "subset": "Ties", "id": 7}]}[name]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    monkeypatch.setattr("src.evaluation.benchmark.TextScorer", lambda folder: pytest.fail("loaded"))
    with pytest.raises(UserError, match=message):
        run(tmp_path, "--model", model, "--data", f"{name}={path}")
    assert not (tmp_path / "out").exists()
