"""Command: whether an experiment's raw files are here, asked before anything is fetched for it.

    python -m data.check_raw smollm2_sciq

Needs nothing but Python: it is the first that quickstart.sh asks, of a machine that has no package
yet. Reads the few lines of the configs that say where files lie; what else may be wrong with them
is for data/preprocess.py to say.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT

HELP = """\
Say which raw files of an experiment are missing, what to fetch and where to put it. Exit code 2
where one is; nothing is read or written.
"""
NAMED = re.compile(r"\$\{RAW_DIR\}/([^\s,}\"']+)")
"""A file below RAW_DIR, in any place of a data config."""


def check_raw(experiment: str) -> None:
    """Return if every file that the experiment's data config names below RAW_DIR is there.

    Raises:
        UserError: one is not, with where it is published; or there is no such experiment.
    """
    data = _value(_config("experiments", experiment), "data")
    path = _config("data", data)
    raw_dir = Path(os.environ.get("RAW_DIR") or REPO_ROOT / "data" / "raw")
    missing = [name for name in NAMED.findall(_without_comments(path))
               if not (raw_dir / name).exists() and not (REPO_ROOT / raw_dir / name).exists()]
    if missing:
        source = _value(path, "source")
        raise UserError(
            f"raw data of {experiment}: no such file: {raw_dir / missing[0]}: get "
            f"{', '.join(missing)}{f' from {source}' if source else ''} and put it there, or set "
            f"RAW_DIR to the folder that holds {missing[0]}")


def _config(kind: str, name: str) -> Path:
    """The YAML file that `name` means, a path or a name in configs/<kind>."""
    folder = REPO_ROOT / "configs" / kind
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
        raise UserError(f"no {kind} config {name!r}: expected one of {known}, or the path of a "
                        "YAML file")
    return path


def _without_comments(path: Path) -> str:
    return re.sub(r"(^|\s)#.*", "", path.read_text(encoding="utf-8"))


def _value(path: Path, key: str) -> str:
    """A text at the top of a YAML file; empty where there is none."""
    found = re.search(rf"^{key}:[ \t]*(.+?)[ \t]*$", _without_comments(path), re.MULTILINE)
    return found[1].strip("\"'") if found else ""


def main() -> None:
    parser = Parser(prog="python -m data.check_raw", description=HELP,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", metavar="EXPERIMENT",
                        help="a config of configs/experiments, or the path of a YAML file")
    check_raw(parser.parse_args(sys.argv[1:]).experiment)


if __name__ == "__main__":
    run_command(main)
