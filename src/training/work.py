"""What a run computes, in floating-point operations, known before it begins.

Two a parameter and token for a forward, four for a backward; attention, norms and losses are left
out, and enter the share of a matrix product's speed that runs reach (src/training/speed.py).
"""

from collections.abc import Sequence

from configs.averaging import TAX_PAIRS
from configs.run import RunConfig
from model.base.adapters import adapter_parameters
from model.base.trunk import frozen_of
from src.batches.steps import ALL_PAIRS, Course, tokens_trained
from src.batches.trees import Trees, trees_of
from src.methods.labelling import keep_share
from src.runs.plan import Plan


def pairs_of(run: RunConfig, plan: Plan) -> int:
    """About how many pairs `run` is trained on: before there are labels, a method that drops pairs
    has only said which share it keeps, and a teacher's is of the prompts."""
    share = run.train_share * keep_share(run.method)
    return max(1, round(share * len(plan.split(run, run.split))))


def work(run: RunConfig, plan: Plan, course: Course | None = None,
         steps: int | None = None) -> tuple[int, float]:
    """(tokens, floating-point operations) of training `run`: 6 per parameter and token, or 4 where
    only its adapter has a gradient. Of prompts that several pairs of a step share, each is counted
    once; of layers below those that train, nothing: they run once for all runs.

    A linear probe has none: what it reads is computed once for all runs, as weak labels are. Nor
    has an average, see `averaging`.

    Args:
        course: the run's; None where nothing has labelled its pairs, and it is about this much.
        steps: that it took; None for all of its budget.
    """
    if run.method.learner == "probe" or run.kind == "average":
        return 0, 0.0
    train, tokens = run.train, _tokens(run, plan, course or ALL_PAIRS, steps)
    if course is None:
        tokens = round(tokens * pairs_of(run, plan) / len(plan.split(run, run.split)))
    top = run.kept[-(train.trainable_layers or len(run.kept)):]
    base = plan.bases[run.model]
    if train.lora is None:
        return tokens, 6.0 * tokens * base.parameters(top)
    adapters = adapter_parameters(base.hf_config, top, train.lora)
    return tokens, tokens * (4.0 * base.parameters(top) + 6.0 * adapters)


def training(run: RunConfig, plan: Plan, cached: bool) -> float:
    """Operations of training `run` as they are really computed: its last layer as a forward does,
    the layers below those that train in every step unless they are `cached`, and val as often as
    early stopping asks."""
    tokens, flops = work(run, plan)
    if not tokens:
        return 0.0
    share = _computed(run, plan, run.split)
    total = flops * share
    if not cached:
        total += 2.0 * tokens * _below(run, plan)
    if run.train.early_stopping_evals:
        total += scoring(run, plan, "val", cached) / run.train.eval_frac
    return total


def averaging(run: RunConfig, plan: Plan) -> float:
    """Operations of learning an average's ratios, of which a grid has about as many points as
    Adam has steps: a forward and a backward over some pairs of val each. Under a tax budget the
    steps are made twice, the second time with training texts beside the pairs."""
    rule, pairs = run.average.adaptive, len(plan.split(run, "val"))
    if rule is None or not pairs:
        return 0.0
    total = 3.0 * rule.steps * min(rule.batch_pairs, rule.pairs, pairs) / pairs * scoring(
        run, plan, "val", False)
    if not run.average.holds_tax:
        return total
    texts = len(plan.split(run, run.split))
    return 2 * total + 3.0 * rule.steps * min(TAX_PAIRS, texts) / texts * scoring(
        run, plan, run.split, False)


def scoring(run: RunConfig, plan: Plan, split: str, cached: bool) -> float:
    """Operations of one forward of `run` over a split: of its layers above a trunk if `cached`."""
    tokens = _trees(run, plan, split).total_tokens
    top = run.kept[frozen_of(run):]
    above = 2.0 * tokens * plan.bases[run.model].parameters(top) * _computed(run, plan, split)
    return above if cached else above + 2.0 * tokens * _below(run, plan)


def trunk(run: RunConfig, plan: Plan, split: str, layers: Sequence[int],
          known: Sequence[int]) -> float:
    """Operations of the lowest `layers` over a split, where those of `known` are there already."""
    parameters = plan.bases[run.model].parameters
    extra = parameters(tuple(layers)) - (parameters(tuple(known)) if known else 0)
    return 2.0 * split_tokens(run, plan, split) * extra


def split_tokens(run: RunConfig, plan: Plan, split: str) -> int:
    """Tokens of the split's distinct prompts and responses, which a trunk holds."""
    return trees_of(plan.split(run, split), True).total_tokens


def _tokens(run: RunConfig, plan: Plan, course: Course, steps: int | None) -> int:
    train = run.train
    return tokens_trained(_trees(run, plan, run.split), train.batch_pairs, train.epochs, run.seed,
                          train.shuffle == "prompts", course, steps)


def _trees(run: RunConfig, plan: Plan, split: str) -> Trees:
    return trees_of(plan.split(run, split), plan.experiment.runtime.share_prompt)


def _below(run: RunConfig, plan: Plan) -> int:
    below = run.kept[:frozen_of(run)]
    return plan.bases[run.model].parameters(below) if below else 0


def _computed(run: RunConfig, plan: Plan, split: str) -> float:
    """The share of the layers above the frozen ones that a forward computes: of the last layer it
    needs only keys and values, but where a reward is read."""
    layers = len(run.kept) - frozen_of(run)
    if not plan.experiment.runtime.last_layer_shortcut:
        return 1.0
    base, trees = plan.bases[run.model], _trees(run, plan, split)
    config = base.hf_config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = 2 * config.hidden_size * width * (getattr(config, "num_key_value_heads", None) or heads)
    shortest = min(1.0, keys / base.parameters(run.kept[-1:]))
    read = min(1.0, len(trees.response_tokens) / max(1, trees.total_tokens))
    return (layers - 1 + shortest + (1 - shortest) * read) / layers
