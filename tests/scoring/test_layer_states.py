"""States behind layers, and nats of answers, are those of the library's own plain forward."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from configs.schema import RuntimeConfig
from model.base.language_head import language_head
from model.base.truncate import decoder_layers
from model.base.trunk import equal_layers
from model.base.weights import read_config
from model.reward_model import build_reward_model
from src.common.errors import UserError
from src.scoring.layer_states import Entering, nats_of_answers, states_behind_layers
from src.scoring.texts import Responses
from tests.families import FAMILIES, LAYERS, PAD, save_base

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]
ANSWERS = [[9, 10], [11, 12, 13, 14, 15, 16], [9, 10], [17]]
OF = [0, 1, 1, 0]
TEXTS = Responses(PROMPTS, ANSWERS, OF)


def built(base):
    return build_reward_model(base, tuple(range(LAYERS)), 0, pad_token_id=PAD,
                              last_layer_shortcut=False)


@pytest.fixture(params=sorted(FAMILIES))
def base(request, tmp_path):
    return save_base(tmp_path / "base", request.param)


@torch.no_grad()
def library(base):
    """(nats, tokens) and the states behind layers but the last, whose list entry is normed."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    nats, states = [], []
    for prompt, answer in zip(OF, ANSWERS, strict=True):
        ids = torch.tensor([[*PROMPTS[prompt], *answer]])
        out = model(ids, output_hidden_states=True)
        start = len(PROMPTS[prompt])
        each = torch.nn.functional.cross_entropy(out.logits[0, start - 1:-1], ids[0, start:],
                                                 reduction="sum")
        nats.append([float(each), len(answer)])
        states.append(torch.stack([layer[0, -1] for layer in out.hidden_states[1:-1]]))
    return np.array(nats), torch.stack(states, dim=1).numpy()


def test_both_are_the_library_s(base):
    nats, states = library(base)
    model = built(base)
    found = nats_of_answers(model, TEXTS, RuntimeConfig(), language_head(base))
    np.testing.assert_allclose(found, nats, rtol=1e-4)
    seen = states_behind_layers(model, TEXTS, RuntimeConfig(score_batch_tokens=12))
    assert seen.shape == (LAYERS, len(ANSWERS), read_config(base).hidden_size)
    np.testing.assert_allclose(seen[:-1], states, rtol=1e-3, atol=1e-4)


def test_tied_embeddings_are_the_head_and_an_own_head_is_preferred(tmp_path):
    tied = save_base(tmp_path / "tied", "llama", tie_word_embeddings=True)
    np.testing.assert_allclose(
        nats_of_answers(built(tied), TEXTS, RuntimeConfig(), language_head(tied)),
        library(tied)[0], rtol=1e-4)


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    whole = AutoModelForCausalLM.from_pretrained(save_base(tmp_path / "base", "llama"))
    whole.model.save_pretrained(tmp_path / "trunk")
    with pytest.raises(UserError, match="no tensor lm_head.weight, so no language model"):
        language_head(tmp_path / "trunk")


def test_layers_that_two_models_share_run_for_the_first_alone(base):
    """Bit for bit, though the second's lower layers would spoil all that passes them."""
    head, runtime = language_head(base), RuntimeConfig(score_batch_tokens=12)
    tuned, below = built(base), LAYERS - 1
    for weight in decoder_layers(tuned)[below].parameters():
        weight.data.mul_(1.1)
    states, nats = (states_behind_layers(tuned, TEXTS, runtime),
                    nats_of_answers(tuned, TEXTS, runtime, head))
    of_states, of_nats = Entering(below), Entering(below)
    states_behind_layers(built(base), TEXTS, runtime, of_states)
    nats_of_answers(built(base), TEXTS, runtime, head, entering=of_nats)
    for layer in decoder_layers(tuned)[:below]:
        for weight in layer.parameters():
            weight.data.fill_(float("nan"))
    np.testing.assert_array_equal(states_behind_layers(tuned, TEXTS, runtime, of_states),
                                  states[below:])
    np.testing.assert_array_equal(nats_of_answers(tuned, TEXTS, runtime, head, entering=of_nats),
                                  nats)


def test_models_share_layers_up_to_the_first_weight_that_differs(base):
    model, other = built(base), built(base)
    assert equal_layers(model, other) == LAYERS - 1  # the last one always runs
    list(decoder_layers(other)[0].parameters())[-1].data.view(-1)[-1].add_(1)
    assert equal_layers(model, other) == 0
    other = built(base)
    list(decoder_layers(other)[1].parameters())[0].data.view(-1)[0].add_(1)
    assert equal_layers(model, other) == 1
    next(part for part in other.modules()
         if isinstance(part, torch.nn.Embedding)).weight.data.add_(1)
    assert equal_layers(model, other) == 0
