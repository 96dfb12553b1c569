"""The config of policies: language models that are aligned to the reward models of an experiment.

    policies:                     # a block of an experiment
      model: demo
      labels: [gt, teacher, student]
      dpo: {beta: 0.1, learning_rate: 1.0e-4}
"""

from typing import Annotated, Literal

from pydantic import Field

from configs.field_types import Count, Epochs, NotNegative, Positive, Several, Size
from configs.lora_schema import LoraConfig
from configs.strict_yaml import config, require

Source = Literal["gt", "teacher", "student"]
"""Who says which answer of a pair of train_2 is the better one: people, the teacher, or the student
that learned from that teacher's labels alone."""
DpoLoss = Literal["sigmoid", "ipo", "robust"]
Smoothing = Annotated[NotNegative, Field(lt=0.5)]
"""The share of labels that are taken to be wrong: at a half they say nothing."""


@config
class SftConfig:
    """Supervised fine-tuning: the likelihood of answers, given their prompts."""

    epochs: Epochs = 1.0
    batch_answers: Count = 32
    learning_rate: Positive = 1e-5
    """Peak."""
    lora: LoraConfig | None = None
    """Adapters, merged into the policy that is saved; null to train every weight."""


@config
class DpoConfig:
    """Direct preference optimisation (Rafailov et al. 2023) from the fine-tuned policy."""

    epochs: Epochs = 1.0
    batch_pairs: Count = 32
    learning_rate: Positive = 1e-6
    """Peak."""
    beta: Positive = 0.1
    """How dear it is to leave the policy that it begins at; of ipo, its tau."""
    loss: DpoLoss = "sigmoid"
    """sigmoid: DPO. ipo: a squared distance, of mean log-odds a token (Azar et al. 2023). robust:
    unbiased where a known share of labels is wrong (Chowdhury et al. 2024)."""
    label_smoothing: Smoothing = 0.0
    """That share. It acts in robust alone: TRL 1.16 passes over it elsewhere."""
    lora: LoraConfig | None = None

    def __post_init__(self):
        require(not self.label_smoothing or self.loss == "robust", f"label_smoothing "
                f"{self.label_smoothing} has no effect on loss {self.loss}: take loss robust, or "
                "leave it out")


@config
class PoliciesConfig:
    """Policies of an experiment, and how they are judged."""

    model: str
    """Base model; it needs its language head."""
    layers: Count | None = None
    """How many of its decoder layers the policy keeps; null for all."""
    keep: Literal["evenly_spaced", "first", "first_and_last"] = "evenly_spaced"
    sft: SftConfig = SftConfig()
    dpo: DpoConfig = DpoConfig()
    labels: Annotated[Several[Source], Field(min_length=1)] = ("gt", "teacher", "student")
    """Each of them makes a policy."""
    judge: Literal["ceiling", "student", "teacher"] = "ceiling"
    """The reward model that scores policies: one that labelled for none of them."""
    pairrm: str = ""
    """Folder of PairRM (llm-blender/PairRM-hf), which compares answers with those of the fine-tuned
    policy beside the judge; empty for no such second judge."""
    pairs: Count | None = None
    """Of train_1 (answers) and of train_2 that policies learn from, at most; null for all."""
    prompts: Count = 256
    """Of test, at most, that policies answer and are judged on; and of train_2 in a RAFT round."""
    max_new_tokens: Size = 64
    """Of an answer. Longer answers of the data are left out of training."""
    temperature: Positive = 1.0
    best_of: Annotated[Several[Count], Field(min_length=1)] = (1, 2, 4, 8, 16)
    """Answers of the fine-tuned policy among which a labelling reward model picks the best."""
    raft_rounds: Annotated[int, Field(ge=0, le=100)] = 0
    """Rounds of: answer, keep the best answer by the labelling reward model, fine-tune on it."""
    raft_answers: Count = 4
    """To each prompt of such a round."""
    examples: Annotated[int, Field(ge=0, le=100)] = 3
    """Prompts whose answers the page shows; 0 where its texts are not to be passed on."""

    def __post_init__(self):
        require(self.judge not in self.labels, f"policies: the judge, {self.judge}, labels for "
                f"policies too (labels {list(self.labels)}), and would find what it asked for: "
                "take another judge")
        require(len(set(self.labels)) == len(self.labels),
                f"policies: labels {list(self.labels)} repeat")


@config
class PolicyStep:
    """What a run of kind policy does beyond its budget: part of its config.yaml."""

    step: Literal["sft", "dpo", "raft"]
    source: Source
    """What `labels` are called in tables; for raft, whose rewards pick."""
    max_new_tokens: Size
    pairs: Annotated[int, Field(ge=0)] = 0
    """At most; 0 for all."""
    beta: Positive = 0.1
    loss: DpoLoss = "sigmoid"
    label_smoothing: Smoothing = 0.0
    round: Annotated[int, Field(ge=0)] = 0
    """Of raft, from 1."""
    answers: Annotated[int, Field(ge=0)] = 0
    prompts: Annotated[int, Field(ge=0)] = 0
    temperature: Positive = 1.0

    @property
    def name(self) -> str:
        """`sft`, `dpo`, `raft2`."""
        return f"{self.step}{self.round or ''}"
