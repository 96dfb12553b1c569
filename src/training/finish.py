"""Bring one run to DONE: what it needs is looked up, its folder locked; what was done stays."""

from contextlib import nullcontext
from pathlib import Path

from configs.run import RunConfig
from src.common import distributed
from src.common.distributed import say
from src.common.lock import lock
from src.runs import folders
from src.runs.plan import Plan
from src.scoring.labels import labels_for
from src.training.averaging.average_run import average_run
from src.training.policy.train_policy import train_policy
from src.training.train_run import train_run


def finish(run: RunConfig, plan: Plan, runs_dir: Path, for_policy: bool = False) -> bool:
    """Bring `run` to DONE; whether there was anything to do.

    A student or a policy that it learns from, or averages, comes first: it is of the same stage,
    and where another worker is at it, this one waits. Of a policy so do all reward models that it
    needs, and all that these need.

    Args:
        for_policy: that needs it: no stage before this one trained what it needs itself.
    """
    all_needed = for_policy or run.policy is not None

    def found() -> Path | None:
        return folders.find_finished(runs_dir, run.stage, run.identity)

    if (run.earlier or all_needed) and not distributed.on_main(found):
        for other in plan.needed(run):
            if all_needed or other.identity == run.earlier:
                finish(other, plan, runs_dir, all_needed)
    folder = folders.folder_of(run, runs_dir)
    with lock(folder, say) if distributed.is_main() else nullcontext():
        done = distributed.on_main(found)
        if done is None:
            _train(run, plan, runs_dir, folder)
        # of a finished run too: whoever trained it may have been killed before this line
        distributed.on_main(lambda: folders.remove_checkpoints(done or folder))
    return done is None


def _train(run: RunConfig, plan: Plan, runs_dir: Path, folder: Path) -> None:
    if run.policy:
        train_policy(run, plan, runs_dir, folder)
    elif run.kind == "average":
        average_run(run, plan, folder, runs_dir)
    else:
        train_run(run, plan, *labels_for(run, plan, runs_dir), folder)
