"""Which tiles of the scores of a row hold something that is seen, from the row's segments.

The mask itself grows with the square of a row: of 32,768 tokens it takes gigabytes to make. A
kernel that works tile by tile asks for a table of tiles, and for the rule within the tiles that are
seen in part.
"""

import numpy as np

from model.attention.tree import PADDING, PROMPT, Segment

HIDDEN, PART, WHOLE = range(3)


def tiles(segments: list[Segment], length: int, tile: int, window: int | None) -> np.ndarray:
    """(N, N) int8: HIDDEN, PART or WHOLE of the tiles of queries (rows) and keys that `length`
    tokens make. What no segment covers is padding.

    Args:
        window: a query sees keys fewer than this many positions back; None for all.
    """
    count = -(-length // tile)
    query, key, area, nearest, farthest = _parts(_rectangles(segments), tile)
    reach = length if window is None else window
    some = (farthest >= 0) & (nearest < reach)  # every distance between them is there
    whole = (nearest >= 0) & (farthest < reach)
    place = query * count + key
    table = np.zeros(count * count, np.int8)
    table[place[some]] = PART
    seen = np.bincount(place, whole * area, minlength=count * count)
    table[seen == tile * tile] = WHOLE
    table = table.reshape(count, count)
    diagonal = np.arange(count)
    padded = _has_padding(segments, length, tile) & (table[diagonal, diagonal] == HIDDEN)
    table[diagonal[padded], diagonal[padded]] = PART  # padding sees itself
    return table


def _rectangles(segments: list[Segment]) -> np.ndarray:
    """(5, R): first query, behind the last, first key, behind the last, and what is to be added to
    query - key to get how many positions lie between them.

    Every segment and itself, and every response and its prompt, which stands right before it in the
    text.
    """
    found, prompt = [], None
    for segment in segments:
        if segment.tree == PADDING or segment.start == segment.end:
            continue
        own = segment.start, segment.end
        found.append((*own, *own, 0))
        if segment.branch == PROMPT:
            prompt = segment
        elif prompt is not None and prompt.tree == segment.tree:
            found.append((*own, prompt.start, prompt.end, prompt.end - segment.start))
    return np.array(found, np.int64).reshape(-1, 5).T


def _parts(rectangles: np.ndarray, tile: int) -> tuple[np.ndarray, ...]:
    """The rectangles cut at the borders of tiles, (P,) each: the tile's number among the queries'
    and among the keys', how many scores it is, and the least and greatest distance in it."""
    first, behind, key, key_behind, added = rectangles
    top, left = first // tile, key // tile
    wide = (key_behind - 1) // tile + 1 - left
    size = ((behind - 1) // tile + 1 - top) * wide
    part = np.repeat(np.arange(len(size)), size)
    within = np.arange(len(part)) - np.repeat(np.cumsum(size) - size, size)
    row, column = top[part] + within // wide[part], left[part] + within % wide[part]
    start, end = np.maximum(first[part], row * tile), np.minimum(behind[part], (row + 1) * tile)
    begin, stop = (np.maximum(key[part], column * tile),
                   np.minimum(key_behind[part], (column + 1) * tile))
    return (row, column, (end - start) * (stop - begin), start - (stop - 1) + added[part],
            end - 1 - begin + added[part])


def _has_padding(segments: list[Segment], length: int, tile: int) -> np.ndarray:
    """(N,) bool: which tiles of queries hold padding."""
    real = np.zeros(length, bool)
    for segment in segments:
        real[segment.start:segment.end] = segment.tree != PADDING
    spare = -length % tile
    return ~np.pad(real, (0, spare), constant_values=True).reshape(-1, tile).all(axis=1)
