"""Imports go one way, room by room. Read with ast, so that an import inside a function counts as
well. A room is a folder: a new file needs no line here.

`pytest tests/test_layers.py -s` prints the rooms, their files and their arrows.
"""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from src.common.files import REPO_ROOT

FLOORS = (("src.common",), ("configs",), ("data", "model"),
          ("src.batches", "src.methods", "src.measures"), ("src.runs", "src.scoring"),
          ("src.training", "src.reports"), ("src.evaluation",), ("commands",))
"""From the ground up. A room may use those below it; on one floor, rooms may use each other, but
not in a circle, and `data` and `model` not at all."""
MOST_FILES = 16


def module_files() -> dict[str, Path]:
    """Module name -> file, of everything that is not a test, a benchmark or an `__init__`."""
    found = [REPO_ROOT / "eval.py", *(path for package in ("configs", "data", "model", "src")
                                      for path in (REPO_ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(REPO_ROOT).with_suffix("").parts): path
            for path in found if path.name != "__init__.py"}


FILES = module_files()
SOURCES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def imported(tree: ast.AST) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


EDGES = {module: imported(tree) & set(FILES) for module, tree in SOURCES.items()}


def is_command(module: str) -> bool:
    """Whether a file is one of those that people run: it stands at the top of the repository or of
    a package and is run there, or it is what `python -m` runs of a room."""
    runs = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
               for node in SOURCES[module].body)
    return module.endswith(".__main__") or (runs and module.count(".") < 2)


def room(module: str) -> str:
    """The folder that a file lies in, as a dotted name."""
    return module.rpartition(".")[0]


def floor(module: str) -> int:
    """The place in FLOORS of the room that a file is in."""
    name = "commands" if is_command(module) else room(module)
    return next(number for number, rooms in enumerate(FLOORS)
                if any(name == each or name.startswith(f"{each}.") for each in rooms))


COMMANDS = {module for module in FILES if is_command(module)}
each_module = pytest.mark.parametrize("module", sorted(FILES))


def upward() -> list[str]:
    """Arrows from a room to one above it."""
    return [f"{module} -> {other}" for module in FILES for other in sorted(EDGES[module])
            if floor(other) > floor(module)]


def reached(module: str) -> set[str]:
    """Everything that a file imports, and what that imports."""
    return EDGES[module].union(*map(reached, EDGES[module]))


def room_edges() -> dict[str, set[str]]:
    """Which rooms each room uses. A file beside rooms that uses none of them is ground for them."""
    def place(module: str) -> str:
        package = room(module)
        inner = any(room(other).startswith(f"{package}.") for other in reached(module))
        return package if inner else f"{package} (ground)"

    edges: dict[str, set[str]] = {}
    for module in FILES.keys() - COMMANDS:
        others = {place(other) for other in EDGES[module]} - {place(module)}
        edges.setdefault(place(module), set()).update(others)
    return edges


def test_no_arrow_between_rooms_goes_up():
    files = Counter(room(module) or "." for module in FILES)
    arrows = Counter((room(module), room(other)) for module in FILES for other in EDGES[module]
                     if room(module) != room(other))
    for name, count in sorted(files.items()):
        uses = ", ".join(f"{to} {n}" for (of, to), n in sorted(arrows.items()) if of == name)
        print(f"{name:26} {count:2} files  uses {uses}")
    print(f"arrows upward: {len(upward())}")
    assert not upward()


def test_no_files_and_no_rooms_import_in_a_circle():
    tuple(TopologicalSorter(EDGES).static_order())
    tuple(TopologicalSorter(room_edges()).static_order())


def test_no_folder_has_more_files_of_code_than_a_person_takes_in():
    folders = Counter(path.parent for path in REPO_ROOT.rglob("*.py")
                      if path.relative_to(REPO_ROOT).parts[0] not in (".venv", "runs"))
    crowded = {str(folder.relative_to(REPO_ROOT)): count for folder, count in folders.items()
               if count > MOST_FILES}
    assert not crowded


def test_every_room_says_in_a_sentence_what_it_is_for():
    for folder in {path.parent for path in FILES.values()} - {REPO_ROOT}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text and text.endswith("."), folder


@each_module
def test_data_and_model_never_import_each_other(module):
    package = module.split(".")[0]
    stranger = {"data": "model", "model": "data"}.get(package)
    assert not {other for other in EDGES[module] if other.split(".")[0] == stranger
                and other != "data.records"}


@each_module
def test_nobody_imports_a_command(module):
    assert not EDGES[module] & COMMANDS


@each_module
def test_nobody_imports_the_tests(module):
    assert not {name for name in imported(SOURCES[module]) if name.split(".")[0] == "tests"}


@pytest.mark.parametrize("module", ["src.common.errors", "src.common.files", "src.common.owned",
                                    "data.records"])
def test_the_lowest_ground_needs_the_standard_library_alone(module):
    assert {name.split(".")[0] for name in imported(SOURCES[module])} <= {
        *sys.stdlib_module_names, "src"}


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("configs.")])
def test_configs_are_read_before_anything_that_takes_seconds_is_loaded(module):
    assert {name.split(".")[0] for name in imported(SOURCES[module])} <= {
        *sys.stdlib_module_names, "yaml", "pydantic", "pydantic_core", "configs", "src"}
    assert {name for name in EDGES[module] if name.startswith("src.")} <= {
        "src.common.errors", "src.common.files", "src.common.hashing"}


def test_the_trainer_does_not_know_of_teachers_or_students():
    names = {node.attr for node in ast.walk(SOURCES["src.training.trainer"])
             if isinstance(node, ast.Attribute)}
    assert not names & {"kind", "role", "teacher", "labels_of", "weak_label"}


def test_only_eval_reads_the_test_split():
    """No other command, nor what it is made of, names the split or may be asked for it."""
    mentions = {module for module, tree in SOURCES.items() for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and node.value == "test"}
    before = ("src.batches", "src.methods", "src.runs", "src.scoring", "src.training", "src.train")
    assert not [module for module in mentions if module.startswith(before)]


def test_tables_figures_and_reports_load_no_torch():
    modules = [module for module in FILES if module.startswith(("src.measures.", "src.reports."))]
    code = (f"import sys, {', '.join(modules)}\n"
            "print([name for name in ('torch', 'transformers') if name in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True,
                            text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
