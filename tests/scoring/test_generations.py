"""What a language model answers: the draws, where an answer ends, whose answer is whose."""

import numpy as np
import pytest
import torch

from configs.schema import RuntimeConfig
from data.tokens.formatting import answer_end, load_tokenizer
from model.policy_model import load_language_model
from src.common.files import REPO_ROOT
from src.scoring.answers import log_probabilities
from src.scoring.generations import Prompts, Sampling, answer

DEMO = REPO_ROOT / "model" / "demo"
ASKED = ["what is the job of the boss of pia ?", "where does dirk live ?", "what does mia drink ?"]
RUNTIME = RuntimeConfig(score_batch_tokens=60)


@pytest.fixture(scope="module")
def demo():
    return load_language_model(DEMO), load_tokenizer(DEMO)


def prompts_of(tokenizer) -> Prompts:
    messages = [[{"role": "user", "content": text}] for text in ASKED]
    return Prompts(["a", "b", "c"], messages, [
        tokenizer.apply_chat_template(each, add_generation_prompt=True, return_dict=False)
        for each in messages])


def test_answers_stand_with_their_prompts_and_end_where_they_say(demo):
    model, tokenizer = demo
    found = answer(model, tokenizer, prompts_of(tokenizer), Sampling(4, 3, 1.0, 0), RUNTIME)
    assert found.prompt_id.to_list() == [*"aaaabbbbcccc"]
    assert found["sample"].to_list() == [0, 1, 2, 3] * 3
    end = answer_end(tokenizer)
    for row in found.itertuples():
        assert end not in row.ids and len(row.ids) == row.tokens <= 3
        assert row.response == tokenizer.decode(row.ids).strip()
        assert row.characters == len(row.response) and (row.finished or row.tokens == 3)


def test_the_same_seed_draws_the_same_answers_and_leaves_the_global_generator_alone(demo):
    model, tokenizer = demo
    prompts = prompts_of(tokenizer)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (answer(model, tokenizer, prompts, Sampling(8, 3, 2.0, seed), RUNTIME)
                        for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.response.to_list() == same.response.to_list() != other.response.to_list()


def test_the_log_probability_of_an_answer_is_that_of_its_tokens_one_by_one(demo):
    model, tokenizer = demo
    prompts = prompts_of(tokenizer)
    found = answer(model, tokenizer, prompts, Sampling(8, 3, 1.5, 0), RUNTIME)
    ours = log_probabilities(model, tokenizer, prompts, found, RUNTIME)
    for place, row in enumerate(found.itertuples()):
        prompt = prompts.tokens["abc".index(row.prompt_id)]
        ids = [*row.ids, *([answer_end(tokenizer)] if row.finished else [])]
        with torch.no_grad():
            odds = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        one_by_one = sum(float(odds[len(prompt) + i - 1, token]) for i, token in enumerate(ids))
        assert ours[place] == pytest.approx(one_by_one, abs=1e-4)
    assert {True, False} <= set(found.finished)


def test_answers_are_drawn_with_the_model_s_own_odds(demo):
    """Of the first token, 400 times; padding on the left of shorter prompts changes nothing."""
    model, tokenizer = demo
    prompts = prompts_of(tokenizer)
    found = answer(model, tokenizer, prompts, Sampling(400, 1, 1.0, 0),
                   RuntimeConfig(score_batch_tokens=1 << 16))
    for place, name in enumerate("abc"):
        with torch.no_grad():
            odds = model(torch.tensor([prompts.tokens[place]])).logits[0, -1].softmax(-1).numpy()
        drawn = np.bincount([ids[0] for ids in found[found.prompt_id == name].ids if ids],
                            minlength=len(odds)) / 400
        assert np.abs(drawn - odds).max() < 4 * np.sqrt(0.25 / 400)
