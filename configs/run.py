"""A run as a node of an experiment's graph: what can change its result, and what it needs.

    <run folder>/config.yaml -> RunConfig
"""

import functools
from typing import Literal

from configs.averaging import Recipe
from configs.field_types import Name, Several, SomeShare, Whole
from configs.identity import facts
from configs.policy_schema import PolicyStep
from configs.schema import MethodConfig, TrainConfig
from configs.strict_yaml import config, require
from src.common.hashing import content_hash

RUN_FORMAT = 1
"""Raise it when code changes what a run's folder holds or means: older ones are then not reused."""
GROUND_TRUTH = "ground_truth"
"""The labels of teachers and ceilings, and what their method is called: none was chosen."""
GROUND_TRUTH_METHOD = MethodConfig(GROUND_TRUTH, loss="hard_bt")
GROUND_TRUTH_FACTS = {"loss": "hard_bt", "aux_coef": 0.0, "warmup_frac": 0.2}
"""What stands for the method in the identity of a run on ground truth. It always stood there, so it
stays, whatever keys and defaults methods come to have."""
STAGES = ("teachers", "ceilings", "students")
"""Reward models are made in this order; a run lies under its stage, an average with students."""
POLICIES = "policies"
"""The stage of language models that are aligned to them."""


@config
class RunConfig:
    """One training run, with everything that can change its result: a run folder's config.yaml."""

    experiment: Name
    kind: Literal["teacher", "ceiling", "student", "average", "policy"]
    name: Name
    """The rung: base model and layers, for example `demo-L4`."""
    model: str
    base: str
    """Fingerprint of the base checkpoint."""
    kept: Several[Whole]
    data: Name
    data_hash: str
    tokenizer: str
    """Key of the tokenizer."""
    split: Literal["train_1", "train_2"]
    labels: str
    """`ground_truth`, or the identity of the teacher whose weak labels these are; of several
    teachers, their identities with a + between them."""
    teacher: str
    """The teacher's rung, or `mean_margin-of-rung+rung`; empty for ground truth."""
    method: MethodConfig
    train: TrainConfig
    seed: Whole
    earlier: str = ""
    """The identity of the student whose labels its treatment takes too, or who is its teacher at
    the end of a chain (`through`), or that is averaged, or of the policy that this one begins at;
    empty for none."""
    train_share: SomeShare = 1.0
    """Share of the split's prompts that a teacher learns from."""
    keep: str = ""
    """The rule that chose the kept layers, for people; what enters the identity are the layers."""
    policy: PolicyStep | None = None
    """Of a policy alone."""
    judge: str = ""
    """The identity of the reward model that a policy is judged by, which changes nothing in it."""
    average: Recipe | None = None
    """How an average's student and its base become one; all else is the student's."""

    def __post_init__(self):
        loss = GROUND_TRUTH_FACTS["loss"]
        require((self.kind == "average") == (self.average is not None), f"run {self.name}: kind "
                f"{self.kind}: an average has a recipe under `average`, and no other run has")
        require(self.labels != GROUND_TRUTH or self.method.loss == loss,
                f"run {self.name}: loss {self.method.loss} is for weak labels: expected {loss} on "
                f"labels {GROUND_TRUTH}")
        require((self.kind == "policy") == (self.policy is not None),
                f"run {self.name}: kind {self.kind} and policy {self.policy}: expected both or "
                "neither")

    @functools.cached_property
    def identity(self) -> str:
        """Hash of what can change the result. Names and paths do not enter: two experiments that
        need the same ceiling share it."""
        entering = facts(self)
        entering["role"] = entering.pop("kind")  # as it was called when the first runs were made
        if entering["train"]["precision"] == "fp32":  # which `auto` was when they were
            entering["train"]["precision"] = "auto"
        if self.labels == GROUND_TRUTH:
            entering["method"] = GROUND_TRUTH_FACTS
        return content_hash([RUN_FORMAT, entering])

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the runs that have to be finished first."""
        teachers = () if self.labels == GROUND_TRUTH else tuple(self.labels.split("+"))
        return (*teachers, *filter(None, (self.earlier, self.judge)))

    @property
    def role(self) -> str:
        """What tables call it: an average stands there as a student by another method."""
        return "student" if self.kind == "average" else self.kind

    @property
    def stage(self) -> str:
        return POLICIES if self.policy else f"{self.role}s"

    @property
    def display_name(self) -> str:
        """`demo-L4-s0`, `demo-L8-from-demo-L4-soft-s0` for a student, `demo-L8-dpo-teacher-s0`."""
        if self.policy:
            return f"{self.name}-{self.policy.name}-{self.policy.source}-s{self.seed}"
        taught = f"-from-{self.teacher}-{self.method.name}" if self.teacher else ""
        return f"{self.name}{taught}-s{self.seed}"

    @property
    def folder_name(self) -> str:
        return f"{self.display_name}-{self.identity[:8]}"
