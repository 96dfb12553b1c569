"""Imports go one way. Read with ast, so that an import inside a function counts as well."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from configs.schema import REPO_ROOT

PACKAGES = ("configs", "data", "model", "src")
COMMANDS = {"eval", "data.preprocess", "data.demo", "data.chess_documents", "model.download",
            "model.pretrain", "src.push", "src.train", "src.choose_hardware", "src.score_command"}
"""Imported by nobody but tests."""
LAYER_OF_SRC = {
    2: "runs locks distributed losses metrics bootstrap batching steps packing trees "
       "length_bias reward_figures eval_sets "
       "benchmark_rows benchmark_parts benchmark_scores reward_bench rm_bench judge_benchmarks "
       "benchmark_against "
       "number_text model_card train_arguments gpus peak_memory",
    3: "trainer probe training_arguments trunk_cache scoring text_scores score_file weak_labels "
       "pgr resumable baselines run_scores tables "
       "reward_view benchmark_source",
    4: "analysis plots plot_style plots_ladder plots_pgr plots_training document document_style "
       "plots_rewards plots_parts wrong_pairs "
       "reward_report reward_tables look transfer transfer_report "
       "transfer_tables plots_transfer "
       "benchmark benchmark_report plots_benchmark "
       "report report_findings report_sections sweep fit dry_run train_run evaluation one_model",
}
LAYERS = {f"src.{name}": layer for layer, names in LAYER_OF_SRC.items() for name in names.split()}
LAYERS |= dict.fromkeys(("configs.arguments", "configs.errors", "configs.identity", "configs.owned",
                         "configs.pretrained", "configs.strict_yaml", "configs.data_schema",
                         "configs.schema", "data.records"), 0)
LAYERS |= dict.fromkeys(COMMANDS, 5)


def module_files() -> dict[str, Path]:
    """Module name -> file, of everything that is not a test."""
    files = {"eval": REPO_ROOT / "eval.py"}
    for package in PACKAGES:
        for path in (REPO_ROOT / package).glob("*.py"):
            files[f"{package}.{path.stem}"] = path
    return files


def layer(module: str) -> int:
    """The layer of DESIGN section 2; data.* and model.* are 1 where nothing else is said."""
    if module not in LAYERS and module.split(".")[0] in ("data", "model"):
        return 1
    return LAYERS[module]


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


FILES = module_files()
EDGES = {module: imported(path) & set(FILES) for module, path in FILES.items()}
each_module = pytest.mark.parametrize("module", sorted(FILES))


def test_every_module_of_src_has_a_layer_and_every_layer_its_modules():
    known = {module for module in LAYERS if module.startswith("src.")}
    assert known == {module for module in FILES if module.startswith("src.")}
    assert set(FILES) >= COMMANDS


@each_module
def test_imports_come_from_lower_layers_or_the_same_package(module):
    for other in EDGES[module]:
        same_package = module.split(".")[0] == other.split(".")[0] or layer(module) == 0
        assert layer(other) < layer(module) or (
            layer(other) == layer(module) and same_package), f"{module} imports {other}"


@each_module
def test_data_and_model_never_import_each_other(module):
    package = module.split(".")[0]
    stranger = {"data": "model", "model": "data"}.get(package)
    assert not {o for o in EDGES[module] - {"data.records"} if o.split(".")[0] == stranger}


@each_module
def test_nobody_imports_a_command(module):
    assert not EDGES[module] & COMMANDS


def test_no_imports_go_in_a_circle():
    tuple(TopologicalSorter(EDGES).static_order())


@each_module
def test_nobody_imports_the_tests(module):
    assert not {name for name in imported(FILES[module]) if name.split(".")[0] == "tests"}


@pytest.mark.parametrize("module", ["configs.errors", "configs.strict_yaml", "configs.schema",
                                    "data.records"])
def test_the_lowest_layer_needs_the_standard_library_and_yaml_alone(module):
    allowed = {*sys.stdlib_module_names, "yaml", "configs", "data"}
    assert {name.split(".")[0] for name in imported(FILES[module])} <= allowed
    assert module != "data.records" or not EDGES[module]


def test_the_trainer_does_not_know_of_teachers_or_students():
    source = FILES["src.trainer"].read_text(encoding="utf-8")
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not names & {"role", "teacher", "labels_of", "weak_label"}


def test_only_eval_reads_the_test_split():
    """No other command, nor what it is made of, names the split or may be asked for it."""
    mentions = {module for module, path in FILES.items() if module.startswith("src.")
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and node.value == "test"}
    training = {"src.train", "src.train_run", "src.trainer", "src.sweep", "src.weak_labels",
                "src.scoring", "src.batching", "src.dry_run"}
    assert not mentions & training


def test_tables_figures_and_reports_load_no_torch():
    code = ("import sys, src.analysis, src.plots, src.report, src.plots_benchmark\n"
            "print([name for name in ('torch', 'transformers') if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True,
                            text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
