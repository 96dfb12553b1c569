"""Command: fetch base models at their pinned revision. See --help.

    python model/download.py --model llama_3_2_1b

A checkpoint appears under its name only when it is whole, so that a folder that is there is one
that can be used.
"""

import argparse
import fnmatch
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from huggingface_hub import HfApi, snapshot_download  # noqa: E402
from huggingface_hub.errors import (  # noqa: E402
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from configs.errors import UserError, run_command  # noqa: E402
from configs.schema import (  # noqa: E402
    CONFIG_ROOT,
    ExperimentConfig,
    ModelConfig,
    load_config,
    read_yaml,
)

HELP = """\
Fetch the base models of an experiment from huggingface.co, at the revision pinned in
configs/models, into model/checkpoints/NAME: safetensors, tokenizer and config only. What is there
is left alone; what was cut short goes on where it stopped.

examples:
  python model/download.py --model llama_3_2_1b          every model of that experiment
  python model/download.py --model configs/models/gpt2.yaml   that model alone

Llama, Gemma and some Mistral models are gated: accept the licence on the model's page once, then
`hf auth login`. HF_HOME, HF_TOKEN and HF_ENDPOINT (a mirror) are the hub's own settings. Once
fetched, everything works with HF_HUB_OFFLINE=1. `demo` comes with the repository.
"""
WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
UNWANTED = ("*/*", "consolidated*")
"""Sub-folders hold other formats (onnx, original); consolidated files hold the weights again."""
SOURCE = "source.json"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are UserErrors, one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python model/download.py --help")


def named_models(name: str) -> list[ModelConfig]:
    """The models that `--model` names: those of an experiment, or one of configs/models.

    A name that both have means the experiment; the path of a YAML file says which is meant.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        is_experiment = path.is_file() and "checkpoint" not in read_yaml(path)
    else:
        is_experiment = (CONFIG_ROOT / "experiments" / f"{name}.yaml").is_file()
    if not is_experiment:
        return [load_config(ModelConfig, name)]
    experiment = load_config(ExperimentConfig, name)
    return [load_config(ModelConfig, model) for model in experiment.model_names]


def fetch(model: ModelConfig) -> str:
    """Make `model.path` a whole checkpoint; returns a line that says what was done.

    Raises:
        UserError: gated, unknown or unreachable; not a checkpoint of the config's family; a folder
            that holds another revision.
    """
    folder = model.path
    if folder.exists():
        _check_present(model)
        return f"{model.name}: already there, {_shown(folder)}"
    if _is_local(model.checkpoint):
        raise UserError(f"{model.name}: no folder {model.checkpoint}, and it is made here, not "
                        "fetched: see python -m model.pretrain --help")
    partial = folder.with_name(folder.name + ".partial")
    print(f"{model.name}: fetching {model.checkpoint} at {model.revision[:12]}", flush=True)
    commit = _download(model, partial)
    _check_checkpoint(model, partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    source = {"checkpoint": model.checkpoint, "revision": model.revision, "commit": commit}
    (partial / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    return f"{model.name}: fetched {size:.1f} GB to {_shown(folder)}"


def _is_local(checkpoint: str) -> bool:
    """Whether a checkpoint is a path of the repository, not a hub id (`name` or `owner/name`)."""
    return checkpoint.startswith(("model/", ".", "/")) or checkpoint.count("/") > 1


def _shown(folder: Path) -> Path:
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def _check_present(model: ModelConfig) -> None:
    """UserError unless the folder that is there is whole and of the config's revision."""
    try:
        _check_checkpoint(model, model.path)
    except UserError as error:
        raise UserError(f"{error}; or delete {model.path} and run the same command again") from None
    source = model.path / SOURCE
    if source.is_file():
        held = json.loads(source.read_text(encoding="utf-8"))
        if (held["checkpoint"], held["revision"]) != (model.checkpoint, model.revision):
            raise UserError(f"{model.path}: holds {held['checkpoint']} at {held['revision']}, but "
                            f"the config names {model.checkpoint} at {model.revision}: delete the "
                            "folder and run the same command again")


def _check_checkpoint(model: ModelConfig, folder: Path) -> None:
    """UserError unless the folder holds a config of the right family, and whole safetensors."""
    from model.truncate import check_family  # torch: seconds that --help need not take
    from model.weights import read_config, tensor_files

    check_family(read_config(folder), str(folder), model.family)
    tensor_files(folder)


def _download(model: ModelConfig, partial: Path) -> str:
    """Fetch every wanted file into `partial`; returns the commit."""
    with _hub_errors(model):
        info = HfApi().model_info(model.checkpoint, revision=model.revision)
        wanted = _wanted([file.rfilename for file in info.siblings])
        if not any(name.endswith(".safetensors") for name in wanted):
            raise UserError(f"{model.checkpoint} at {model.revision}: has no safetensors, and "
                            "other weights are not read; name another revision or model")
        snapshot_download(model.checkpoint, revision=info.sha, local_dir=partial,
                          allow_patterns=wanted)
    missing = [name for name in wanted if not (partial / name).is_file()]
    if missing:  # the hub's client is content with a folder that a lost connection left
        raise UserError(_unreachable(model, f"{missing[0]} did not arrive"))
    return info.sha


@contextmanager
def _hub_errors(model: ModelConfig) -> Iterator[None]:
    """Turn what the hub's client raises into a UserError with the remedy."""
    checkpoint, page = model.checkpoint, f"https://huggingface.co/{model.checkpoint}"
    try:
        yield
    except GatedRepoError:
        raise UserError(f"{checkpoint} is gated: accept its licence at {page}, then "
                        "`hf auth login` and run the same command again") from None
    except RepositoryNotFoundError:
        raise UserError(f"{checkpoint}: no such model on the hub, or one that your login does not "
                        "see: correct `checkpoint`, or `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"{checkpoint}: no revision {model.revision}: correct `revision`; "
                        f"{page}/commits/main lists them") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{checkpoint}: HF_HUB_OFFLINE is set: unset it to fetch, or copy the "
                        f"checkpoint to {model.path}") from None
    except (HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise UserError(_unreachable(model, error)) from None
    except Exception as error:
        # the HTTP library under the client changes with its releases: told by its name
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise UserError(_unreachable(model, error)) from None


def _wanted(names: list[str]) -> list[str]:
    """The files of a repository that are worth fetching."""
    return [name for name in names
            if any(fnmatch.fnmatch(name, pattern) for pattern in WANTED)
            and not any(fnmatch.fnmatch(name, pattern) for pattern in UNWANTED)]


def _unreachable(model: ModelConfig, error: object) -> str:
    return (f"{model.checkpoint}: could not be fetched ({error}): check the connection and run the "
            f"same command again, or copy the checkpoint to {model.path}")


def main(arguments: list[str] | None = None) -> None:
    """Fetch what the command line names."""
    parser = Parser(prog="model/download.py", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="NAME",
                        help="a config of configs/experiments or configs/models, or a YAML file")
    for model in named_models(parser.parse_args(arguments).model):
        print(fetch(model), flush=True)


if __name__ == "__main__":
    run_command(main)
