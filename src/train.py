"""Train the runs of one stage, all in one launch.

    accelerate launch --config_file configs/hardware/cpu.yaml -m src.train \\
        --experiment demo --stage teachers

The three shell scripts are this command, one per stage. Finished runs are skipped; a run that fails
is reported at the end, the others go on, and the exit code is 1.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import transformers
from accelerate.utils.memory import clear_device_cache

from configs.run import POLICIES, RunConfig
from configs.schema import ExperimentConfig, load_config
from model.reload_check import ReloadError
from src.batches.finite import NonFiniteLossError
from src.common import distributed
from src.common.distributed import say
from src.common.errors import EXIT_USER_ERROR, UserError, one_line, run_command
from src.common.files import require_space
from src.common.lock import is_held
from src.common.precision import notice, used
from src.evaluation.overview import STEP, Whole, progress
from src.runs.disk import disk_lines, is_short
from src.runs.folders import folder_of
from src.runs.plan import Plan
from src.training.command_line import parse_args
from src.training.dry_run import describe, duration
from src.training.finish import finish
from src.training.fit import auto_line, require_fit, unfinished
from src.training.resumable import is_asked

EXPECTED = (UserError, NonFiniteLossError, ReloadError)
"""What may go wrong in one run, with a message that says all, and on every process alike."""


def train_stage(plan: Plan, stage: str, runs_dir: Path, worker: int,
                workers: int) -> list[tuple[str, Exception]]:
    """This worker's share of the stage's runs; names of those that failed, each with its error."""
    failed, trained = [], 0
    todo = list(enumerate(plan.stage(stage), 1))
    share = todo[worker::workers]
    for number, run in free_first(share, runs_dir):
        title = f"[{number}/{len(todo)}] {run.display_name}"
        started = time.monotonic()
        try:
            new = finish(run, plan, runs_dir)
        except OSError:
            raise  # a full or broken disk would fail every other run too
        except Exception as error:  # noqa: BLE001 - one run's failure must not cost the others
            if not isinstance(error, EXPECTED):
                require_space(runs_dir)
                if distributed.in_group():
                    raise  # the other processes may not have failed, and would wait for this one
                traceback.print_exc()
            failed.append((run.display_name, without_frames(error)))
            say(f"{title}: FAILED, {one_line(error)}")
            clear_device_cache(garbage_collection=True)  # what the next run needs
        else:
            trained += new
            if new:
                say(f"{title}: done in {duration(time.monotonic() - started)}")
                if STEP in os.environ:
                    say(progress(Whole(plan, runs_dir, workers)))
    before = len(share) - trained - len(failed)
    say(f"{stage}, worker {worker + 1} of {workers}: {trained} trained, {before} done before"
        + (f", {len(failed)} failed" if failed else "" if trained else ": nothing to do"))
    return failed


def free_first(share: Sequence[tuple[int, RunConfig]],
               runs_dir: Path) -> Iterator[tuple[int, RunConfig]]:
    """Numbered runs in their order, but those that another launch is at when it is their turn come
    last: so two launches share a stage."""
    busy = []
    for number, run in share:
        if distributed.on_main(partial(is_held, folder_of(run, runs_dir))):
            busy.append((number, run))
        else:
            yield number, run
    yield from busy


def require_room(plan: Plan, stage: str, runs_dir: Path, worker: int) -> None:
    """What the stage still has to do fits the devices (or raise UserError); whether it fits the
    disk, the first worker says: who frees weights on the way needs less."""
    to_do = unfinished(plan, stage, runs_dir)
    require_fit(plan, to_do)
    if worker == 0 and is_short(plan, to_do, runs_dir):
        say("\n".join(disk_lines(plan, to_do, runs_dir)))


def without_frames(error: Exception) -> Exception:
    """The error as it is told at the end: what it came through, and what that came from, would
    keep the failed run's model, gradients and optimiser in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def report_failures(failed: list[tuple[str, Exception]]) -> int:
    """A line on stderr for each reason with the runs it cost; the exit code."""
    runs_of: dict[str, list[str]] = {}
    for name, error in failed:
        runs_of.setdefault(one_line(error), []).append(name)
    for reason, names in runs_of.items():
        print(f"failed: {', '.join(names)}: {reason}", file=sys.stderr)
    if failed and all(isinstance(error, UserError) for _, error in failed):
        return EXIT_USER_ERROR
    return 1 if failed else 0


def main() -> int:
    args = parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # of loading and saving, two for every run
    worker, workers = map(int, args.worker.split("/"))
    with distributed.group():
        try:
            plan = Plan(load_config(ExperimentConfig, args.experiment), args.data_dir,
                          tuple(args.seeds), tuple(args.only))
            for run in plan.stage(args.stage):
                plan.split(run, run.split)  # prepared for this model, or say so now
            if args.stage == POLICIES and distributed.world_size() > 1:
                raise UserError(f"{distributed.world_size()} processes: a policy trains in one: "
                                "HARDWARE=cpu or gpu, and adapters (lora) for big models")
            if not plan.stage(args.stage):
                if worker == 0:
                    say(f"{plan.experiment.name} has no run of stage {args.stage}: nothing to do")
                return 0
            say(notice(used(plan.experiment.train.precision)))
            if not args.dry_run:
                distributed.on_main(lambda: require_room(plan, args.stage, args.runs_dir, worker))
                if plan.experiment.runtime.micro_batch_tokens == "auto":
                    say(auto_line(plan, plan.stage(args.stage)))
        except UserError:
            if worker == 0:
                raise
            return EXIT_USER_ERROR  # the first worker says why
        if args.dry_run:
            say(describe(plan, args.stage, args.runs_dir))
            return 0
        failed = train_stage(plan, args.stage, args.runs_dir, worker, workers)
    return report_failures(failed)


def report_exit() -> None:
    """Run the command; with STATUS_FILE set, tell the exit code there and exit with 0.

    A launcher answers a failed process with a traceback of its own and exit code 1, which would
    bury the one line that says what to mend. The scripts read the code from the file. Only where
    other processes may be waiting for this one must the launcher see it fail.
    """
    stderr, status = sys.stderr, os.environ.get("STATUS_FILE")
    if status:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which torch's launcher passes on
        distributed.end_with_script(int(os.environ["TOP_SCRIPT"]), is_asked)
    if not distributed.is_main():
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the main process says it once
    try:
        run_command(main)
    except SystemExit as ended:
        if status and os.environ.get("LOCAL_RANK", "0") == "0":  # one for each node's script
            with suppress(FileNotFoundError):  # which has gone: this process has saved, and ends
                Path(status).write_text(str(ended.code or 0))
        if not status or distributed.in_group():
            raise
    except BaseException:
        sys.stderr = stderr  # what only this process met
        raise


if __name__ == "__main__":
    report_exit()
