"""What an average lost of its base's language, measured while its ratios are learned."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from configs.averaging import TAX_PAIRS
from configs.schema import RuntimeConfig
from data.tokens.tokenised import TokenisedSplit
from src.batches.packing import Budget, fewest_tokens
from src.batches.trees import Trees
from src.scoring.layer_states import nats_of, nats_of_answers, rows_of, watched_trunk
from src.scoring.texts import Responses
from src.training.averaging.objective import spread


def training_texts(split: TokenisedSplit, most: int = TAX_PAIRS) -> Responses:
    """The texts of at most so many pairs, evenly spaced, both sides of each: no label says which
    is which. The first token of each is given, and all others are foretold."""
    rows = spread(len(split), most)
    prompts = split.ids(rows, [0] * len(rows))
    texts = [[*prompt, *answer] for column in (1, 2)
             for prompt, answer in zip(prompts, split.ids(rows, [column] * len(rows)), strict=True)]
    texts = [text for text in texts if len(text) > 1]
    return Responses([text[:1] for text in texts], [text[1:] for text in texts],
                     [*range(len(texts))])


class Tax:
    """Nats a token of texts under the base's head, less the base's own.

    Args:
        head: see model/base/language_head.py.
        base: as all models that are asked about, without the last layer's shortcut.
    """

    def __init__(self, texts: Responses, head: Callable[[Tensor], Tensor], base: PreTrainedModel,
                 runtime: RuntimeConfig):
        self._texts, self._head, self._runtime = texts, head, runtime
        self.tokens = int(texts.lengths()[:, 1].sum())
        self.base = self._nats(base)

    def of(self, model: PreTrainedModel) -> float:
        """As it is measured: 0 for the base."""
        return self._nats(model) - self.base

    def backward(self, model: PreTrainedModel, weight: float) -> float:
        """The tax, and `weight` times its gradient in the model."""
        nats, budget = 0.0, Budget(fewest_tokens(self._runtime), False)
        rows = rows_of(Trees(self._texts, share_prompt=False), budget, model.config.pad_token_id,
                       next(model.parameters()).device)
        with watched_trunk(model) as seen:
            for _, batch, _ in rows:
                model(**batch)
                part = nats_of(seen["last"], batch, self._head)[:, 0].sum() / self.tokens
                (weight * part).backward()
                nats += part.item()
        return nats - self.base

    def _nats(self, model: PreTrainedModel) -> float:
        found = nats_of_answers(model, self._texts, self._runtime, self._head)
        return float(found[:, 0].sum() / self.tokens)
