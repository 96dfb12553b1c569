"""Fetching base models: whole or not at all, and every refusal says what to do."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from configs.model_schema import ModelConfig
from configs.schema import CONFIG_ROOT
from model import download
from model.base.weights import tensor_files
from model.hub.plan import check_space, make_plans, silences, table
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.lock import lock
from tests.hub_stand_in import CHUNK, COMMIT, StandInHub, client_of

TINY = ModelConfig(name="tiny", checkpoint="someone/tiny", family="llama", revision=COMMIT,
                   download_gb=1.5, parameters=0.7)
WEIGHTS = "model.safetensors"
SERIES = {"gpt_neo_125m", "gpt_neo_1_3b", "gpt_neo_2_7b", "llama_3_2_1b", "llama_3_2_3b",
          "llama_3_1_8b", "ministral_3b", "ministral_4b", "mistral_7b", "gpt2", "gpt2_medium",
          "gpt2_large", "gpt2_xl", "gemma_2_2b", "gemma_2_9b", "qwen3_0_6b", "qwen3_1_7b",
          "qwen3_4b", "qwen3_8b", "smollm2_135m", "smollm2_360m", "smollm2_1_7b", "gemma_3_270m",
          "gemma_3_270m_it", "gemma_3_1b", "mistral_7b_v0_1"}


@pytest.fixture
def hub(base, tmp_path, monkeypatch):
    """The stand-in hub with a tiny Llama, and checkpoints in a folder of the test's own."""
    monkeypatch.setattr("configs.model_schema.REPO_ROOT", tmp_path)
    with StandInHub(base("llama")).running() as hub, client_of(hub, monkeypatch):
        yield hub


def changed(**changes):
    return ModelConfig(**{**vars(TINY), **changes})


def fetch(model=TINY):
    plans = make_plans([model])
    check_space(plans)
    return download.fetch(plans[0])


def partial(model=TINY):
    return model.path.with_name(model.path.name + ".partial")


def test_a_fetched_model_is_whole_and_a_second_call_asks_nothing(hub):
    assert "fetched" in fetch()
    assert tensor_files(TINY.path) and not partial().exists()
    held = {file.name for file in TINY.path.iterdir()}
    assert held == {*(file.name for file in hub.folder.iterdir()), "source.json"}
    for file in hub.folder.iterdir():
        assert (TINY.path / file.name).read_bytes() == file.read_bytes()
    assert json.loads((TINY.path / "source.json").read_text()) == {
        "checkpoint": "someone/tiny", "revision": COMMIT, "commit": COMMIT}
    asked = len(hub.requests)
    assert "already there" in fetch()
    assert len(hub.requests) == asked


def test_a_connection_that_is_cut_for_a_moment_is_taken_up_where_it_broke(hub, monkeypatch):
    hub.cut[WEIGHTS] = 40 * CHUNK
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep",
                        lambda seconds: hub.cut.clear())
    assert "fetched" in fetch()
    assert hub.sent(WEIGHTS) == ["", f"bytes={40 * CHUNK}-"]


def test_a_fetch_that_is_cut_short_leaves_no_model_and_asks_later_only_for_the_rest(hub):
    hub.cut[WEIGHTS] = 20 * CHUNK
    with pytest.raises(UserError, match="could not be reached.*same command again"):
        fetch()
    assert not TINY.path.exists()
    assert (partial() / WEIGHTS).stat().st_size == 20 * CHUNK
    here = [path.stat().st_size for path in partial().iterdir() if path.name != "source.json"]
    plan = make_plans([TINY])[0]
    assert plan.missing_bytes == plan.listing.size - sum(here) and "GB of it" in table([plan])
    hub.cut.clear()
    hub.requests.clear()
    assert "fetched" in fetch()
    assert hub.sent(WEIGHTS) == [f"bytes={20 * CHUNK}-"] and hub.sent("config.json") == []
    assert (TINY.path / WEIGHTS).read_bytes() == (hub.folder / WEIGHTS).read_bytes()


def test_what_an_unfinished_download_was_once_called_is_not_left_beside_the_model(hub):
    hub.cut[WEIGHTS] = 20 * CHUNK
    with pytest.raises(UserError):
        fetch()
    (partial() / WEIGHTS).rename(partial() / f"{WEIGHTS}.part")
    hub.cut.clear()
    assert "fetched" in fetch()
    assert {file.name for file in TINY.path.iterdir()} == {
        *(file.name for file in hub.folder.iterdir()), "source.json"}


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])  # checked by sha256, by git's id
def test_a_file_with_another_checksum_is_deleted_and_named_and_fetched_again(hub, name):
    hub.wrong.add(name)
    with pytest.raises(UserError, match=f"arrived with a checksum.*: {name} with .*run the same"):
        fetch()
    assert not (partial() / name).exists() and not TINY.path.exists()
    hub.wrong.clear()
    assert "fetched" in fetch()
    assert hub.sent(name) == ["", ""]


def test_a_part_that_was_spoilt_on_the_disk_is_found_out(hub):
    hub.cut[WEIGHTS] = 20 * CHUNK
    with pytest.raises(UserError):
        fetch()
    hub.cut.clear()
    part = partial() / WEIGHTS
    part.write_bytes(bytes(20 * CHUNK))
    with pytest.raises(UserError, match="arrived with a checksum"):
        fetch()
    assert not part.exists() and "fetched" in fetch()


def test_what_is_left_of_another_commit_is_not_mixed_in(hub, tmp_path):
    hub.cut[WEIGHTS] = 100
    with pytest.raises(UserError):
        fetch()
    shutil.copytree(hub.folder, tmp_path / "newer")
    (tmp_path / "newer" / "generation_config.json").write_text('{"new": 1}')
    hub.folder, hub.commit = tmp_path / "newer", "d" * 40
    hub.revisions = {"d" * 40: "d" * 40}
    hub.cut.clear()
    moved = changed(revision="d" * 40)
    assert "fetched" in fetch(moved)
    assert json.loads((moved.path / "generation_config.json").read_text()) == {"new": 1}
    assert hub.sent(WEIGHTS)[-1] == ""


def test_of_two_downloads_of_a_model_the_second_waits_and_finds_it_there(hub, monkeypatch):
    said = io.StringIO()  # capsys loses what is printed while it is read
    monkeypatch.setattr(sys, "stdout", said)
    with ThreadPoolExecutor(1) as pool:
        with lock(TINY.path):
            second = pool.submit(fetch)
            while "another launch is at work" not in said.getvalue():
                assert not second.done()
                time.sleep(0.01)
            shutil.copytree(hub.folder, TINY.path)
        assert "already there" in second.result()
    assert not hub.sent(WEIGHTS)


@pytest.mark.parametrize("status", [401, 403])  # without a login; with one that has no access
def test_a_gated_model_says_how_to_get_access(hub, status):
    hub.gated = status
    assert " yes " in table(make_plans([TINY]))
    with pytest.raises(UserError, match="gated: ask for access on https://huggingface.co/someone/"
                                        "tiny.*hf auth login"):
        fetch()
    assert not TINY.path.exists()


@pytest.mark.parametrize(("changes", "remedy"), [
    ({"checkpoint": "someone/nothing"}, "no such model.*correct the name"),
    ({"revision": "e" * 40}, "no revision e+: correct `revision`.*commits/main"),
    ({"family": "qwen3"}, "'llama', but its config says family 'qwen3'"),
    ({"checkpoint": "model/checkpoints/made"}, "made here.*model.pretrain")])
def test_a_wrong_config_is_named_with_its_remedy(hub, changes, remedy):
    with pytest.raises(UserError, match=remedy):
        fetch(changed(**changes))
    assert not TINY.path.exists()


def test_offline_the_sizes_are_those_of_the_configs_and_nothing_is_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    plans = make_plans([TINY, changed(name="other")])
    shown = table(plans)
    assert "~1.50" in shown and "0.7B" in shown and "2 models, 3.00 GB to fetch" in shown
    assert hub.requests == []
    assert [reason.split(": ")[1] for reason in silences(plans)] == [
        "HF_HUB_OFFLINE is set, so the hub is not asked"]
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch()


def test_online_the_sizes_are_those_of_the_hub(hub):
    shown = table(make_plans([TINY]))
    listed = {file["rfilename"]: file["size"] for file in hub.info()["siblings"]}
    wanted = sum(listed[file.name] for file in hub.folder.iterdir())
    assert make_plans([TINY])[0].missing_bytes == wanted
    assert f" {wanted / 1e9:.2f} " in shown and "~1.50" not in shown


def test_without_a_network_the_hub_is_asked_once_and_the_remedy_is_told(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    plans = make_plans([TINY, changed(name="other")])
    assert plans[0].error is plans[1].error
    with pytest.raises(UserError, match="could not be reached.*check the connection.*or copy the "
                                        "checkpoint to .*model/checkpoints/tiny"):
        download.fetch_all(plans)


def test_an_error_of_our_own_is_not_blamed_on_the_connection(hub, monkeypatch):
    def slip(*args, **kwargs):
        raise KeyError("a slip")

    monkeypatch.setattr("model.hub.files.http_get", slip)
    with pytest.raises(KeyError):
        fetch()


def test_a_disk_without_room_is_told_before_anything_is_fetched(hub, monkeypatch):
    needed = make_plans([TINY])[0].missing_bytes
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr("model.hub.plan.shutil.disk_usage",
                            lambda path, free=free: SimpleNamespace(free=free))
        if fits:
            check_space(make_plans([TINY]))
        else:
            with pytest.raises(UserError, match="GB to fetch, but .* GB free.*bigger disk"):
                check_space(make_plans([TINY]))
    assert not hub.sent(WEIGHTS)


def test_a_disk_that_fills_up_names_the_file_and_keeps_what_arrived(hub):
    hub.cut[WEIGHTS] = 10
    with pytest.raises(UserError):
        fetch()
    hub.cut.clear()
    part = partial() / WEIGHTS
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        fetch()
    assert caught.value.filename == str(part) and (partial() / "config.json").is_file()


def test_a_model_without_safetensors_is_refused(hub, tmp_path):
    hub.folder = tmp_path / "old"
    hub.folder.mkdir()
    (hub.folder / "config.json").write_text("{}")
    hub.extra = {"pytorch_model.bin": b"x"}
    with pytest.raises(UserError, match="no safetensors"):
        fetch()


def test_a_revision_that_moves_is_fetched_with_a_word_on_how_to_pin_it(hub):
    assert f"main may move on: `revision: {COMMIT}`" in fetch(changed(revision="main"))


def test_what_is_there_must_be_whole_and_of_the_pinned_revision(hub):
    fetch()
    with pytest.raises(UserError, match="holds someone/tiny at c+, but.*delete the folder"):
        fetch(changed(revision="b" * 40))
    (TINY.path / WEIGHTS).write_bytes(b"cut")
    with pytest.raises(UserError, match="not a whole safetensors file.*delete"):
        fetch()


def test_of_several_models_one_that_is_refused_does_not_keep_the_others_away(hub, capsys):
    plans = make_plans([changed(name="first", revision="e" * 40), TINY])
    with pytest.raises(UserError, match="1 of 2 models are not there.*: first"):
        download.fetch_all(plans)
    assert TINY.path.is_dir() and "no revision" in capsys.readouterr().err


def test_names_are_of_models_of_experiments_of_files_or_all():
    names = [model.name for model in download.named_models(["gpt2", "qwen3_4b", "gpt2_xl"])]
    assert names == ["gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl", "qwen3_4b"]
    path = str(CONFIG_ROOT / "models" / "gpt2.yaml")
    assert [model.name for model in download.named_models([path])] == ["gpt2"]
    path = str(CONFIG_ROOT / "experiments" / "mistral.yaml")
    assert len(download.named_models([path])) == 3
    with pytest.raises(UserError, match="no models config 'nope'"):
        download.named_models(["nope"])


def test_all_are_the_series_that_are_promised_each_with_its_size(monkeypatch):
    models = download.named_models(["all"])
    assert {model.name for model in models} >= SERIES
    assert not {"demo", "hh_small"} & {model.name for model in models}
    rows = {line.split()[0]: line for line in table(make_plans(models)).splitlines() if line}
    for model in models:
        assert model.download_gb > 0 and model.parameters > 0 and model.license
        assert model.revision[:12] in rows[model.name]
        # bytes a parameter: 2 (bf16) to 4 (fp32), more where output or mask tensors are written
        assert 1.9 < model.download_gb / model.parameters < 4.5


def test_a_size_that_is_impossible_is_refused():
    with pytest.raises(UserError, match="download_gb -1"):
        changed(download_gb=-1)


def test_hf_endpoint_names_a_mirror(base, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"checkpoint: someone/tiny\nfamily: llama\nrevision: {COMMIT}\n"
                      "download_gb: 7\n")
    with StandInHub(base("llama")).running() as hub:
        done = subprocess.run(
            [sys.executable, "model/download.py", "--model", str(config), "--dry-run"],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}, cwd=REPO_ROOT,
            capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 model, 0.00 GB to fetch" in done.stdout and "~7" not in done.stdout


@pytest.mark.parametrize(("command", "folder"), [
    (["model/download.py"], "."), (["-m", "model.download"], "."), (["download.py"], "model")])
def test_the_command_runs_from_the_root_as_a_module_and_from_its_folder(command, folder):
    done = subprocess.run([sys.executable, *command, "--model", "all", "--dry-run"],
                          cwd=REPO_ROOT / folder, capture_output=True, text=True)
    assert done.returncode == 0 and "meta-llama/Llama-3.2-1B-Instruct" in done.stdout


def test_a_mistake_is_one_line_and_exit_code_2():
    done = subprocess.run([sys.executable, "model/download.py", "--model", "nope"],
                          cwd=REPO_ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no models config") and done.stderr.count("\n") == 1


def test_a_model_that_comes_with_the_repository_is_there():
    demo = str(CONFIG_ROOT / "models" / "demo.yaml")
    assert table(make_plans(download.named_models([demo]))).splitlines()[1].endswith(" yes")
