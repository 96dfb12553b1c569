"""A finished run's card: true, valid for the hub, complete once scored; and its way to the hub."""

import dataclasses
import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard, constants

from configs.run import RunConfig
from configs.schema import from_dict, read_yaml
from src import push
from src.common.errors import UserError
from src.common.files import read_json, write_json
from src.evaluation.experiment import write_cards
from src.reports.results import read_results
from src.runs.cards import Accuracy, model_card, write_model_card
from src.runs.folders import ADAPTER, is_done, read_run
from tests.hub_stand_in import StandInHub, client_of
from tests.tiny_experiment import in_process

SCORES = [Accuracy(seed, "pairs", "test", 1234, 0.7 + seed / 100, 0.65, 0.75, 0.5)
          for seed in (1, 0)]


def run_of(folder):
    return from_dict(RunConfig, read_yaml(folder / "config.yaml"), "config.yaml")


@pytest.fixture(scope="module")
def ceiling(finished, tmp_path_factory):
    """A copy of a finished ceiling of seed 0, to change."""
    source = next(path for path in finished.finished("ceilings") if "-s0-" in path.name)
    return shutil.copytree(source, tmp_path_factory.mktemp("card") / source.name)


@pytest.fixture(scope="module")
def evaluated(finished):
    """The experiment in a copy, scored by eval.py."""
    tiny = finished.copy("cards")
    assert in_process("eval", *tiny.evaluate()) == 0
    return tiny


def test_the_card_of_a_run_that_was_not_scored_has_no_number(finished):
    for stage in ("teachers", "ceilings", "students"):
        folder = finished.finished(stage)[0]
        text = model_card(folder)
        assert "Not scored" in text and "model-index" not in text
        assert f"{len(run_of(folder).kept)} of 4: " in text and "train_" in text
        assert "32 pairs" in text and run_of(folder).data_hash in text


def test_whose_labels_a_student_learned_from_is_told_and_a_control_is_called_one(
        finished, tmp_path):
    folder = shutil.copytree(finished.finished("students")[0], tmp_path / "run")
    values = read_yaml(folder / "config.yaml")
    assert f"| labels | weak labels of {values['teacher']} |" in model_card(folder)
    write = (folder / "config.yaml").write_text
    write(yaml.safe_dump({**values, "earlier": "9" * 16}))
    assert f"weak labels of {values['teacher']} and of a student of theirs |" in model_card(folder)
    write(yaml.safe_dump({**values, "method": {"name": "oracle_noise",
                                               "treatment": "noisy_truth"}}))
    text = model_card(folder)
    assert "human, by treatment noisy_truth" in text and "it is a control" in text
    write(yaml.safe_dump({**values, "method": {"name": "oracle_stop", "early_stopping_evals": 2,
                                               "stop_on": "truth"}}))
    text = model_card(folder)
    assert f"weak labels of {values['teacher']}; human ones of val said when to stop |" in text
    assert "it is a diagnostic" in text


def test_weights_that_were_rounded_are_called_so(ceiling):
    assert "rounded" not in model_card(ceiling)
    manifest = read_json(ceiling / "manifest.json")
    base = {**manifest["base"], "dequantised_from": "m.Q4_1.gguf (a-package==1.0)"}
    write_json(ceiling / "manifest.json", {**manifest, "base": base})
    text = model_card(ceiling)
    write_json(ceiling / "manifest.json", manifest)
    assert "| base weights | dequantised from m.Q4_1.gguf (a-package==1.0): rounded, not" in text


def test_the_header_is_what_the_hub_reads(ceiling):
    manifest = read_json(ceiling / "manifest.json")
    write_json(ceiling / "manifest.json", {
        **manifest, "data_source": "https://huggingface.co/datasets/owner/some_pairs (MIT)",
        "base": {"checkpoint": "owner/base-1B", "revision": "a" * 40, "license": "other",
                 "layers": 6}})
    card = ModelCard(model_card(ceiling, SCORES))
    write_json(ceiling / "manifest.json", manifest)
    data = card.data
    assert (data.base_model, data.datasets) == ("owner/base-1B", ["owner/some_pairs"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert (data.license, data.license_link) == ("other", "https://huggingface.co/owner/base-1B")
    assert data.tags == ["reward-model", "weak-to-strong"]
    result = data.eval_results[0]
    assert len(data.eval_results) == 1 and result.metric_value == 0.7
    assert (result.dataset_name, result.dataset_split) == ("pairs", "test")
    assert result.metric_name == "accuracy, n = 1234, 95% interval 0.6500 to 0.7500"


def test_a_base_and_data_that_are_not_of_the_hub_are_not_named_as_if_they_were(ceiling):
    header = yaml.safe_load(model_card(ceiling).split("---")[1])
    assert set(header) == {"library_name", "pipeline_tag", "tags"}


def test_numbers_of_other_seeds_alone_make_no_claim_for_this_one(ceiling):
    assert "Not scored" in model_card(ceiling, [SCORES[0]])


def test_eval_writes_the_accuracy_of_results_with_n_and_interval_into_every_card(evaluated):
    table = read_results(evaluated.results).accuracy
    for stage in ("teachers", "ceilings", "students"):
        for folder in evaluated.finished(stage):
            run = read_run(folder)  # still done, though its card has grown
            like = table[(table.role == run.kind) & (table.name == run.name)
                         & (table.teacher == run.teacher) & (table.seed == run.seed)].iloc[0]
            text = (folder / "README.md").read_text()
            assert (f"| {run.seed} (this model) | pairs, test | 40 | {like.accuracy:.4f} | "
                    f"{like.low:.4f} to {like.high:.4f} |") in text
            assert f"\n| {1 - run.seed} | pairs, test | 40 |" in text
            results = ModelCard(text).data.eval_results
            assert [result.metric_value for result in results] == [round(like.accuracy, 4)]


def test_a_number_from_training_pairs_gets_into_no_card(evaluated, ceiling):
    results = read_results(evaluated.results)
    trained_on = {**results.meta, "split": "train_2", "contaminated": True}
    before = (ceiling / "README.md").read_text()
    write_cards([(run_of(ceiling), ceiling)], dataclasses.replace(results, meta=trained_on))
    assert (ceiling / "README.md").read_text() == before


def test_the_card_s_code_loads_the_model_and_gives_the_reward_of_our_scoring(ceiling,
                                                                             monkeypatch):
    from data.tokens.formatting import encode_pair, load_tokenizer
    from model.reload_check import plain_rewards

    code = re.search(r"```python\n(.*?)```", (ceiling / "README.md").read_text(), re.S)[1]
    monkeypatch.chdir(ceiling)
    names = {}
    exec(code, names)
    question = [{"role": "user", "content": "What is 2 + 2?"}]
    prompt, answer, _ = encode_pair(load_tokenizer(ceiling), question, "4", "5")
    assert names["reward"] == pytest.approx(plain_rewards(ceiling, [prompt + answer]).item(),
                                            abs=1e-5)


def test_a_run_is_done_whatever_its_card_says_and_not_without_its_config(ceiling):
    identity = run_of(ceiling).identity
    (ceiling / "README.md").write_text((ceiling / "README.md").read_text() + "\n")
    assert is_done(ceiling, identity)
    done = read_json(ceiling / "DONE")
    assert "README.md" not in done["files"] and "config.json" in done["files"]
    write_json(ceiling / "DONE", {**done, "files": {**done["files"], "README.md": 1}})
    assert is_done(ceiling, identity)  # as runs before this were marked


@pytest.fixture
def hub(base, monkeypatch):
    with StandInHub(base("llama")).running() as hub, client_of(hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "a-token")
        yield hub


def test_a_push_uploads_weights_config_tokenizer_and_card_and_nothing_else(evaluated, hub, capsys):
    folder = evaluated.finished("ceilings")[0]
    push.main(["--model", str(folder), "--repo", "someone/mine", "--private"])
    files = hub.pushed["someone/mine"]
    assert set(files) == {"model.safetensors", "config.json", "tokenizer.json",
                          "tokenizer_config.json", "chat_template.jinja", "README.md"}
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert 'from_pretrained("someone/mine")' in card and "(this model)" in card
    for name, data in files.items():
        assert name == "model.safetensors" or str(evaluated.root).encode() not in data
    assert hub.private == {"someone/mine"}
    assert f"pushed to {hub.endpoint}/someone/mine" in capsys.readouterr().out


def test_an_adapter_goes_up_beside_the_weights_that_it_was_merged_into(ceiling, hub, tmp_path,
                                                                       capsys):
    folder = shutil.copytree(ceiling, tmp_path / "run")
    write_model_card(folder)
    (folder / ADAPTER).mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", "mine.json"):
        (folder / ADAPTER / name).write_bytes(name.encode())
    push.main(["--model", str(folder), "--repo", "someone/mine"])
    files = hub.pushed["someone/mine"]
    adapter = {name: data for name, data in files.items() if "/" in name}
    assert adapter == {f"adapter/{name}": name.encode()
                       for name in ("adapter_model.safetensors", "adapter_config.json")}
    assert len(files) == 8 and "MB  adapter/adapter_config.json" in capsys.readouterr().out


def test_a_dry_run_shows_the_files_and_asks_nobody(ceiling, hub, capsys):
    write_model_card(ceiling)  # as training does
    push.main(["--model", str(ceiling), "--repo", "someone/mine", "--dry-run"])
    shown = capsys.readouterr().out
    assert "MB  model.safetensors" in shown and "no accuracy" in shown and not hub.pushed


@pytest.mark.parametrize(("repo", "message"), [
    ("mine", "expected OWNER/NAME"), ("a/b/c", "--repo a/b/c"), ("some one/mine", "--repo some")])
def test_a_name_that_is_none_is_refused(ceiling, repo, message):
    with pytest.raises(UserError, match=message):
        push.check(ceiling, repo)


def test_what_is_no_finished_run_is_refused(ceiling, base, tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        push.check(base("llama"), "someone/mine")
    folder = shutil.copytree(ceiling, tmp_path / "run")
    (folder / "DONE").unlink()
    with pytest.raises(UserError, match="not finished"):
        push.check(folder, "someone/mine")


def test_without_a_login_or_with_one_that_may_not_write_the_remedy_is_told(ceiling, hub,
                                                                           monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(UserError, match="the hub refused.*hf auth login"):
        push.push(ceiling, "someone/mine", private=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(ceiling / "no_such_file"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(ceiling / "no_such_file"))
    with pytest.raises(UserError, match="no login: `hf auth login`"):
        push.push(ceiling, "someone/mine", private=False)


def test_without_a_network_nothing_is_pushed_and_the_remedy_is_told(ceiling, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="could not be reached.*check the connection"):
        push.push(ceiling, "someone/mine", private=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push.push(ceiling, "someone/mine", private=False)


def test_the_manifest_names_the_base_that_the_card_names(finished):
    facts = json.loads((finished.finished("students")[0] / "manifest.json").read_text())
    assert facts["base"] == {"checkpoint": "", "revision": "main", "license": "", "layers": 4}
