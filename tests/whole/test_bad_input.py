"""What bad input gets: one line on stderr, exit code 2, no traceback, and nothing half-written.

Here is what concerns configs, runs and launches; data/ and model/ have such tests of their own.
"""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

import configs.run
import eval as evaluation
import src.train
import src.training.trainer
from configs.schema import ExperimentConfig, load_config
from data import preprocess
from src.common import files
from src.common.errors import run_command
from src.common.files import REPO_ROOT
from src.common.lock import lock
from tests.tiny_data import TURNS, llama_like, save
from tests.tiny_experiment import ENVIRONMENT, TinyExperiment, command, in_process, make_experiment

COMMANDS = {"preprocess": preprocess.main, "train": src.train.main, "eval": evaluation.main}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> TinyExperiment:
    """Prepared data, and two teachers trained."""
    tiny = make_experiment(tmp_path_factory.mktemp("bad"), rows=180, train_pairs=48)
    assert in_process("data.preprocess", *tiny.preprocess) == 0
    assert in_process("src.train", *tiny.train("teachers")) == 0
    return tiny


@pytest.fixture
def tiny(prepared, tmp_path) -> TinyExperiment:
    """A copy of `prepared` that a test may damage."""
    return prepared.copy(f"runs-{tmp_path.name}")


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""
    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run_command(COMMANDS[name])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err
    return run


def files_in(tiny: TinyExperiment) -> dict[str, int]:
    """File -> when it was written, of all that the commands make; locks are of no account."""
    return {str(path.relative_to(tiny.root)): path.stat().st_mtime_ns
            for path in tiny.config.parent.rglob("*")
            if path.is_file() and path != tiny.config and path.suffix != ".lock"}


BAD_CONFIGS = {
    "an unknown key": ({"teacher": []}, "unknown key teacher"),
    "an unknown key inside": ({"train": {"epoch": 1}}, "unknown key epoch"),
    "no such data": ({"data": "nowhere"}, "no data config 'nowhere'"),
    "no such model": ({"teachers": [{"model": "nobody"}]}, "no models config 'nobody'"),
    "no teachers": ({"teachers": []}, "teachers [] must not be empty"),
    "too many layers": ({"students": [{"model": "MODEL", "layers": [5]}]}, "5"),
    "layers out of range": ({"students": [{"model": "MODEL", "keep": [1, 4]}]}, "4"),
    "no layers": ({"students": [{"model": "MODEL", "layers": [0]}]}, "layers[0] 0 must be above 0"),
    "a layer twice": ({"students": [{"model": "MODEL", "keep": [1, 1]}]}, "1"),
    "layers twice": ({"students": [{"model": "MODEL", "layers": [2, 2]}]}, "repeat"),
    "adapters on nothing": ({"train": {"lora": {"targets": ["q_proj", "query"]}}},
                            "lora targets query: no linear layer of the model's decoder layers is "
                            "called so; expected all_linear or some of down_proj, gate_proj,"),
    "adapters on no list": ({"train": {"lora": {"targets": "all"}}}, "targets 'all' must be"),
    "adapters of rank 0": ({"train": {"lora": {"rank": 0}}}, "train: lora: rank 0 must be above 0"),
    "adapters without weight": ({"train": {"lora": {"alpha": 0}}}, "alpha 0 must be above 0"),
    "adapters on more layers": ({"train": {"lora": {}, "trainable_layers": 2}},
                                "trainable_layers 2, but the model keeps 1 layers"),
    "more layers to train than it has": (
        {"students": [{"model": "MODEL", "layers": [2], "trainable_layers": 3}]},
        "trainable_layers 3, but the model keeps 2 layers"),
    "a probe of ordered pairs": (
        {"methods": [{"name": "a", "treatment": "curriculum", "learner": "probe"}]},
        "treatment 'curriculum' gives pairs an order, and learner probe takes all at once"),
    "embeddings that are frozen anyway": (
        {"train": {"freeze_embeddings": True, "trainable_layers": 1}},
        "train: freeze_embeddings: with trainable_layers the embeddings do not train anyway"),
    "embeddings under adapters": (
        {"train": {"freeze_embeddings": True, "lora": {}}},
        "train: freeze_embeddings: with lora the embeddings do not train anyway"),
    "one rung twice": ({"students": [{"model": "MODEL", "layers": [2]},
                                     {"model": "MODEL", "layers": [2]}]}, "repeat"),
    "another keep": ({"students": [{"model": "MODEL", "layers": [2], "keep": "last"}]}, "'last'"),
    "a seed that is text": ({"seeds": ["one"]}, "seeds[0] 'one' must be a whole number"),
    "a seed twice": ({"seeds": [1, 1]}, "repeat"),
    "a method twice": ({"methods": [{"name": "a"}, {"name": "a"}]}, "repeat a name"),
    "another loss": ({"methods": [{"name": "a", "loss": "hinge"}]}, "'hinge' is none of"),
    "an option that is a key": (
        {"methods": [{"name": "a", "loss": "confidence", "loss_options": {"aux_coef": 0.5}}]},
        "method a: loss_options: aux_coef: a key of the method itself: write it beside loss"),
    "an option that a loss has not": (
        {"methods": [{"name": "a", "loss": "product", "loss_options": {"gamma": 1}}]},
        "method a: loss_options: unknown key gamma; expected some of alpha, beta"),
    "a rung at two learning rates": (
        {"students": [{"model": "MODEL", "layers": [2], "learning_rate": rate}
                      for rate in (1e-3, 1e-4)]}, "python -m src.search compares"),
    "a ladder's learning rate in words": (
        {"students": [{"model": "MODEL", "layers": [2], "learning_rate": "fast"}]},
        "students[0]: learning_rate 'fast' must be a number"),
    "no aux_coef": ({"methods": [{"name": "a", "loss": "confidence"}]},
                    "method a: loss confidence with aux_coef 0 is soft_bt: give it"),
    "aux_coef": ({"methods": [{"name": "a", "loss": "confidence", "aux_coef": 2.0}]}, "at most 1"),
    "aux_coef without its loss": ({"methods": [{"name": "a", "aux_coef": 0.5}]}, "soft_bt"),
    "no epochs": ({"train": {"epochs": 0}}, "epochs 0"),
    "a negative batch": ({"train": {"batch_pairs": -1}}, "batch_pairs -1"),
    "a batch that is a fraction": ({"train": {"batch_pairs": 2.5}}, "2.5 must be a whole number"),
    "a learning rate of 0": ({"train": {"learning_rate": 0}}, "learning_rate 0"),
    "a learning rate in words": ({"train": {"learning_rate": "fast"}}, "'fast'"),
    "another schedule": ({"train": {"schedule": "step"}}, "'step' must be 'cosine', 'linear' or"),
    "another precision": ({"train": {"precision": "fp8"}}, "'auto', 'fp32', 'bf16' or"),
    "warmup": ({"train": {"lr_warmup_frac": 1.0}}, "lr_warmup_frac 1.0"),
    "no saves": ({"runtime": {"save_steps": 0}}, "save_steps 0"),
    "a switch in words": ({"runtime": {"share_prompt": "maybe"}}, "'maybe' must be true or false"),
    "a level of 95": ({"eval": {"level": 95}}, "level 95"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_config_is_one_line_and_leaves_nothing(case, tiny, call):
    changes, message = BAD_CONFIGS[case]
    text = yaml.safe_dump(changes).replace("MODEL", str(tiny.root / "llama.yaml"))
    tiny.write_config(tiny.settings(), **yaml.safe_load(text))
    before = files_in(tiny)
    code, _, err = call("train", *tiny.train("ceilings"))
    assert code == 2
    line, = err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert files_in(tiny) == before


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "\0"])
def test_a_config_that_is_no_mapping_of_yaml_is_one_line(text, tiny, call):
    tiny.config.write_text(text)
    code, _, err = call("train", *tiny.train("teachers"))
    assert code == 2 and len(err.strip().splitlines()) == 1 and str(tiny.config) in err


def test_data_of_another_tokenizer_names_the_command_that_prepares_it(tiny, call, tmp_path):
    model = shutil.copytree(tiny.model, tmp_path / "other")
    save(llama_like("{{ 'new: ' }}" + TURNS), model)
    (tmp_path / "other.yaml").write_text(f"checkpoint: {model}\nfamily: llama\n")
    tiny.write_config(tiny.settings(), students=[
        {"model": str(tmp_path / "other.yaml"), "layers": [2]}])
    before = files_in(tiny)
    code, _, err = call("train", *tiny.train("ceilings"))
    assert code == 2
    line, = err.strip().splitlines()
    assert "not prepared for this model's tokenizer" in line
    assert "python data/preprocess.py" in line
    assert files_in(tiny) == before


def test_a_student_without_its_teacher_names_the_script_that_trains_it(tiny, call):
    shutil.rmtree(tiny.runs_dir)
    code, _, err = call("train", *tiny.train("students"))
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 2  # one for each teacher, however many students it has
    assert all("run ./train_teacher_model.sh tiny first" in line for line in lines)
    assert not list(tiny.runs_dir.rglob("config.yaml"))


BAD_EVALUATIONS = {
    "no such model": (lambda t: ["--model", "nobody"], "neither a folder nor an experiment"),
    "an experiment and a file": (lambda t: [*t.evaluate(), "--data", t.raw], "one reward model"),
    "no such file": (lambda t: ["--model", t.finished("teachers")[0], "--data", t.root / "no.csv"],
                     "no such file"),
    "a base model": (lambda t: ["--model", t.model, "--data", t.raw], "num_labels is 2"),
    "a model from elsewhere": (lambda t: ["--model", t.model], "--data FILE"),
    "weights cut short": (lambda t: ["--model", cut(t.finished("teachers")[0]), *t.folders],
                          "not finished"),
    "nothing trained": (lambda t: [*t.evaluate(), "--runs_dir", t.root / "none"], "no run of tiny"),
    "another split": (lambda t: [*t.evaluate(), "--split", "train_3"], "train_3"),
}


def cut(folder: Path, name: str = "model.safetensors") -> Path:
    """The run folder, with one of its files cut to half."""
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_a_bad_evaluation_is_exit_2_and_leaves_nothing(case, tiny, call):
    arguments, message = BAD_EVALUATIONS[case]
    arguments = arguments(tiny)
    code, _, err = call("eval", *arguments)
    assert code == 2 and message in err and "Traceback" not in err
    assert not tiny.results.exists()


DAMAGES = {
    "no DONE": lambda folder: (folder / "DONE").unlink(),
    "weights cut short": cut,
    "half a manifest": lambda folder: cut(folder, "manifest.json"),
    "half a DONE": lambda folder: cut(folder, "DONE"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_is_trained_again_to_the_same_weights(case, tiny, call):
    folder = tiny.finished("teachers")[0]
    weights = (folder / "model.safetensors").read_bytes()
    DAMAGES[case](folder)
    code, out, _ = call("train", *tiny.train("teachers"))
    assert code == 0 and "1 trained, 1 done before" in out
    assert (folder / "model.safetensors").read_bytes() == weights
    assert folder in tiny.finished("teachers")


def test_runs_of_other_code_are_left_alone_and_made_anew(tiny, call, monkeypatch):
    before = files_in(tiny)
    monkeypatch.setattr(configs.run, "RUN_FORMAT", configs.run.RUN_FORMAT + 1)
    code, out, _ = call("train", *tiny.train("teachers"))
    assert code == 0 and "2 trained, 0 done before" in out
    assert len(tiny.finished("teachers")) == 4
    assert before.items() <= files_in(tiny).items()


def test_a_nan_loss_fails_its_run_alone_and_keeps_its_checkpoint(tiny, call, monkeypatch):
    real_loss, shutil_rmtree = src.training.trainer.pair_loss, shutil.rmtree
    shutil_rmtree(tiny.runs_dir)
    steps = []

    def poisoned(method, margin, labels, progress):
        steps.append(progress)
        losses = real_loss(method, margin, labels, progress)
        return losses + torch.nan if len(steps) == 3 else losses

    tiny.write_config(tiny.settings(), runtime={"save_steps": 1})
    with monkeypatch.context() as patched:
        patched.setattr(src.training.trainer, "pair_loss", poisoned)
        code, out, err = call("train", *tiny.train("teachers"))
    assert code == 1 and "1 trained, 0 done before, 1 failed" in out
    line, = err.strip().splitlines()
    assert "loss is not finite at step 3, pairs " in line
    assert "llama-L1-s0" in line and len(line.split("pairs ")[1].split(":")[0].split(", ")) == 16
    failed = next(tiny.runs_dir.glob("tiny/teachers/llama-L1-*"))
    assert sorted(path.name for path in failed.glob("resume/checkpoint-*")) == [
        "checkpoint-1", "checkpoint-2"]
    assert [folder.name[:8] for folder in tiny.finished("teachers")] == ["llama-L2"]
    code, out, _ = call("train", *tiny.train("teachers"))
    assert code == 0 and "1 trained, 1 done before" in out


def full_disk(*_arguments, **_named):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


def test_a_full_disk_is_one_line_and_the_rest_can_be_done_later(tiny, call, monkeypatch):
    shutil.rmtree(tiny.runs_dir)
    with monkeypatch.context() as patched:  # what torch says, and what a write then says
        patched.setattr(torch, "save", full_disk)
        patched.setattr(files.tempfile, "TemporaryFile",
                        lambda dir: open("/dev/full", "wb"))  # noqa: SIM115
        code, out, err = call("train", *tiny.train("teachers"))
    assert code == 2
    line, = err.strip().splitlines()
    assert line.startswith("error: no space left writing") and str(tiny.runs_dir) in line
    assert tiny.finished("teachers") == []
    code, out, _ = call("train", *tiny.train("teachers"))
    assert code == 0 and "2 trained" in out


@pytest.mark.launch
def test_of_two_launches_on_one_folder_the_second_waits(tiny):
    shutil.rmtree(tiny.runs_dir)
    tiny.write_config(tiny.settings(), teachers=[
        {"model": str(tiny.root / "llama.yaml"), "layers": [1]}])
    logs = [tiny.root / f"{tiny.runs}-{number}.log" for number in (1, 2)]
    folder = tiny.runs_dir / "tiny" / "teachers"
    words = [sys.executable, "-u", "-m", "src.train", *tiny.train("teachers")]
    sweep_folder = next(iter(run_folders(tiny)))
    with lock(folder / sweep_folder):  # until both have come to it
        launches = []
        for log in logs:
            with log.open("w") as output:
                launches.append(subprocess.Popen(words, stdout=output, stderr=output,
                                                 cwd=REPO_ROOT, env=ENVIRONMENT))
        deadline = time.monotonic() + 600
        while not all("another launch is at work on it" in log.read_text() for log in logs):
            running = all(launch.poll() is None for launch in launches)
            assert running and time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)
    assert [launch.wait(600) for launch in launches] == [0, 0]
    told = sorted(log.read_text().strip().splitlines()[-1] for log in logs)
    assert told == ["teachers, worker 1 of 1: 0 trained, 1 done before: nothing to do",
                    "teachers, worker 1 of 1: 1 trained, 0 done before"]


def run_folders(tiny: TinyExperiment) -> list[str]:
    """Names of the folders of the experiment's teachers."""
    experiment = load_config(ExperimentConfig, str(tiny.config))
    sweep = src.train.Plan(experiment, tiny.processed.parent)
    return [run.folder_name for run in sweep.stage("teachers")]


@pytest.mark.launch
def test_bad_hardware_is_one_line_from_the_scripts(tiny):
    cases = [({"HARDWARE": "tpu"}, "expected auto, cpu, gpu"),
             ({"HARDWARE": "zero2", "NPROC": "many"}, "NPROC=2"),
             ({"HARDWARE": "multi_gpu", "NPROC": "0"}, "NPROC=2")]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda case: command(
            "./train_teacher_model.sh", str(tiny.config), *tiny.folders, **case[0]), cases))
    for (_, message), run in zip(cases, ended, strict=True):
        assert run.returncode == 2
        line, = run.stderr.strip().splitlines()
        assert line.startswith("error: ") and message in line
