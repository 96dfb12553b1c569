"""A tiny experiment with policies, from prepared data to the page: what is trained, once, and what
is judged."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from model.policy_model import load_language_model
from src.common.errors import UserError
from src.runs.folders import find_finished
from src.runs.plan import Plan
from src.runs.policy_card import write_policy_card
from src.scoring.generations import answer
from src.training.finish import finish
from src.training.policy import raft
from src.training.policy.rows import rows_of_split
from src.training.policy.tune import build_trainer
from tests.tiny_experiment import in_process, make_experiment
from tests.tiny_experiment_parts import prepare_data, sweep_of
from tests.tiny_pairrm import save_pairrm
from tests.training.test_methods import NoisyPlan

POLICIES = {"sft": {"learning_rate": 1e-3, "batch_answers": 8},
            "dpo": {"learning_rate": 1e-3, "batch_pairs": 8, "lora": {"rank": 2}},
            "prompts": 12, "max_new_tokens": 40, "best_of": [1, 3], "raft_rounds": 1,
            "raft_answers": 2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Trained by the one command that trains policies, which also trains what they need."""
    root = tmp_path_factory.mktemp("policies")
    made = make_experiment(root, rows=110, train_pairs=24, test_pairs=24, layers=([1], [2]),
                           seeds=[0])
    made.write_config(made.settings() | {"policies": {**POLICIES, "model": str(
        root / "llama.yaml")}})
    prepare_data(made)
    assert in_process("src.train", *made.train("policies")) == 0
    return made


def folders(tiny) -> dict[str, object]:
    return {run.policy.name + " " + run.policy.source: find_finished(
        tiny.runs_dir, run.stage, run.identity) for run in sweep_of(tiny).policies}


def test_policies_and_the_reward_models_that_they_need_are_trained_once(tiny):
    found = folders(tiny)
    assert set(found) == {"sft gt", "dpo gt", "dpo teacher", "dpo student", "raft1 teacher",
                          "raft1 student"} and all(found.values())
    assert [len(tiny.finished(stage)) for stage in ("teachers", "ceilings", "students")] == [1] * 3
    written = {name: (folder / "DONE").stat().st_mtime_ns for name, folder in found.items()}
    assert in_process("src.train", *tiny.train("policies")) == 0
    assert written == {name: (folder / "DONE").stat().st_mtime_ns
                       for name, folder in folders(tiny).items()}


def test_a_student_that_labels_alone_gets_its_teacher_trained_first(tiny):
    other = tiny.copy("student-alone")
    shutil.rmtree(other.runs_dir)
    values = other.settings()
    values["policies"] |= {"labels": ["gt", "student"]}
    other.write_config(values)
    plan = sweep_of(other)
    run = next(run for run in plan.policies if run.policy.source == "student")
    assert finish(run, plan, other.runs_dir) and len(other.finished("teachers")) == 1


def test_both_labellers_choose_among_answers_that_were_given_once(tiny, tmp_path, monkeypatch):
    plan, sft = sweep_of(tiny), folders(tiny)["sft gt"]
    rounds, model = [run for run in plan.policies if run.policy.step == "raft"], (
        load_language_model(sft))
    asked = []
    monkeypatch.setattr(raft, "answer", lambda *given: asked.append(given) or answer(*given))

    def chosen(folder):
        return [raft.best_answers(run, plan, tiny.runs_dir, model, folder).rows for run in rounds]

    kept = chosen(sft)
    assert len(rounds) == 2 and not asked
    other = shutil.copytree(sft, tmp_path / "sft", ignore=shutil.ignore_patterns("answers"))
    assert chosen(other) == kept and len(asked) == 1


def test_a_policy_is_a_plain_language_model_that_differs_from_where_it_began(tiny):
    found = folders(tiny)
    for name, folder in found.items():
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert type(model).__name__ == "LlamaForCausalLM" and model.config.num_hidden_layers == 4
        assert not list(folder.glob("adapter*")) and "A language model" in (
            folder / "README.md").read_text()
        if name != "sft gt":
            begun = load_file(found["sft gt"] / "model.safetensors")
            own = load_file(folder / "model.safetensors")
            assert set(own) == set(begun) and any(not torch.equal(own[key], begun[key])
                                                  for key in own)


def test_a_policy_says_of_its_base_what_reward_models_do_and_that_its_weights_were_rounded(
        tiny, tmp_path):
    folder = shutil.copytree(folders(tiny)["sft gt"], tmp_path / "policy")
    manifest = json.loads((folder / "manifest.json").read_text())
    other = json.loads((tiny.finished("students")[0] / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("base", "data_source")} == {
        key: other[key] for key in ("base", "data_source")}
    manifest["base"]["dequantised_from"] = "m.Q4_1.gguf"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_policy_card(folder)
    assert "| base weights | dequantised from m.Q4_1.gguf: rounded, not" in (
        folder / "README.md").read_text()


def test_the_first_loss_is_that_of_a_policy_that_is_its_own_reference(tiny):
    log = [json.loads(line) for line in
           (folders(tiny)["dpo teacher"] / "log.jsonl").read_text().splitlines()]
    assert float(log[0]["loss"]) == pytest.approx(np.log(2), abs=1e-3)
    assert float(log[-1]["rewards/margins"]) != 0


def log_probability(model, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Of an answer, summed over its tokens."""
    logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) + place - 1, token] for place, token in enumerate(answer))


@pytest.mark.parametrize(("loss", "smoothing"), [("sigmoid", 0.0), ("ipo", 0.0), ("robust", 0.2)])
def test_the_library_s_losses_are_those_of_the_papers(tiny, tmp_path, loss, smoothing):
    """A policy that has left its reference, on four pairs."""
    plan, folder = sweep_of(tiny), folders(tiny)["sft gt"]
    run = next(run for run in plan.policies if run.policy.step == "dpo")
    step = dataclasses.replace(run.policy, loss=loss, label_smoothing=smoothing, beta=0.3)
    run = dataclasses.replace(run, policy=step, train=dataclasses.replace(run.train, lora=None))
    rows = rows_of_split(run, plan, tiny.runs_dir).rows[:4]
    trainer = build_trainer(run, plan.experiment.runtime, rows, load_language_model(folder),
                            plan.bases[run.model].tokenizer, tmp_path)
    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        trainer.model.load_state_dict(policy.state_dict())
        found = trainer.compute_loss(trainer.model, trainer.data_collator(
            [trainer.train_dataset[place] for place in range(4)]))
        models, wanted = (policy, AutoModelForCausalLM.from_pretrained(folder)), []
        for row in rows:
            sides = [row["chosen_ids"], row["rejected_ids"]]
            gains = [float(log_probability(models[0], row["prompt_ids"], side)
                           - log_probability(models[1], row["prompt_ids"], side)) for side in sides]
            mean = gains[0] / len(sides[0]) - gains[1] / len(sides[1])
            h = 0.3 * (gains[0] - gains[1])
            right, wrong = np.logaddexp(0, -h), np.logaddexp(0, h)
            wanted.append((mean - 1 / 0.6) ** 2 if loss == "ipo" else
                          ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing))
    assert abs(h) > 0.01 and float(found) == pytest.approx(np.mean(wanted), rel=1e-4)


@pytest.mark.parametrize("forwards", [2, 4, 8])
def test_every_pair_of_a_short_step_counts_alike_however_many_a_forward_holds(tiny, tmp_path,
                                                                              forwards):
    """The gradient of six pairs under steps of eight, beside that of the mean of their losses."""
    plan, folder = sweep_of(tiny), folders(tiny)["sft gt"]
    run = next(run for run in plan.policies if run.policy.step == "dpo")
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, lora=None, batch_pairs=8,
                                                             max_grad_norm=1e9))
    rows = rows_of_split(run, plan, tiny.runs_dir).rows[:6]
    longest = max(sum(map(len, row.values())) for row in rows)
    runtime = dataclasses.replace(plan.experiment.runtime, micro_batch_tokens=forwards * longest)
    trainer = build_trainer(run, runtime, rows, load_language_model(folder),
                            plan.bases[run.model].tokenizer, tmp_path)
    found = {}

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **given):
            found.update({name: each.grad.clone() for name, each in model.named_parameters()})

    trainer.add_callback(Watch())
    trainer.train()
    assert trainer.state.global_step == 1 and trainer.args.per_device_train_batch_size == forwards
    policy = AutoModelForCausalLM.from_pretrained(folder)
    gains = [log_probability(policy, row["prompt_ids"], row["chosen_ids"])
             - log_probability(policy, row["prompt_ids"], row["rejected_ids"]) for row in rows]
    wanted = [-torch.nn.functional.logsigmoid(run.policy.beta * (gain - gain.detach()))
              for gain in gains]
    torch.stack(wanted).mean().backward()
    for name, each in policy.named_parameters():
        assert torch.allclose(found[name], each.grad, rtol=1e-3, atol=1e-6), name


def test_no_policy_of_a_teacher_reads_a_human_label_of_train_2(tiny):
    """Half of them turned: the same weights."""
    other = tiny.copy("noise")
    plan = sweep_of(other)
    plan.__class__ = NoisyPlan
    run = next(run for run in plan.policies
               if (run.policy.step, run.policy.source) == ("dpo", "teacher"))
    for place in other.runs_dir.glob("tiny/policies/*-dpo-teacher-*/*"):
        if place.is_file():
            place.unlink()
    for made in ("weak_labels", "scores"):
        for place in other.runs_dir.glob(f"tiny/teachers/*/{made}/*"):
            place.unlink()
    finish(run, plan, other.runs_dir)
    again = find_finished(other.runs_dir, run.stage, run.identity) / "model.safetensors"
    for name, tensor in load_file(folders(tiny)["dpo teacher"] / "model.safetensors").items():
        assert torch.allclose(load_file(again)[name], tensor, atol=5e-5), name


def test_the_judge_is_needed_and_changes_no_identity(tiny):
    plan = sweep_of(tiny)
    ceiling, run = plan.stage("ceilings")[0], plan.policies[2]
    assert run.judge == ceiling.identity and ceiling in plan.needed(run)
    values = tiny.settings()
    values["policies"] |= {"judge": "student", "labels": ["gt", "teacher"]}
    other = tiny.copy("judge")
    other.write_config(values)
    same = Plan(sweep_of(other).experiment, other.processed.parent).policies[2]
    assert (same.identity, same.judge != run.judge) == (run.identity, True)


def test_adapters_for_layers_that_there_are_not_are_refused_before_anything_is_trained(tiny):
    other = tiny.copy("adapters")
    values = other.settings()
    values["policies"]["dpo"] |= {"lora": {"targets": ["q_proj", "nowhere"]}}
    other.write_config(values)
    with pytest.raises(UserError, match="llama, policies: lora targets nowhere"):
        sweep_of(other)


@pytest.fixture(scope="module")
def judged(tiny):
    assert in_process("eval", *tiny.evaluate()[:-2], "--policies") == 0
    return tiny


def test_every_policy_is_judged_on_the_same_prompts(judged):
    table = pd.read_csv(judged.results / "policy" / "policy.csv")
    assert [*zip(table.policy, table.labels, strict=True)] == [
        ("sft", "gt"), ("dpo", "gt"), ("dpo", "teacher"), ("dpo", "student"), ("raft1", "teacher"),
        ("raft1", "student"), ("best_of_3", "teacher"), ("best_of_3", "student")]
    assert (table.n == 12).all() and (table.better + table.ties + table.worse == 12).all()
    assert (table.judge == "ceiling").all()
    compared = pd.read_csv(judged.results / "policy" / "comparison.csv")
    assert compared.policy.to_list() == ["dpo", "raft1", "best_of_3"]
    best = pd.read_csv(judged.results / "policy" / "best_of.csv")
    assert best.groupby("labels").proxy_reward.apply(lambda own: own.is_monotonic_increasing).all()


def test_answers_are_kept_with_rewards_lengths_and_whether_they_ended(judged):
    for name, folder in folders(judged).items():
        table = pd.read_parquet(folder / "answers" / "test.parquet")
        assert list(table) == ["prompt_id", "sample", "response", "tokens", "characters",
                               "finished", "log_ratio", "reward_judge", "reward_teacher",
                               "reward_student"]
        assert len(table) == table.prompt_id.nunique() == 12
        assert (folder / "answers" / "test-3.parquet").is_file() == (name == "sft gt")
        assert (table.characters == table.response.str.len()).all()
        assert (table.tokens[~table.finished] == 40).all()
        assert (table.log_ratio == 0).all() == (name == "sft gt")


def test_a_second_call_samples_nothing_and_writes_the_same_tables(judged):
    files = {path: path.read_bytes() for path in (judged.results / "policy").glob("*.csv")}
    made = {path: path.stat().st_mtime_ns for path in judged.runs_dir.glob("*/*/*/answers/*")}
    assert in_process("eval", *judged.evaluate()[:-2], "--policies") == 0
    assert files and all(path.read_bytes() == text for path, text in files.items())
    assert made and all(path.stat().st_mtime_ns == time for path, time in made.items())


def judge_with(judged, **changes) -> None:
    """Once more, with other keys of the policies' block."""
    made = judged.settings()
    judged.write_config(made | {"policies": {**made["policies"], **changes}})
    try:
        assert in_process("eval", *judged.evaluate()[:-2], "--policies") == 0
    finally:
        judged.write_config(made)


def test_answers_that_were_drawn_at_another_temperature_have_no_kl(judged):
    other = judged.copy("warm")
    judge_with(other, temperature=0.7, raft_rounds=0)
    table = pd.read_csv(other.results / "policy" / "policy.csv").set_index("policy")
    assert table.kl["dpo"].isna().all() and table.kl["sft"] == 0 < table.kl["best_of_3"].iloc[0]
    page = (other.results / "policy" / "report.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| dpo | teacher"))
    assert row.split(" | ")[-3] == "-"
    assert pd.read_csv(judged.results / "policy" / "policy.csv").kl.notna().all()


def test_a_second_judge_compares_the_same_answers_where_a_folder_of_it_is_named(judged, tmp_path):
    judge_with(judged, pairrm=str(save_pairrm(tmp_path)))
    table = pd.read_csv(judged.results / "policy" / "policy.csv").set_index(["policy", "labels"])
    for name, folder in folders(judged).items():
        path = folder / "answers" / "test-pairrm.parquet"
        assert path.is_file() == (name != "sft gt")
        if path.is_file():
            logits = pd.read_parquet(path).logit
            assert table.pairrm_rate[tuple(name.split())] == pytest.approx(
                (logits > 0).mean() + 0.5 * (logits == 0).mean())
    assert table.pairrm_rate.isna().sum() == 3  # sft, and what was only picked


def test_the_page_leads_with_the_answer_and_shows_every_figure(judged):
    page = (judged.results / "policy" / "report.md").read_text()
    assert page.split("\n\n")[1].startswith("**dpo: by the ceiling, the policy aligned to the weak")
    for name in ("dpo_data_mean", "dpo_data_scatter", "dpo_data_difference", "dpo_data_wins",
                 "best_of"):
        assert f"figures/{name}.png" in page
        assert (judged.results / "policy" / "figures" / f"{name}.png").is_file()


@pytest.mark.parametrize("examples", [0, 2])
def test_the_page_shows_the_answers_to_as_many_prompts_as_the_experiment_says(judged, examples):
    judge_with(judged, examples=examples)
    for name in ("report.md", "report.html"):
        page = (judged.results / "policy" / name).read_text()
        assert ("What they say" in page) == (examples > 0)
        assert sum(f"Prompt {place}" in page for place in range(1, 5)) == examples
