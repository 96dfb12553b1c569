"""A model of a training step on a GPU, from a model's shape and the device's two rates.

    python -m speed.gpu.step_model                                      # Llama-3.2-1B on an H100
    python -m speed.gpu.step_model --shape smollm2_135m --matrix 312e12 --memory 2e12    # an A100

Counted, not measured: the operations of matrix products and attention, and the bytes that
everything else reads and writes, forward and backward. MFU is the products' 6 operations a weight
and token over the device's peak in that time. Launches, the optimiser and the last layer's shortcut
are left out. The rows below the first are what would hasten it, each with those above it: tokens by
`micro_batch_tokens: auto`, the residual stream by `precision: bf16_residual`.

Bytes a token of one layer, of widths d (hidden), r (queries and keys), q (queries), i
(intermediate), with P weights and T tokens in a micro batch. As the library's code runs, op by op,
over an fp32 residual stream:

    norms      2 x 28 d forward, 2 x 100 d backward    casts      60 d and 36 d of their sums
    residual   2 x 28 d                                rotary     72 r
    SwiGLU     28 i                                    attention  8 q, its output turned round
    weights    24 P / T: rounded for products, their gradients widened and added up

Compiled, what is between two products is read and written once (s bytes of stream a number):

    norms with residual   2 x (6 s + 10) d             rotary     8 r
    SwiGLU                18 i

beside which the first norm's result, and its gradient, pass from one graph to the next (see
model/compiled.py): 16 d over an fp32 stream, which the second graph rounds, and 4 d over bf16.
"""

import argparse
from typing import NamedTuple

from src.common.arguments import Parser
from src.common.errors import UserError, run_command

H100 = 989e12, 3.35e12
"""Dense bf16 operations a second and bytes a second, of its data sheet."""
PRODUCTS, ATTENTION, TRAFFIC = 0.58, 0.3, 0.85
"""The share of a rate that big products, fused attention and elementwise kernels reach."""
BACKWARD_ATTENTION = 2.5
"""Of its forward's operations."""


class Widths(NamedTuple):
    """Of one decoder layer of a Llama."""

    hidden: int
    query: int
    key: int
    intermediate: int

    @property
    def weights(self) -> int:
        return self.hidden * (2 * self.query + 2 * self.key + 3 * self.intermediate)


class Variant(NamedTuple):
    """How a step is run."""

    name: str
    tokens: int
    compiled: bool = False
    stream: int = 4
    """Bytes of a number of the residual stream."""


VARIANTS = (Variant("as it is", 8192), Variant("norms, rotary, SwiGLU compiled", 8192, True),
            Variant("+ 16,384 tokens a micro batch", 16384, True),
            Variant("+ 32,768 tokens a micro batch", 32768, True),
            Variant("+ residual stream in bf16", 32768, True, 2))


class Layer(NamedTuple):
    """Milliseconds of one layer, forward and backward."""

    products: float
    elementwise: float
    attention: float
    mfu: float


def elementwise_bytes(widths: Widths, variant: Variant) -> float:
    """Bytes a token that a layer reads and writes outside products and attention."""
    rotated = widths.query + widths.key
    weights = 24 * widths.weights / variant.tokens
    turned = 8 * widths.query
    if variant.compiled:
        passed = 16 if variant.stream == 4 else 4
        norms = (2 * (6 * variant.stream + 10) + passed) * widths.hidden
        return norms + 8 * rotated + 18 * widths.intermediate + turned + weights
    norms, casts, residual = 2 * (28 + 100), 60 + 36, 2 * 28
    return ((norms + casts + residual) * widths.hidden + 72 * rotated + 28 * widths.intermediate
            + turned + weights)


def layer(widths: Widths, variant: Variant, matrix: float, memory: float, tree: int) -> Layer:
    """One layer's time for a micro batch.

    Args:
        matrix, memory: the device's operations and bytes a second.
        tree: tokens that a query's tree holds: it sees half of them.
    """
    useful = 6 * widths.weights * variant.tokens
    products = useful / (PRODUCTS * matrix)
    scores = 4 * widths.query * tree / 2 * variant.tokens * (1 + BACKWARD_ATTENTION)
    attention = scores / (ATTENTION * matrix)
    elementwise = elementwise_bytes(widths, variant) * variant.tokens / (TRAFFIC * memory)
    total = products + elementwise + attention
    return Layer(1e3 * products, 1e3 * elementwise, 1e3 * attention, useful / total / matrix)


def table(widths: Widths, matrix: float, memory: float, tree: int) -> list[str]:
    """Markdown: a line a variant, ms a layer for 8,192 tokens each."""
    lines = ["| step | products ms | elementwise ms | attention ms | MFU |",
             "|---|--:|--:|--:|--:|"]
    for variant in VARIANTS:
        found, share = layer(widths, variant, matrix, memory, tree), 8192 / variant.tokens
        lines.append(f"| {variant.name} | {found.products * share:.1f} | "
                     f"{found.elementwise * share:.1f} | {found.attention * share:.1f} | "
                     f"{found.mfu:.0%} |")
    return lines


def main() -> None:
    parser = Parser(prog="python -m speed.gpu.step_model", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama_3_2_1b", help="of speed/shapes.py")
    parser.add_argument("--matrix", type=float, default=H100[0], metavar="N",
                        help="the device's dense bf16 operations a second (default: an H100's)")
    parser.add_argument("--memory", type=float, default=H100[1], metavar="N",
                        help="the device's bytes a second (default: an H100's)")
    parser.add_argument("--tree", type=int, default=1000, metavar="N",
                        help="tokens of a prompt with its responses (default: %(default)s)")
    args = parser.parse_args()
    from speed.shapes import SHAPES

    if args.shape not in SHAPES:
        raise UserError(f"--shape {args.shape}: expected one of {', '.join(SHAPES)}")
    if min(args.matrix, args.memory, args.tree) <= 0:
        raise UserError(f"--matrix {args.matrix:g} --memory {args.memory:g} --tree {args.tree}: "
                        "each must be above 0")
    shape = SHAPES[args.shape]
    head = shape.hidden // shape.heads
    widths = Widths(shape.hidden, shape.hidden, shape.kv_heads * head, shape.intermediate)
    print("\n".join(table(widths, args.matrix, args.memory, args.tree)))


if __name__ == "__main__":
    run_command(main)
