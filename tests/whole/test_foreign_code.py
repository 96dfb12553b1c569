"""Nothing that lies beside a model is run, whatever is typed."""

import ast
import io
import json
import sys

import pytest

from data.tokens.formatting import load_tokenizer
from model.base.weights import read_config
from src.common.errors import UserError
from src.scoring.texts import TextScorer
from tests.test_layers import FILES
from tests.tiny_reward_model import make_reward_model

CODE = """
import pathlib
pathlib.Path({witness!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "mine"
class Model(LlamaForSequenceClassification):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


def with_code(folder, witness, *, unknown_type: bool):
    """A reward model whose folder names Python files of its own: harmless, but it leaves a mark."""
    model = make_reward_model(folder)
    (model / "mine.py").write_text(CODE.format(witness=str(witness)))
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config",
                          "AutoModelForSequenceClassification": "mine.Model"}
    if unknown_type:
        config["model_type"] = "mine"
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["mine.Tokenizer", "mine.Tokenizer"]},
                  "tokenizer_class": "Tokenizer" if unknown_type else tokenizer["tokenizer_class"]}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return model


@pytest.mark.parametrize("unknown_type", [True, False])
def test_code_beside_a_model_never_runs_and_nobody_is_asked(tmp_path, monkeypatch, unknown_type):
    witness = tmp_path / "witness"
    model = with_code(tmp_path, witness, unknown_type=unknown_type)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    for read in (load_tokenizer, read_config, TextScorer):
        try:
            read(model)
        except UserError as error:
            assert unknown_type and str(model) in str(error)
        else:
            assert not (unknown_type and read is not load_tokenizer)
    assert not witness.exists() and sys.stdin.read() == "y\n" * 9


def test_every_folder_is_read_through_the_one_place_that_runs_no_code():
    calls = [f"{module}:{node.lineno}" for module, path in FILES.items()
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"]
    assert [call.split(":")[0] for call in calls] == ["src.common.pretrained"], calls
    text = FILES["src.common.pretrained"].read_text(encoding="utf-8")
    assert "trust_remote_code=False" in text and "trust_remote_code=True" not in text


def test_nothing_in_the_repository_reads_a_pickle():
    loads = [f"{module}:{node.lineno}" for module, path in FILES.items()
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
             and (node.value.id, node.attr) in {("torch", "load"), ("pickle", "load"),
                                                ("pickle", "loads"), ("joblib", "load")}]
    assert loads == []
