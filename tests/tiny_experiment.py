"""An experiment in a folder: a tiny random Llama, pairs in preference_700K's form, its configs.

Nothing of it is in the repository's configs: every command finds it by the paths of YAML files.
"""

import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from src.common.files import REPO_ROOT
from tests.families import save_base
from tests.tiny_data import llama_like, messages_row, save, write_jsonl

ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore::FutureWarning",
    "PYTHONPATH": str(REPO_ROOT)}
"""For commands in processes of their own."""

WORDS = ["river", "stone", "lamp", "seven", "bridge", "quiet", "orange", "window", "paper", "salt"]


def preference_rows(count: int, seed: int = 0) -> list[dict]:
    """Rows in preference_700K's form: the chosen answer repeats the question's words, the other
    one does not, and both are of random length."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        asked = draw.sample(WORDS, 2)
        good = asked + draw.choices(WORDS, k=draw.randrange(3))
        bad = draw.choices([word for word in WORDS if word not in asked], k=1 + draw.randrange(4))
        rows.append(messages_row(f"{number}: {' '.join(asked)}?", " ".join(good), " ".join(bad)))
    return rows


@dataclass(frozen=True)
class TinyExperiment:
    """The folder `root` with its model, raw pairs, configs, and what the commands make of them."""

    root: Path
    runs: str = "runs"
    """Copies of an experiment share its model and raw pairs. This folder holds all else: the
    experiment's YAML file, prepared data, runs and results."""

    @property
    def model(self) -> Path:
        return self.root / "base"

    @property
    def raw(self) -> Path:
        return self.root / "raw.jsonl"

    @property
    def config(self) -> Path:
        """The experiment's YAML file."""
        return self.root / self.runs / "tiny.yaml"

    @property
    def processed(self) -> Path:
        return self.root / self.runs / "processed" / "pairs"

    @property
    def runs_dir(self) -> Path:
        return self.root / self.runs / "runs"

    @property
    def results(self) -> Path:
        return self.root / self.runs / "results" / "tiny"

    @property
    def preprocess(self) -> list[str]:
        """Arguments of data/preprocess.py."""
        return ["--data", str(self.root / "pairs.yaml"), "--output_dir", str(self.processed),
                "--tokenizer_name", str(self.model), "--num_proc", "1"]

    @property
    def folders(self) -> list[str]:
        """Options of training and eval.py, so that nothing is written outside `root`."""
        return ["--runs_dir", str(self.runs_dir), "--data_dir", str(self.processed.parent)]

    def train(self, stage: str) -> list[str]:
        """Arguments of src.train."""
        return ["--experiment", str(self.config), "--stage", stage, *self.folders]

    def evaluate(self) -> list[str]:
        """Arguments of eval.py."""
        return ["--model", str(self.config), *self.folders,
                "--results_dir", str(self.results.parent), "--workers", "1"]

    def finished(self, stage: str) -> list[Path]:
        """Run folders of a stage that have a DONE."""
        return sorted(done.parent for done in (self.runs_dir / "tiny" / stage).glob("*/DONE"))

    def copy(self, runs: str, **changes) -> "TinyExperiment":
        """The same experiment with what there is so far, in a folder of its own; `changes` are of
        its YAML file, see write_config."""
        other = TinyExperiment(self.root, runs)
        shutil.copytree(self.config.parent, other.config.parent)
        other.write_config(self.settings(), **changes)
        return other

    def settings(self) -> dict:
        """What the YAML file holds."""
        return yaml.safe_load(self.config.read_text())

    def write_config(self, values: dict, **changes) -> None:
        """Write the YAML file: `values`, changed; of a mapping only the keys that are given."""
        for name, value in changes.items():
            values[name] = {**values[name], **value} if isinstance(value, dict) else value
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(values))


def make_experiment(root: Path, rows: int = 200, train_pairs: int | None = None,
                    test_pairs: int = 40, layers: tuple[list[int], list[int]] = ([1, 2], [2, 4]),
                    model: dict | None = None, **changes) -> TinyExperiment:
    """A new experiment in `root`.

    Args:
        layers: of the teachers and of the students.
        model: of its base model, see save_base.
        changes: of its YAML file, see write_config.
    """
    tiny = TinyExperiment(root)
    save_base(tiny.model, "llama", **{
        "vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, **(model or {})})
    save(llama_like(pad_token="<|end|>"), tiny.model)  # pads with its end of turn, as many do
    write_jsonl(tiny.raw, preference_rows(rows))
    (root / "llama.yaml").write_text(f"checkpoint: {tiny.model}\nfamily: llama\n")
    (root / "pairs.yaml").write_text(yaml.safe_dump({
        "path": str(tiny.raw), "form": "messages", "max_length": 256, "test_pairs": test_pairs,
        "val_pairs": 16, "train_pairs": train_pairs,
        "keys": {"score_chosen": "chosen_score", "score_rejected": "rejected_score"}}))
    tiny.write_config({
        "data": str(root / "pairs.yaml"),
        "teachers": [{"model": str(root / "llama.yaml"), "layers": layers[0]}],
        "students": [{"model": str(root / "llama.yaml"), "layers": layers[1]}],
        "methods": [{"name": "soft", "loss": "soft_bt"}],
        "train": {"epochs": 1, "batch_pairs": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "runtime": {"micro_batch_tokens": 4096, "save_steps": 4, "logging_steps": 1,
                    "report_to": "none"},
        "eval": {"bootstrap_samples": 200}}, **changes)
    return tiny


def command(*words: str, timeout: float = 900, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the repository from its root; `python` is the tests' own."""
    if words[0] == "python":
        words = (sys.executable, *words[1:])
    with psutil.Popen(words, cwd=REPO_ROOT, env={**ENVIRONMENT, **env}, text=True,
                      stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            stdout, stderr = program.communicate(timeout=timeout)
        except BaseException:
            kill_with_children(program)  # or trainers would go on beside all tests that follow
            raise
    return subprocess.CompletedProcess(words, program.returncode, stdout, stderr)


def kill_with_children(program: psutil.Popen) -> None:
    children = program.children(recursive=True) if program.is_running() else []
    for process in [*children, program]:
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            process.kill()


def in_process(module: str, *arguments: str) -> int:
    """The exit code of a command's `main`, run in this process."""
    with unittest.mock.patch.object(sys, "argv", [module, *arguments]):
        return main_of(module)() or 0


def main_of(module: str) -> Callable[[], int | None]:
    """The `main` of what `python -m` runs under that name."""
    found = importlib.import_module(module)
    is_room = hasattr(found, "__path__")
    return (importlib.import_module(f"{module}.__main__") if is_room else found).main


def launch(script: str, tiny: TinyExperiment, hardware: str, *options: str,
           **env: str) -> subprocess.CompletedProcess[str]:
    """Run one of the three scripts to its end."""
    return command(f"./{script}", str(tiny.config), *tiny.folders, *options,
                   **{"HARDWARE": hardware, "NPROC": "2", "WORKERS": "1", **env})


def kill_at_checkpoint(stage: str, tiny: TinyExperiment, hardware: str, step: int) -> None:
    """Train a stage, and kill everything once there is a checkpoint of `step`."""
    from src.scoring.labels import SCRIPTS

    launcher = start(SCRIPTS[stage], tiny, hardware)
    deadline = time.monotonic() + 600
    try:
        while not list(tiny.runs_dir.glob(f"tiny/{stage}/*/resume/checkpoint-{step}")):
            assert time.monotonic() < deadline and launcher.poll() is None
            time.sleep(0.01)
    finally:
        kill_with_children(launcher)
    launcher.wait()
    assert tiny.finished(stage) == []


def start(script: str, tiny: TinyExperiment, hardware: str, log: Path | None = None,
          words: Sequence[str] = ()) -> psutil.Popen:
    """Start one of the three scripts, as the head of a process group that Ctrl-C can reach: a shell
    starts what it runs in the background deaf to it, and so would be the script of such a test.

    Args:
        log: file that gets what is printed.
        words: a command to start instead, which gets the script's arguments.
    """
    with (log or Path(os.devnull)).open("w") as output:
        return psutil.Popen(
            [*(words or [f"./{script}"]), str(tiny.config), *tiny.folders], cwd=REPO_ROOT,
            env={**ENVIRONMENT, "HARDWARE": hardware, "NPROC": "2", "WORKERS": "1"},
            stdout=output, stderr=output, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
