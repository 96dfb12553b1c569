"""Options that all benchmarks share, and the facts about machine and versions that rows carry."""

import argparse
import os
import platform
import warnings
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # --threads decides; idle helpers would spin
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TRL_EXPERIMENTAL_SILENCE="1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

from configs.schema import RuntimeConfig
from model.attention.attend import BACKENDS
from speed.mixes import MIXES, Mix, Row, draw, read_rows
from speed.shapes import SHAPES, Shape
from src.batches.packing import scoring_budget
from src.common.distributed import device
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.hashing import commit


def benchmark_parser(doc: str, *, pairs: int, layers: tuple[int, ...] = (),
                     mixes: tuple[str, ...] = ("multi_turn",)) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark.

    Args:
        doc: of the module; its first paragraph stands above the options, the rest below them.
        pairs: by default, in one round.
        layers, mixes: by default; no layers for the shape's own.
    """
    about, more = doc.split("\n\n", 1)
    parser = argparse.ArgumentParser(description=about, epilog=more,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_argument_group("model: a Llama of random weights")
    model.add_argument("--shape", choices=SHAPES, default="small",
                       help="small: hidden size 128 (default); smollm2_135m: 576; "
                            "llama_3_2_1b for a GPU")
    model.add_argument("--layers", type=int, nargs="+", default=list(layers), metavar="N",
                       help=f"default: {' '.join(map(str, layers)) or 'those of the shape'}")
    model.add_argument("--hidden", type=int, help="instead of the shape's; MLP in proportion")
    data = parser.add_argument_group("pairs")
    data.add_argument("--mix", nargs="+", choices=[*MIXES, "all"], default=list(mixes),
                      help=f"distributions of lengths; default: {' '.join(mixes)}")
    data.add_argument("--data", metavar="NAME", help="instead of a mix: train_1 of a prepared data "
                      "set, a folder of data/processed")
    data.add_argument("--data_dir", type=Path, default=REPO_ROOT / "data" / "processed")
    data.add_argument("--length_scale", type=float, default=1.0, metavar="X",
                      help="make a mix X times as long")
    data.add_argument("--pairs", type=int, default=pairs, metavar="N",
                      help="in one round; every round has others (default: %(default)s)")
    data.add_argument("--batch_pairs", type=int, default=16, metavar="N",
                      help="in an optimiser step, or in a padded batch (default: %(default)s)")
    run = parser.add_argument_group("measurement")
    run.add_argument("--rounds", type=int, default=5, metavar="N",
                     help="that count, one more warms up (default: %(default)s)")
    run.add_argument("--threads", type=int, default=1, metavar="N",
                     help="of a CPU; more than idle cores costs dearly (default: %(default)s)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    return parser


def add_ours(parser: argparse.ArgumentParser, budget: str) -> None:
    """Options of our systems alone; `budget` is the key of RuntimeConfig that limits a forward."""
    ours = parser.add_argument_group("ours")
    tokens = getattr(RuntimeConfig(), budget) or scoring_budget(
        RuntimeConfig(), device().type, packed=True).tokens
    ours.add_argument(f"--{budget}", type=int, metavar="N", default=tokens,
                      help="tokens of a packed row (default: %(default)s)")
    ours.add_argument("--attention", default="auto", choices=BACKENDS)
    ours.add_argument("--bf16", action="store_true", help="on a CPU: measure ours, and TRL, once "
                      "more with products in bf16")
    ours.add_argument("--no_steps", action="store_true", help="of ours only with every key on, "
                      "for deep models take long; with --no_trl ratios are then to that")


def prepare(args: argparse.Namespace) -> None:
    """Check what argparse cannot, quieten the libraries, set threads.

    Raises:
        UserError: a number that makes no sense.
    """
    for name in ("pairs", "batch_pairs", "rounds", "threads", "length_scale"):
        if getattr(args, name, 1) <= 0:
            raise UserError(f"--{name} {getattr(args, name)}: must be above 0")
    if any(layers <= 0 for layers in args.layers):
        raise UserError(f"--layers {' '.join(map(str, args.layers))}: each must be above 0")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would look for others, aloud


def shapes_of(args: argparse.Namespace) -> list[Shape]:
    """The model shapes asked for, one for each depth."""
    shape = SHAPES[args.shape]
    if args.hidden:
        if args.hidden <= 0 or args.hidden % (2 * shape.heads):
            raise UserError(f"--hidden {args.hidden}: must be a multiple of {2 * shape.heads}, "
                            f"twice the {shape.heads} heads")
        shape = shape.with_hidden(args.hidden)
    return [shape.with_layers(layers) for layers in args.layers or [shape.layers]]


def mixes_of(args: argparse.Namespace) -> list[Mix]:
    names = list(MIXES) if "all" in args.mix else args.mix
    return [MIXES[name].scaled(args.length_scale) for name in names]


def pairs_of(args: argparse.Namespace, vocab: int) -> list[tuple[str, list[Row]]]:
    """(name, pairs of all rounds) of every mix, or of the data set, that was asked for."""
    if args.pairs % args.batch_pairs:
        raise UserError(f"--pairs {args.pairs}: must be a multiple of --batch_pairs "
                        f"{args.batch_pairs}, so that all systems make equally many steps")
    total = args.pairs * args.rounds
    if args.data:
        return [(args.data, read_rows(args.data_dir, args.data, total, args.seed, vocab))]
    for mix in mixes_of(args):
        if args.pairs % mix.pairs_of_prompt:
            raise UserError(f"--pairs {args.pairs}: {mix.name} has {mix.pairs_of_prompt} pairs to "
                            "a prompt; choose a multiple of that")
    return [(mix.name, [row for number in range(args.rounds)
                        for row in draw(mix, args.pairs, args.seed + number, vocab)])
            for mix in mixes_of(args)]


def work_of(args: argparse.Namespace) -> list[tuple[Shape, str, list[Row]]]:
    """(model, name of the pairs, pairs) of every table that was asked for."""
    return [(shape, *named) for shape in shapes_of(args) for named in pairs_of(args, shape.vocab)]


def machine_facts(args: argparse.Namespace) -> dict[str, object]:
    """When, where and with what this was measured."""
    cuda = torch.cuda.is_available()
    return {"date": date.today().isoformat(), "commit": commit(), "machine": _machine(),
            "device": torch.cuda.get_device_name() if cuda else "CPU", "threads": args.threads,
            "torch": version("torch"), "transformers": version("transformers"),
            "trl": _version("trl"), "seed": args.seed}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _machine() -> str:
    """The processor and how many cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
