"""Tiles of scores from segments: those of the mask itself, which is never made."""

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from model.attention import flex
from model.attention.tiles import PART, WHOLE, tiles
from model.attention.tree import Layout
from src.batches.collate import TreeCollator
from src.batches.trees import TreeIds

TILE = 8


def laid_out(prompts, responses, pack=True):
    """A batch of trees of these lengths, responses[i] those of tree i."""
    ids = [np.ones(length, np.int32) for length in prompts]
    answers = [np.ones(length, np.int32) for tree in responses for length in tree]
    owner = np.repeat(np.arange(len(prompts)), [len(tree) for tree in responses])
    numbers = np.zeros(len(ids) + len(answers), np.int64)
    return TreeCollator(0, pack).lay_out(TreeIds(ids, answers, owner, numbers))[0]


def layout_of(batch):
    return Layout(*(batch[name] for name in ("position_ids", "tree", "branch", "last_index")),
                  "flex", batch["host"])


def random_batch(seed, pack=True):
    rng = np.random.default_rng(seed)
    prompts = rng.integers(0, 40, 5)
    return laid_out(prompts, [rng.integers(1, 30, rng.integers(1, 4)) for _ in prompts], pack)


@pytest.mark.parametrize("window", [None, 1, 7, 20, 1000])
@pytest.mark.parametrize("pack", [True, False])
def test_tiles_are_those_that_the_mask_makes(window, pack):
    for seed in range(6):
        batch = random_batch(seed, pack)
        layout = layout_of(batch)
        rows, real = layout.tree.shape
        index = torch.arange(real).expand(rows, -1)
        length = -(-real // TILE) * TILE + 2 * TILE
        mask = torch.eye(length, dtype=torch.bool).repeat(rows, 1, 1)
        mask[:, :real, :real] = layout.sees(index, index, window)
        seen = mask.view(rows, length // TILE, TILE, length // TILE, TILE).sum(dim=(2, 4)).numpy()
        expected = np.where(seen == TILE * TILE, WHOLE, np.where(seen > 0, PART, 0))
        for row in range(rows):
            found = tiles(layout.segments(row), length, TILE, window)
            np.testing.assert_array_equal(found, expected[row], str((seed, row)))


@pytest.mark.parametrize("window", [None, 200])
def test_the_block_mask_is_the_librarys_own(window):
    batch = laid_out([150, 40, 300], [[120, 90], [60], [200, 30]])
    layout = layout_of(batch)
    ours = flex._block_mask(layout, window, 1024)
    reference = create_block_mask(ours.mask_mod, 1, None, 1024, 1024, device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(reference, name)), name
    for name in ("kv_indices", "full_kv_indices", "q_indices", "full_q_indices"):
        assert torch.equal(getattr(ours, name).sort().values,
                           getattr(reference, name).sort().values), name
    assert torch.equal(ours.to_dense(), reference.to_dense())


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The elements of the biggest tensor that is made inside."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        found = [out] if isinstance(out, torch.Tensor) else [
            each for each in out if isinstance(each, torch.Tensor)] if isinstance(
                out, tuple | list) else []
        self.elements = max([self.elements, *(each.numel() for each in found)])
        return out


def test_no_mask_of_a_row_of_32_768_tokens_is_made():
    batch = laid_out([1200] * 10, [[1000, 1000]] * 10)
    with Largest() as largest:
        flex._block_mask(layout_of(batch), None, 32_768)
    assert largest.elements <= 4 * (32_768 // flex.TILE) ** 2  # the table of tiles, not 10^9 scores


def test_dense_attention_of_a_long_row_makes_masks_of_blocks_only():
    from model.attention.dense import BLOCK_TOKENS, dense
    batch = laid_out([900] * 4, [[500, 500]] * 4)
    layout, length = layout_of(batch), batch["tree"].shape[1]
    query = torch.zeros(1, 1, length, 8)
    with Largest() as largest:
        dense(query, query, query, layout, 1.0, None, None, False)
    assert largest.elements < length ** 2 / 10
    assert largest.elements <= 4 * BLOCK_TOKENS["cpu"] * 2048
