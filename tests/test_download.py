"""Fetching base models: whole or not at all, and every refusal says what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from configs.errors import UserError
from configs.schema import CONFIG_ROOT, REPO_ROOT, ModelConfig
from model import download
from model.weights import tensor_files

REVISION = "a" * 40
TINY = ModelConfig(name="tiny", checkpoint="someone/tiny", family="llama", revision=REVISION)


class Hub:
    """Stands in for huggingface.co: serves a folder's files, or raises."""

    def __init__(self, folder: Path, error: Exception | None = None):
        self.folder, self.error, self.calls = folder, error, 0
        self.extra = ["onnx/config.json", "consolidated.safetensors", "pytorch_model.bin"]
        self.cut_after: int | None = None

    def model_info(self, checkpoint, revision):
        self.calls += 1
        if self.error:
            raise self.error
        names = [file.name for file in self.folder.iterdir()] + self.extra
        return SimpleNamespace(sha=revision, siblings=[SimpleNamespace(rfilename=name)
                                                       for name in sorted(names)])

    def snapshot_download(self, checkpoint, revision, local_dir, allow_patterns):
        assert (checkpoint, revision) == (TINY.checkpoint, REVISION)
        (local_dir / ".cache").mkdir(parents=True, exist_ok=True)
        for name in allow_patterns[:self.cut_after]:
            shutil.copy(self.folder / name, local_dir)


@pytest.fixture
def hub(base, tmp_path, monkeypatch):
    stand_in = Hub(base("llama"))
    monkeypatch.setattr("configs.schema.REPO_ROOT", tmp_path)
    monkeypatch.setattr(download, "HfApi", lambda: stand_in)
    monkeypatch.setattr(download, "snapshot_download", stand_in.snapshot_download)
    return stand_in


def http_error(kind):
    return kind("refused", response=SimpleNamespace(headers={}, status_code=404, request=None))


def test_a_fetched_model_is_whole_and_a_second_call_fetches_nothing(hub):
    assert "fetched" in download.fetch(TINY)
    assert tensor_files(TINY.path)
    held = {file.name for file in TINY.path.iterdir()}
    assert held == {*(file.name for file in hub.folder.iterdir()), "source.json"}
    assert json.loads((TINY.path / "source.json").read_text())["commit"] == REVISION
    assert "already there" in download.fetch(TINY)
    assert hub.calls == 1


def test_a_fetch_that_is_cut_short_leaves_no_model_and_goes_on(hub):
    hub.cut_after = 1
    with pytest.raises(UserError, match="did not arrive.*same command again"):
        download.fetch(TINY)
    assert not TINY.path.exists()
    hub.cut_after = None
    assert "fetched" in download.fetch(TINY)


@pytest.mark.parametrize(("error", "remedy"), [
    (http_error(GatedRepoError), "licence at https://huggingface.co/someone/tiny.*hf auth login"),
    (http_error(RepositoryNotFoundError), "no such model.*correct `checkpoint`"),
    (http_error(RevisionNotFoundError), "no revision a+: correct `revision`"),
    (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set: unset it"),
    (type("ConnectError", (Exception,), {"__module__": "httpx"})("Name or service not known"),
     "check the connection"),
    (TimeoutError("slow"), "check the connection"),
])
def test_each_way_the_hub_refuses_names_its_remedy(hub, error, remedy):
    hub.error = error
    with pytest.raises(UserError, match=remedy):
        download.fetch(TINY)
    assert not TINY.path.exists()


def test_an_error_of_our_own_is_not_blamed_on_the_connection(hub):
    hub.error = KeyError("a slip")
    with pytest.raises(KeyError):
        download.fetch(TINY)


def test_a_model_without_safetensors_is_refused(hub, tmp_path):
    hub.folder = tmp_path / "old"
    hub.folder.mkdir()
    (hub.folder / "config.json").write_text("{}")
    hub.extra = ["pytorch_model.bin"]
    with pytest.raises(UserError, match="no safetensors"):
        download.fetch(TINY)


def test_a_checkpoint_of_another_family_is_refused(hub):
    other = ModelConfig(name="tiny", checkpoint=TINY.checkpoint, family="qwen3", revision=REVISION)
    with pytest.raises(UserError, match="'llama', but its config says family 'qwen3'"):
        download.fetch(other)
    assert not other.path.exists()


def test_what_is_there_must_be_whole_and_of_the_pinned_revision(hub):
    download.fetch(TINY)
    moved = ModelConfig(name="tiny", checkpoint=TINY.checkpoint, family="llama", revision="b" * 40)
    with pytest.raises(UserError, match="holds someone/tiny at a+, but.*delete the folder"):
        download.fetch(moved)
    (TINY.path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="not a whole safetensors file.*delete"):
        download.fetch(TINY)


def test_a_model_made_here_is_not_looked_for_on_the_hub(hub):
    made = ModelConfig(name="made", checkpoint="model/checkpoints/made", family="llama")
    with pytest.raises(UserError, match="made here.*model.pretrain"):
        download.fetch(made)
    assert hub.calls == 0


def test_an_experiment_names_all_its_models_and_a_file_names_one():
    names = [model.name for model in download.named_models("gpt2")]
    assert names == ["gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl"]
    path = str(CONFIG_ROOT / "models" / "gpt2.yaml")
    assert [model.name for model in download.named_models(path)] == ["gpt2"]
    path = str(CONFIG_ROOT / "experiments" / "mistral.yaml")
    assert len(download.named_models(path)) == 3
    with pytest.raises(UserError, match="no models config 'nope'"):
        download.named_models("nope")


@pytest.mark.parametrize(("command", "folder"), [
    (["model/download.py"], "."), (["-m", "model.download"], "."), (["download.py"], "model")])
def test_the_command_runs_from_the_root_as_a_module_and_from_its_folder(command, folder):
    done = subprocess.run([sys.executable, *command, "--help"], cwd=REPO_ROOT / folder,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "--model llama_3_2_1b" in done.stdout


def test_a_mistake_is_one_line_and_exit_code_2():
    done = subprocess.run([sys.executable, "model/download.py", "--model", "nope"],
                          cwd=REPO_ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no models config") and done.stderr.count("\n") == 1
