"""The config of how a cluster's queue is asked for machines: `configs/launch/<name>.yaml`.

    LAUNCH=slurm ./weak_to_strong.sh EXPERIMENT

What is asked for changes no result, so nothing of it enters a run's identity. Without LAUNCH, or
with LAUNCH=local, the scripts train on the machine that they are called on.
"""

from dataclasses import field

from configs.field_types import Count, Name, Natural, Positive, Several
from configs.strict_yaml import config, require

LOCAL = "local"
"""The LAUNCH that no file stands for."""


@config
class LaunchConfig:
    """Jobs of a Slurm cluster."""

    name: Name
    partition: str | None = None
    """null for the cluster's default."""
    account: str | None = None
    """Whom the time is charged to."""
    gpus: Natural = 0
    """GPUs that a job gets on each of its nodes; 0 trains on CPUs."""
    gpu_gb: Positive | None = None
    """Memory of one of them in 10^9 bytes. With it a run takes as many nodes as hold it."""
    most_nodes: Count = 1
    """Nodes that one run may take."""
    cpus: Count = 8
    """CPU cores that a job gets on each node. Without GPUs, so many of its runs go on at a time."""
    memory_gb: Positive | None = None
    """CPU memory that a job gets on each node; null for the partition's default."""
    hours: Positive = 24
    """Until a job is ended. A minute and a half before that it saves, and goes to the queue."""
    runs_a_job: Count = 1
    """Runs that one job trains, on GPUs one after the other: small ones are not worth one each."""
    array_width: Count = 64
    """Jobs of one array that go on at a time."""
    modules: Several[str] = ()
    """What a node loads first, as in `module load cuda/12.4`."""
    sbatch: dict[str, str] = field(default_factory=dict, hash=False)
    """Other options of sbatch, without dashes: `{qos: long, constraint: h100}`."""

    def __post_init__(self):
        require(self.most_nodes == 1 or self.gpu_gb is not None,
                f"most_nodes {self.most_nodes}: how many nodes a run needs is known by gpu_gb, the "
                "memory of one GPU: add it, such as gpu_gb: 80")
        owned = sorted({"signal", "dependency", "array", "job-name", "output"} & set(self.sbatch))
        require(not owned, f"sbatch: {', '.join(owned)} is set by the launcher: leave it out")
