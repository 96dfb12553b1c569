"""Command: how often do the intervals of PGR hold the truth? Simulated; no model is needed.

    python -m src.simulate_intervals                    # about 20 minutes on one core; resumable
    python -m src.simulate_intervals --repetitions 50 --nested 10

Writes results/intervals/coverage.csv and its figure: the pooled intervals and those of pgr.csv, at
equal and unequal noise, 3 and 5 seeds, shared runs, heavy tails, small gaps.
"""

import argparse
from pathlib import Path

from src.common.arguments import Parser
from src.common.errors import UserError, run_command
from src.common.files import REPO_ROOT


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m src.simulate_intervals",
                    description="Coverage and width of the intervals of gain, gap and PGR.")
    parser.add_argument("--repetitions", type=int, default=4000, metavar="N",
                        help="simulated experiments of each kind (default: 4000)")
    parser.add_argument("--nested", type=int, default=400, metavar="N",
                        help="of which have the slow intervals of pgr.csv too (default: 400)")
    parser.add_argument("--results_dir", type=Path, default=REPO_ROOT / "results",
                        help="where intervals/ goes (default: results/)")
    args = parser.parse_args()
    if args.repetitions < 2 or args.nested < 2:
        raise UserError(f"--repetitions {args.repetitions} --nested {args.nested}: expected two at "
                        "least, a coverage has an error only then")
    return args


def main() -> None:
    args = parse_args()

    from src.evaluation.simulation.coverage import write_coverage

    path = write_coverage(args.results_dir / "intervals", args.repetitions, args.nested)
    print(f"table:  {path}\nfigure: {path.parent / 'figures' / 'coverage.png'}")


if __name__ == "__main__":
    run_command(main)
