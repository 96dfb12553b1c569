"""Which layers a method distils: known, and refused, before anything is trained."""

from collections.abc import Sequence

from configs.schema import MethodConfig, TrainConfig
from configs.strict_yaml import require
from src.methods.losses import LOSSES


def distils(method: MethodConfig) -> bool:
    """Whether students of `method` are held to hidden states of their teachers."""
    return "distances" in LOSSES.asks(method.loss) and _option(method, "weight") > 0


def layer_pairs(method: MethodConfig, student: int, teacher: int) -> list[tuple[int, int]]:
    """(student's layer, teacher's layer) of each pair, from 0, in models of so many layers."""
    return [(own % student, theirs % teacher) for own, theirs in _option(method, "layer_pairs")]


def check_layers(method: MethodConfig, student: int, teachers: Sequence[int], train: TrainConfig,
                 where: str) -> None:
    """Raise UserError where a student of so many layers cannot be held to its teachers' states.

    Args:
        teachers: how many layers each of them has.
        where: names the method's experiment, for the message.
    """
    if not distils(method):
        return
    name = f"{where}: method {method.name}: loss {method.loss}"
    require(train.lora is None, f"{name}: its connectors are not kept beside adapters: leave out "
            "train.lora")
    for pair in _option(method, "layer_pairs"):
        require(len(pair) == 2, f"{name}: layer_pairs {list(pair)}: expected the number of a "
                "student's layer and that of a teacher's, such as [-1, -1]")
        for number, layers, whose in ((pair[0], student, "student"),
                                      *((pair[1], each, "teacher") for each in teachers)):
            require(-layers <= number < layers, f"{name}: layer_pairs {list(pair)}: a {whose} has "
                    f"{layers} layers: expected {-layers} to {layers - 1}")
        own = pair[0] % student
        require(own >= student - (train.trainable_layers or student), f"{name}: layer_pairs "
                f"{list(pair)}: layer {own} of the student does not train: name one of the top "
                f"{train.trainable_layers}")


def _option(method: MethodConfig, key: str):
    return LOSSES.option(method.loss, method.loss_options, key, None)
