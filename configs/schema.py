"""Every config dataclass of the repository.

A config says what is run, never how fast or where: hardware lives in `configs/hardware`. Impossible
values are UserErrors that name the file and the key.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from configs.data_schema import DataConfig
from configs.identity import facts
from configs.strict_yaml import from_dict, read_yaml, require, require_name
from src.common.errors import UserError
from src.common.files import REPO_ROOT
from src.common.hashing import content_hash

RUN_FORMAT = 1
"""Raise it when code changes what a run's folder holds or means: older ones are then not reused."""
MOST_EPOCHS = 1_000
"""Above it a number of epochs is a slip of the pen: a dry run alone would not come to an end."""
CONFIG_ROOT = Path(__file__).resolve().parent
T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """A base model: `configs/models/<name>.yaml`."""

    name: str
    checkpoint: str
    """Hub id, or a folder on disk (relative to the repository's root) that is used as it is."""
    family: str
    """`model_type` in the checkpoint's config.json; checked before anything is built."""
    revision: str = "main"
    """Hub commit the checkpoint is fetched at."""
    chat_template: str = ""
    """Jinja file in `configs/templates`, for base models that come without a chat template."""
    learning_rate: float = 1e-5
    """Peak learning rate of a reward model of this size."""
    parameters: float = 0.0
    """Of the language model, in billions; 0 where nobody has written it down."""
    download_gb: float = 0.0
    """What is fetched at this revision (safetensors, tokenizer, config), in 10^9 bytes; or 0."""
    gated: bool = False
    """Whether the hub gives it only to those who have accepted its licence."""
    license: str = ""
    """The licence as the hub calls it, for the cards of the models that are made of this one."""

    def __post_init__(self):
        require_name(self.name, "models")
        require(bool(self.checkpoint.strip("./ ")), f"models/{self.name}: checkpoint "
                f"{self.checkpoint!r}: expected a hub id or the folder of a checkpoint")
        require(self.learning_rate > 0, f"models/{self.name}: learning_rate {self.learning_rate} "
                "must be above 0")
        require(self.parameters >= 0 and self.download_gb >= 0,
                f"models/{self.name}: parameters {self.parameters} and download_gb "
                f"{self.download_gb} must not be negative")

    @property
    def is_local(self) -> bool:
        """Whether the checkpoint is a folder on disk, not a hub id (`name` or `owner/name`)."""
        return self.checkpoint.startswith(("model/", ".", "/")) or self.checkpoint.count("/") > 1

    @property
    def path(self) -> Path:
        """Where the checkpoint is, or will be once `model/download.py` has fetched it."""
        local = REPO_ROOT / self.checkpoint
        return local if local.is_dir() else REPO_ROOT / "model" / "checkpoints" / self.name


@dataclass(frozen=True)
class LadderConfig:
    """Rungs of one base model: one entry of an experiment's `teachers` or `students`."""

    model: str
    layers: tuple[int, ...] = ()
    """How many decoder layers each rung keeps; empty for the whole model as the only rung."""
    keep: Literal["evenly_spaced", "first"] | tuple[int, ...] = "evenly_spaced"
    """Which layers a rung keeps: 4 of 16 evenly spaced are 3, 7, 11, 15. Or their list, as the only
    rung."""

    def __post_init__(self):
        if not isinstance(self.keep, str):
            require(not self.layers, f"model {self.model}: an explicit keep list {list(self.keep)} "
                    "is one rung of its own: leave layers out")
        require(all(count > 0 for count in self.layers),
                f"model {self.model}: layers {list(self.layers)} must all be above 0")
        require(len(set(self.layers)) == len(self.layers),
                f"model {self.model}: layers {list(self.layers)} repeat")


@dataclass(frozen=True)
class MethodConfig:
    """How a student learns from weak labels."""

    name: str
    loss: str = "soft_bt"
    """A name in LOSSES (src/methods/losses.py), where their code is. An experiment with another is
    refused before anything of it is looked at."""
    aux_coef: float = 0.0
    """Confidence loss: the weight that the student's own hardened prediction ramps up to."""
    warmup_frac: float = 0.2
    """Confidence loss: share of the training over which aux_coef rises linearly from 0."""
    treatment: str = "as_is"
    """What the weak labels become: a name in TREATMENTS (src/methods/label_treatments.py). Some
    take the labels of all teachers together."""

    def __post_init__(self):
        require_name(self.name, "method")
        where = f"method {self.name}"
        require(0 <= self.aux_coef <= 1, f"{where}: aux_coef {self.aux_coef} must lie in [0, 1]")
        require(0 <= self.warmup_frac <= 1,
                f"{where}: warmup_frac {self.warmup_frac} must lie in [0, 1]")
        require(self.loss == "confidence" or self.aux_coef == 0,
                f"{where}: aux_coef {self.aux_coef} only enters loss confidence, not {self.loss}")


@dataclass(frozen=True)
class TrainConfig:
    """Budget and optimisation, the same for teachers, ceilings and students."""

    epochs: float = 1.0
    batch_pairs: int = 256
    """Pairs in one optimiser step, over all devices and micro batches; a few more or less where the
    pairs of a prompt would be parted."""
    learning_rate: float | None = None
    """Peak; null for the base model's own."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    lr_warmup_frac: float = 0.03
    weight_decay: float = 0.001
    max_grad_norm: float = 1.0
    center_coef: float = 0.0
    """Weight of mean(reward^2), which keeps rewards near 0; TRL recommends 0.01."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 compute over fp32 master weights on CUDA, fp32 on CPU."""
    early_stopping_evals: int = 0
    """Students stop after this many evaluations without a lower loss on *weak* val labels, and keep
    the best of them; 0 for a fixed budget."""
    eval_frac: float = 0.1
    """With early stopping: the share of the training between two evaluations."""
    shuffle: Literal["prompts", "pairs"] = "prompts"
    """prompts: the pairs of a prompt stay together, and cost it once. pairs: each goes its own way,
    and the prompt is computed in every step that one of them falls into."""
    trainable_layers: int | None = None
    """Train only the top layers, this many of them, with the final norm and the head; null for
    everything."""
    trunk_cache_dtype: Literal["fp32", "bf16"] = "fp32"
    """How hidden states under layers that do not train are kept. bf16 takes half the disk, and
    rounds them."""

    def __post_init__(self):
        require(0 < self.epochs <= MOST_EPOCHS, f"train: epochs {self.epochs} must be above 0, and "
                f"at most {MOST_EPOCHS:,}")
        require(self.batch_pairs > 0, f"train: batch_pairs {self.batch_pairs} must be above 0")
        require(self.learning_rate is None or self.learning_rate > 0,
                f"train: learning_rate {self.learning_rate} must be above 0")
        require(0 <= self.lr_warmup_frac < 1,
                f"train: lr_warmup_frac {self.lr_warmup_frac} must lie in [0, 1)")
        require(self.weight_decay >= 0 and self.center_coef >= 0 and self.max_grad_norm > 0,
                "train: weight_decay and center_coef must not be negative, max_grad_norm above 0")
        require(self.early_stopping_evals >= 0 and 0 < self.eval_frac <= 1,
                "train: early_stopping_evals must not be negative, eval_frac must lie in (0, 1]")
        require(self.trainable_layers is None or self.trainable_layers > 0,
                f"train: trainable_layers {self.trainable_layers} must be above 0, or null for all")


@dataclass(frozen=True)
class RuntimeConfig:
    """What changes speed, memory and logging but no result: it does not enter a run's identity."""

    micro_batch_tokens: int = 8192
    """Tokens in one forward on one device while training; batch_pairs is reached by accumulation. A
    pair with more goes alone."""
    score_batch_tokens: int | None = None
    """The same where nothing is trained; null for 32,768 on CUDA and 4,096 on a CPU, whose caches
    hold no more."""
    share_prompt: bool = True
    """A prompt is computed once for all its responses; off: once for each."""
    pack: bool = True
    """Prompts follow each other in one row without padding; off: one a row, padded."""
    attention: Literal["auto", "dense", "flex", "varlen"] = "auto"
    """dense: a mask, anywhere. flex: compiled block masks, CUDA. varlen: PyTorch's variable-length
    attention, CUDA. auto picks."""
    last_layer_shortcut: bool = True
    """For tokens that no reward is read from, the last layer computes keys and values only."""
    trunk_cache_gb: float = 50.0
    """Disk for the hidden states under layers that are not trained; 0 computes them every time."""
    gradient_checkpointing: bool = False
    save_steps: int = 500
    """Optimiser steps between two checkpoints to resume from."""
    logging_steps: int = 10
    report_to: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    def __post_init__(self):
        for name in ("micro_batch_tokens", "score_batch_tokens", "save_steps", "logging_steps"):
            value = getattr(self, name)
            require(value is None or value > 0, f"runtime: {name} {value} must be above 0")
        require(self.trunk_cache_gb >= 0,
                f"runtime: trunk_cache_gb {self.trunk_cache_gb} must not be negative; 0 for none")


@dataclass(frozen=True)
class EvalConfig:
    """How scores become figures."""

    pgr_floor: float = 0.03
    """PGR is `undefined` where the gap between ceiling and weak is below this accuracy."""
    bootstrap_samples: int = 10_000
    level: float = 0.95

    def __post_init__(self):
        require(0 <= self.pgr_floor < 1, f"eval: pgr_floor {self.pgr_floor} must lie in [0, 1)")
        require(100 <= self.bootstrap_samples <= 1_000_000, f"eval: bootstrap_samples "
                f"{self.bootstrap_samples} must be at least 100, and at most 1,000,000")
        require(0 < self.level < 1, f"eval: level {self.level} must lie in (0, 1)")


@dataclass(frozen=True)
class ExperimentConfig:
    """Teachers x students x methods x seeds on one data source: `configs/experiments/*.yaml`."""

    name: str
    data: str
    teachers: tuple[LadderConfig, ...]
    students: tuple[LadderConfig, ...]
    methods: tuple[MethodConfig, ...] = (MethodConfig("soft"),)
    seeds: tuple[int, ...] = (0,)
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    eval: EvalConfig = EvalConfig()

    def __post_init__(self):
        require_name(self.name, "experiments")
        for name in ("teachers", "students", "methods", "seeds"):
            require(bool(getattr(self, name)), f"experiments/{self.name}: {name} is empty")
        names = [method.name for method in self.methods]
        require(len(set(names)) == len(names),
                f"experiments/{self.name}: methods {names} repeat a name")
        require(len(set(self.seeds)) == len(self.seeds),
                f"experiments/{self.name}: seeds {list(self.seeds)} repeat")
        require(all(0 <= seed < 2**32 for seed in self.seeds),
                f"experiments/{self.name}: seeds {list(self.seeds)} must lie in [0, 2^32)")

    @property
    def model_names(self) -> list[str]:
        """Every base model of the experiment, once, in the order of the ladders."""
        return list(dict.fromkeys(rung.model for rung in (*self.teachers, *self.students)))


@dataclass(frozen=True)
class PretrainConfig:
    """A small base model of our own: `configs/pretrain/<name>.yaml`."""

    name: str
    output_dir: str
    max_length: int
    """Tokens of a row: a document's limit, or the length of a block where documents are packed."""
    documents: tuple[str, ...] = ()
    """Text files of one document a line. `${RAW_DIR}` is the environment's, or data/raw."""
    books: tuple[str, ...] = ()
    """Text files of running English, or JSON lists of stories."""
    pairs: tuple[str, ...] = ()
    """pairs/<split>.parquet of prepared data: each prompt with each of its answers is a document;
    which answer was preferred is not told."""
    packed: bool = False
    """Documents are joined and cut into blocks; otherwise each is a row of its own."""
    loss_after: str = ""
    """Only what follows this token of a row is learned; empty for everything."""
    tokenizer: Literal["words", "bpe"] = "bpe"
    vocab_size: int = 4096
    chat_template: str = "plain.jinja"
    hidden_size: int = 64
    intermediate_size: int = 192
    layers: int = 6
    heads: int = 4
    epochs: float = 1.0
    batch_rows: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self):
        require_name(self.name, "pretrain")
        require(bool(self.documents or self.books or self.pairs),
                f"pretrain/{self.name}: give some documents, books or pairs to train on")
        for name in ("max_length", "layers", "heads", "epochs", "batch_rows", "learning_rate"):
            require(getattr(self, name) > 0, f"pretrain/{self.name}: {name} {getattr(self, name)} "
                    "must be above 0")
        require(self.epochs <= MOST_EPOCHS, f"pretrain/{self.name}: epochs {self.epochs} must be "
                f"at most {MOST_EPOCHS:,}")
        for name in ("max_length", "layers", "heads", "batch_rows", "vocab_size", "hidden_size",
                     "intermediate_size"):
            require(getattr(self, name) <= 1 << 20, f"pretrain/{self.name}: {name} "
                    f"{getattr(self, name)} must be at most {1 << 20:,}")
        require(0 <= self.seed < 2**32, f"pretrain/{self.name}: seed {self.seed} must lie in "
                "[0, 2^32)")
        require(self.vocab_size >= 256, f"pretrain/{self.name}: vocab_size {self.vocab_size} must "
                "be at least 256, one for each byte")
        require(self.hidden_size % (2 * self.heads) == 0, f"pretrain/{self.name}: hidden_size "
                f"{self.hidden_size} must be a multiple of twice its {self.heads} heads")


GROUND_TRUTH = "ground_truth"
"""The labels of teachers and ceilings, and what their method is called: none was chosen."""
GROUND_TRUTH_METHOD = MethodConfig(GROUND_TRUTH, loss="hard_bt")
GROUND_TRUTH_FACTS = {"loss": "hard_bt", "aux_coef": 0.0, "warmup_frac": 0.2}
"""What stands for the method in the identity of a run on ground truth. It always stood there, so it
stays, whatever keys and defaults methods come to have."""
STAGES = ("teachers", "ceilings", "students")
"""What is trained, in this order; a run's folder lies under its stage."""


@dataclass(frozen=True)
class RunConfig:
    """One training run, with everything that can change its result: a run folder's config.yaml."""

    experiment: str
    kind: Literal["teacher", "ceiling", "student"]
    name: str
    """The rung: base model and layers, for example `demo-L4`."""
    model: str
    base: str
    """Fingerprint of the base checkpoint."""
    kept: tuple[int, ...]
    data: str
    data_hash: str
    tokenizer: str
    """Key of the tokenizer."""
    split: Literal["train_1", "train_2"]
    labels: str
    """`ground_truth`, or the identity of the teacher whose weak labels these are; of several
    teachers, their identities with a + between them."""
    teacher: str
    """The teacher's rung, or `treatment-of-rung+rung`; empty for ground truth."""
    method: MethodConfig
    train: TrainConfig
    seed: int

    def __post_init__(self):
        for name in (self.experiment, self.name, self.data):
            require_name(name, "run")
        loss = GROUND_TRUTH_FACTS["loss"]
        require(self.labels != GROUND_TRUTH or self.method.loss == loss,
                f"run {self.name}: loss {self.method.loss} is for weak labels: expected {loss} on "
                f"labels {GROUND_TRUTH}")

    @functools.cached_property
    def identity(self) -> str:
        """Hash of what can change the result. Names and paths do not enter: two experiments that
        need the same ceiling share it."""
        entering = facts(self)
        entering["role"] = entering.pop("kind")  # as it was called when the first runs were made
        if self.labels == GROUND_TRUTH:
            entering["method"] = GROUND_TRUTH_FACTS
        return content_hash([RUN_FORMAT, entering])

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the runs that have to be finished first."""
        return () if self.labels == GROUND_TRUTH else tuple(self.labels.split("+"))

    @property
    def stage(self) -> str:
        return f"{self.kind}s"

    @property
    def display_name(self) -> str:
        """`demo-L4-s0`, or `demo-L8-from-demo-L4-soft-s0` for a student."""
        taught = f"-from-{self.teacher}-{self.method.name}" if self.teacher else ""
        return f"{self.name}{taught}-s{self.seed}"

    @property
    def folder_name(self) -> str:
        return f"{self.display_name}-{self.identity[:8]}"


def load_config(cls: type[T], name: str) -> T:
    """The config called `name`, or the one in the YAML file of that path.

    Args:
        cls: ModelConfig, DataConfig, ExperimentConfig or PretrainConfig.
    Raises:
        UserError: no such config; not YAML; an unknown key; a wrong type; an impossible value.
    """
    folder = {ModelConfig: "models", DataConfig: "data", ExperimentConfig: "experiments",
              PretrainConfig: "pretrain"}[cls]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIG_ROOT / folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (CONFIG_ROOT / folder).glob("*.yaml"))
        raise UserError(f"no {folder} config {name!r}: expected one of {', '.join(known)}, or the "
                        "path of a YAML file")
    return from_dict(cls, {"name": path.stem, **read_yaml(path)}, where=str(path))
