"""A launcher's jobs, and where runs stand, as lines to print."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from src.common.console import table_lines
from src.runs.launch.graph import Job, arrays
from src.runs.launch.status import Standing
from src.runs.launch.submit import Order

STATES = ("done", "running", "queued", "failed", "to do")


def dry_run_lines(order: Order, jobs: Sequence[Job], queued: Mapping[str, str],
                  time: Callable[[Job], str]) -> list[str]:
    """The jobs that would be submitted, with what each waits for."""
    name, config = order.plan.experiment.name, order.config
    rows = []
    for number, places in enumerate(arrays(list(jobs)), 1):
        for place in places:
            job = jobs[place]
            after = [str(each + 1) for each in sorted(job.after)] + sorted(job.after_queued)
            first, *others = (run.display_name for run in job.runs)
            rows.append([str(place + 1), str(number), job.stage, first, str(job.place.nodes),
                         ", ".join(after), time(job)])
            rows += [["", "", "", other, "", "", ""] for other in others]
    total = sum(len(job.runs) for job in jobs)
    here = sum(run.identity in queued for run in order.plan.runs)
    head = (f"{name}, {order.stage}, by launch/{config.name}: {total} runs to submit in "
            f"{len(jobs)} job(s), {here} in the queue already; nothing was submitted")
    if not jobs:
        return [head]
    return [head, *table_lines(["job", "array", "stage", "runs", "nodes", "after jobs", "time"],
                               rows, words=7)]


def submitted_lines(order: Order, jobs: Sequence[Job], numbers: Sequence[str]) -> list[str]:
    """What was submitted, a line for each job."""
    name = order.plan.experiment.name
    lines = [f"job {number}: {job.stage}: {', '.join(run.display_name for run in job.runs)}"
             for job, number in zip(jobs, numbers, strict=True)]
    told = f"{sum(len(job.runs) for job in jobs)} runs in {len(jobs)} job(s) submitted"
    return [*lines, f"{name}, {order.stage}: " + (told if jobs else "nothing to submit")
            + f"; `python -m src.runs status {name}` tells where they stand"]


def status_lines(name: str, found: Sequence[Standing]) -> list[str]:
    """Every run that is not done, and how many of each state there are."""
    counts = Counter(each.state for each in found)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    rows = [[each.run.stage, each.run.display_name, each.state, each.job, each.told]
            for each in found if each.state != "done"]
    table = table_lines(["stage", "run", "state", "job", ""], rows, words=5) if rows else []
    return [*table, f"{name}: {len(found)} runs: {told}"]
