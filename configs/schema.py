"""The config dataclasses of experiments, and how any config is loaded.

A config says what is run, never how fast or where: hardware lives in `configs/hardware`. Impossible
values are UserErrors that name the file and the key.
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from configs.data_schema import DataConfig
from configs.field_types import (
    Count,
    Epochs,
    Name,
    Natural,
    NotNegative,
    PartialShare,
    Positive,
    Seed,
    Several,
    Share,
    SomeShare,
    Whole,
)
from configs.launch_schema import LaunchConfig
from configs.lora_schema import LoraConfig
from configs.model_schema import ModelConfig
from configs.policy_schema import PoliciesConfig
from configs.pretrain_schema import PretrainConfig
from configs.strict_yaml import config, from_dict, read_yaml, require
from src.common.errors import UserError

CONFIG_ROOT = Path(__file__).resolve().parent
T = TypeVar("T")
Keep = Literal["evenly_spaced", "first", "first_and_last", "block_influence"]


@config
class LadderConfig:
    """Rungs of one base model: one entry of an experiment's `teachers` or `students`."""

    model: str
    layers: Several[Count] = ()
    """How many decoder layers each rung keeps; empty for the whole model as the only rung."""
    keep: Keep | Several[Whole] = "evenly_spaced"
    """Which layers a rung keeps. 4 of 16 evenly spaced are 3, 7, 11, 15; first 0, 1, 2, 3;
    first_and_last 0, 1, 14, 15; block_influence those that change most of what passes through them
    (model/base/influence.py). Or their list, as the only rung."""
    learning_rate: Positive | None = None
    """Peak of these rungs, where the models of an experiment learn best at different ones; null for
    that of the experiment's `train`."""
    train_share: SomeShare = 1.0
    """Share of train_1's prompts that teachers learn from: less makes weak ones of full depth. What
    a smaller share has, a larger one has too."""
    trainable_layers: Count | None = None
    """How many top layers of these rungs train, where a deep student wants more of them than a
    teacher has; null for those of the experiment's `train`."""

    def __post_init__(self):
        if not isinstance(self.keep, str):
            require(not self.layers, f"model {self.model}: an explicit keep list {list(self.keep)} "
                    "is one rung of its own: leave layers out")
        require(len(set(self.layers)) == len(self.layers),
                f"model {self.model}: layers {list(self.layers)} repeat")


@config
class MethodConfig:
    """How a student learns from weak labels."""

    name: Name
    loss: str = "soft_bt"
    """A name in LOSSES (src/methods/losses.py), where their code is. An experiment with another is
    refused before anything of it is looked at."""
    aux_coef: Share = 0.0
    """Confidence loss, which has to be given it: the weight that the student's own hardened
    prediction ramps up to."""
    warmup_frac: Share = 0.2
    """Confidence loss: share of the training over which aux_coef rises linearly from 0."""
    treatment: str = "as_is"
    """What the weak labels become: a name in TREATMENTS (src/methods/label_treatments.py). Some
    take the labels of all teachers together, some those of an earlier student."""
    loss_options: dict[str, Any] = field(default_factory=dict, hash=False)
    """What else the loss is told: its function's parameters that have a default."""
    treatment_options: dict[str, Any] = field(default_factory=dict, hash=False)
    """The same of the treatment."""
    learner: Literal["gradient", "probe"] = "gradient"
    """gradient: weights that follow the loss's. probe: the student is its base model as it is, and
    its head a logistic regression of the labels on the base's hidden states."""
    after: str = ""
    """The name of a method above this one, whose student of the same rung, teacher and seed labels
    for this one's, where the treatment asks for an earlier student."""
    early_stopping_evals: Natural = 0
    """The same as the key of `train`, for this method's students alone, and instead of it; 0 leaves
    them to `train`."""
    stop_on: Literal["weak", "truth"] = "weak"
    """Whose val labels that loss is of. truth: human ones, a diagnostic that only a method called
    oracle... may have."""
    through: Several[LadderConfig] = ()
    """Rungs between teacher and student, from the smaller to the bigger: a chain in which each
    learns by this method from the labels of the one before it, and labels for the next."""

    def __post_init__(self):
        stops = self.early_stopping_evals > 0
        require(stops or self.stop_on == "weak", f"method {self.name}: stop_on {self.stop_on} "
                "only enters early stopping: give early_stopping_evals too")
        require(not stops or self.learner == "gradient", f"method {self.name}: learner "
                f"{self.learner} takes no steps to stop: leave out early_stopping_evals")
        require(all(len(ladder.layers) < 2 and ladder.train_share == 1 for ladder in self.through),
                f"method {self.name}: through: each entry is one rung of students: give it one "
                "number of layers, and no train_share")
        require(not (self.through and self.after), f"method {self.name}: through and after "
                f"{self.after}: each names who labels for its students: leave out one of them")
        require(self.loss == "confidence" or self.aux_coef == 0, f"method {self.name}: aux_coef "
                f"{self.aux_coef} only enters loss confidence, not {self.loss}")
        require(self.loss != "confidence" or self.aux_coef > 0 or self.loss_options,
                f"method {self.name}: loss confidence with aux_coef 0 is soft_bt: give it, such as "
                "aux_coef: 0.5")
        require(self.learner == "gradient" or (self.loss == "soft_bt" and not self.loss_options),
                f"method {self.name}: learner {self.learner} fits the labels by soft_bt: leave out "
                f"loss {self.loss} and its options")


@config
class AverageConfig:
    """A way to average every student with its base: one entry of an experiment's `averages`."""

    recipe: str
    """Name of a file in configs/averaging, the path of one, or a published string."""
    alphas: Several[Share] = ()
    """The recipe with each of these for its mean, 0 being the student and 1 its base; empty for the
    recipe as it is."""


@config
class TrainConfig:
    """Budget and optimisation, the same for teachers, ceilings and students."""

    epochs: Epochs = 1.0
    batch_pairs: Count = 256
    """Pairs in one optimiser step, over all devices and micro batches; a few more or less where the
    pairs of a prompt would be parted."""
    learning_rate: Positive | None = None
    """Peak; null for the base model's own."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    lr_warmup_frac: PartialShare = 0.03
    weight_decay: NotNegative = 0.001
    max_grad_norm: Positive = 1.0
    center_coef: NotNegative = 0.0
    """Weight of mean(reward^2), which keeps rewards near 0; TRL recommends 0.01."""
    precision: Literal["auto", "fp32", "bf16", "bf16_residual"] = "auto"
    """fp32, or bf16 matrix products over fp32 weights; bf16_residual: the residual stream in bf16
    too. auto: bf16 on CUDA and on CPUs that have instructions for it, else fp32. A run's config and
    identity have what was used."""
    early_stopping_evals: Natural = 0
    """Students stop after this many evaluations without a lower loss on *weak* val labels, and keep
    the best of them; 0 for a fixed budget."""
    eval_frac: SomeShare = 0.1
    """With early stopping: the share of the training between two evaluations."""
    shuffle: Literal["prompts", "pairs"] = "prompts"
    """prompts: the pairs of a prompt stay together, and cost it once. pairs: each goes its own way,
    and the prompt is computed in every step that one of them falls into."""
    trainable_layers: Count | None = None
    """Train only the top layers, this many of them, with the final norm and the head, also where a
    cut keeps no more than these; null for everything."""
    freeze_embeddings: bool = False
    """Train all but the embedding tables, of tokens and of positions: 12 bytes of memory less for
    each of their parameters, and no optimiser time for tokens that no pair has."""
    trunk_cache_dtype: Literal["fp32", "bf16"] = "fp32"
    """How hidden states under layers that do not train are kept. bf16 takes half the disk, and
    rounds them."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of the layers; null for the layers themselves. Adapters
    usually want about 10 times the learning rate of full tuning: set `learning_rate`, for that of
    the base model's config is for full tuning."""

    def __post_init__(self):
        frozen = "trainable_layers" if self.trainable_layers else "lora" if self.lora else ""
        require(not (self.freeze_embeddings and frozen), "freeze_embeddings: with "
                f"{frozen} the embeddings do not train anyway: leave freeze_embeddings out")


@config
class RuntimeConfig:
    """What changes speed, memory and logging but no result: it does not enter a run's identity."""

    micro_batch_tokens: Count | Literal["auto"] = 8192
    """Tokens in one forward on one device while training; batch_pairs is reached by accumulation. A
    pair with more goes alone. auto: as many as the device holds, see docs/memory.md."""
    score_batch_tokens: Count | None = None
    """The same where nothing is trained; null for 32,768 on CUDA and 4,096 on a CPU, whose caches
    hold no more."""
    share_prompt: bool = True
    """A prompt is computed once for all its responses; off: once for each."""
    pack: bool = True
    """Prompts follow each other in one row without padding; off: one a row, padded."""
    attention: Literal["auto", "dense", "flex", "varlen"] = "auto"
    """dense: a mask, anywhere. flex: compiled block masks, CUDA. varlen: PyTorch's variable-length
    attention, CUDA. auto picks."""
    compile_layers: bool | None = None
    """Decoder layers that train are compiled, where gradients are computed; the last bits of a
    number may differ. null: on CUDA, but under ZeRO-3, which needs true layers, and unpacked."""
    last_layer_shortcut: bool = True
    """For tokens that no reward is read from, the last layer computes keys and values only."""
    trunk_cache_gb: NotNegative = 50.0
    """Disk for the hidden states under layers that are not trained; 0 computes them every time."""
    gradient_checkpointing: bool = False
    save_steps: Count = 500
    """Optimiser steps between two checkpoints to resume from."""
    logging_steps: Count = 10
    report_to: Literal["tensorboard", "wandb", "none"] = "tensorboard"


@config
class EvalConfig:
    """How scores become figures."""

    pgr_floor: PartialShare = 0.03
    """PGR is `undefined` where the gap between ceiling and weak is below this accuracy."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    level: Annotated[Positive, Field(lt=1)] = 0.95


@config
class ExperimentConfig:
    """Teachers x students x methods x seeds on one data source: `configs/experiments/*.yaml`.
    Without students, teachers alone are compared."""

    name: Name
    data: str
    teachers: Annotated[Several[LadderConfig], Field(min_length=1)]
    students: Several[LadderConfig] = ()
    methods: Annotated[Several[MethodConfig], Field(min_length=1)] = (MethodConfig("soft"),)
    averages: Several[AverageConfig] = ()
    """Of each student: runs of their own, called `soft+uniform_0.4` where methods stand."""
    seeds: Annotated[Several[Seed], Field(min_length=1)] = (0,)
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    eval: EvalConfig = EvalConfig()
    policies: PoliciesConfig | None = None
    """Language models that are aligned to its reward models (`./dpo.sh`); null for none."""

    def __post_init__(self):
        require(self.policies is None or self.runtime.micro_batch_tokens != "auto",
                "runtime.micro_batch_tokens auto: what a policy's training takes is not known by "
                "formula: give a number of tokens, such as 8192")
        names = [method.name for method in self.methods]
        require(len(set(names)) == len(names), f"methods {names} repeat a name")
        require(len(set(self.seeds)) == len(self.seeds), f"seeds {list(self.seeds)} repeat")
        for ladder in self.students:
            require(ladder.train_share == 1, f"students of {ladder.model}: train_share "
                    f"{ladder.train_share} is for teachers: expected 1")
        for place, method in enumerate(self.methods):
            require(not method.after or method.after in names[:place], f"method {method.name}: "
                    f"after {method.after!r}: expected one that stands above it, of "
                    f"{', '.join(names[:place]) or 'none'}")

    @property
    def model_names(self) -> list[str]:
        """Every base model of the experiment, once, in the order of the ladders."""
        through = (rung for method in self.methods for rung in method.through)
        policies = [self.policies] if self.policies else []
        return list(dict.fromkeys(each.model for each in (*self.teachers, *through, *self.students,
                                                          *policies)))


def load_with_policies(name: str) -> ExperimentConfig:
    """The experiment called `name`, or `<name>_dpo` where `name` itself has no policies.

    Raises:
        UserError: neither has; or as `load_config`.
    """
    folder, longer = CONFIG_ROOT / "experiments", f"{name}_dpo"
    there = (folder / f"{longer}.yaml").is_file()
    only = there and not (folder / f"{name}.yaml").is_file()
    config = load_config(ExperimentConfig, longer if only else name)
    if config.policies is None and there:
        config = load_config(ExperimentConfig, longer)
    require(config.policies is not None, f"experiment {name} has no block `policies`, and there is "
            f"no {longer}: see configs/experiments/demo_dpo.yaml for one")
    return config


def load_config(cls: type[T], name: str) -> T:
    """The config called `name`, or the one in the YAML file of that path.

    Args:
        cls: ModelConfig, DataConfig, ExperimentConfig, PretrainConfig or LaunchConfig.
    Raises:
        UserError: no such config; not YAML; an unknown key; a wrong type; an impossible value.
    """
    folder = {ModelConfig: "models", DataConfig: "data", ExperimentConfig: "experiments",
              PretrainConfig: "pretrain", LaunchConfig: "launch"}[cls]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIG_ROOT / folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (CONFIG_ROOT / folder).glob("*.yaml"))
        here = "LAUNCH=local for this machine, " if cls is LaunchConfig else ""
        raise UserError(f"no {folder} config {name!r}: expected {here}one of {', '.join(known)}, "
                        "or the path of a YAML file")
    return from_dict(cls, {"name": path.stem, **read_yaml(path)}, where=str(path))
