"""Neighbourhood attention as a few dense attentions: exact, without a mask, and with no product that is not needed.

Along an axis, tokens that share a window (neighbours of one stride, those of one dilation group, and all whose window
is held back by the same border) read the same keys. Rows and columns are independent of each other, so the tokens of a
frame fall into tiles that read one set of keys each: a tile is a small dense attention. Tiles of equal size go through
one Attention operator, side by side as heads; their keys and values are gathered by constant tables.

Shape letters as in `block.py`; n tiles, m tokens of a tile, w tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product

import torch
import torch.nn.functional as F
from torch import Tensor

from worldrt.export.families.cosmos.windows import Pair, Window
from worldrt.export.modules.tensors import constant

Places = tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """Tokens of a frame, by number, and those that they read."""

    queries: Places
    keys: Places


def axis_groups(length: int, size: int, stride: int, dilation: int) -> list[tuple[Places, Places]]:
    """The positions of one axis that read the same positions, and these, as NATTEN defines them.

    Positions `dilation` apart are an axis of their own. On it `stride` neighbours have the window of their leader, the
    middle one (the right one of two); it begins `size // 2` before the leader, and moves inwards at a border.
    """
    if not 1 <= stride <= size or not size * dilation <= length:
        raise ValueError(f"a window of {size}, stride {stride}, dilation {dilation} does not fit {length} tokens")
    readers: dict[Places, Places] = {}
    for group in range(dilation):
        positions = range(group, length, dilation)
        for first in range(0, len(positions), stride):
            leader = min(first + stride // 2, len(positions) - 1)
            start = min(max(leader - size // 2, 0), len(positions) - size)
            keys = tuple(positions[start : start + size])
            readers[keys] = readers.get(keys, ()) + tuple(positions[first : first + stride])
    return [(queries, keys) for keys, queries in readers.items()]


def tiles(window: Window, grid: Pair) -> list[Tile]:
    """Every token of a frame in one tile."""
    rows, columns = (axis_groups(*axis) for axis in zip(grid, window.size, window.stride, window.dilation, strict=True))

    def tokens(of_rows: Places, of_columns: Places) -> Places:
        return tuple(row * grid[1] + column for row in of_rows for column in of_columns)

    return [Tile(tokens(q_r, q_c), tokens(k_r, k_c)) for (q_r, k_r), (q_c, k_c) in product(rows, columns)]


def calls(window: Window, grid: Pair) -> list[list[Tile]]:
    """Tiles that go through one operator together: of one size, and with no more keys in all than a frame has tokens,
    which bounds the memory that gathered keys and values take."""
    by_size: dict[int, list[Tile]] = {}
    for tile in tiles(window, grid):
        by_size.setdefault(len(tile.queries), []).append(tile)
    most = grid[0] * grid[1] // (window.size[0] * window.size[1])
    made = []
    for equal in by_size.values():
        parts = -(-len(equal) // most)
        made += [equal[len(equal) * i // parts : len(equal) * (i + 1) // parts] for i in range(parts)]
    return made


class Neighbourhood:
    """Self-attention of a block with a window. Keys and values may be of more frames than queries."""

    def __init__(self, window: Window, grid: Pair) -> None:
        self.tokens = grid[0] * grid[1]
        self.calls = calls(window, grid)
        order = [token for call in self.calls for tile in call for token in tile.queries]
        self.places = tuple(sorted(range(self.tokens), key=order.__getitem__))

    def __call__(self, q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
        """(B, L, D)"""
        q, k, v = (torch.unflatten(x, 2, (-1, self.tokens)).transpose(2, 3) for x in (q_BHLE, k_BHLE, v_BHLE))
        done = torch.cat([self._attend(q, k, v, call) for call in self.calls], dim=2)
        attended_BHSTE = _take(done, self.places)
        return attended_BHSTE.permute(0, 3, 2, 1, 4).flatten(3).flatten(1, 2)

    def _attend(self, q_BHSTE: Tensor, k_BHSTE: Tensor, v_BHSTE: Tensor, call: Sequence[Tile]) -> Tensor:
        """(B, H, n * m, T, E)"""
        count, queries = len(call), [token for tile in call for token in tile.queries]
        keys = list(chain.from_iterable(tile.keys for tile in call))
        q, k, v = (
            _side_by_side(_take(x, places), count)
            for x, places in ((q_BHSTE, queries), (k_BHSTE, keys), (v_BHSTE, keys))
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        heads, frames = q_BHSTE.shape[1], q_BHSTE.shape[3]
        # a single reshape would have the tracer guess at strides
        return torch.unflatten(torch.unflatten(attended, 2, (-1, frames)), 1, (heads, count)).flatten(2, 3)


def _take(x_BHSTE: Tensor, places: Sequence[int]) -> Tensor:
    """Tokens by number; whole rows of memory, as all frames of a token lie together."""
    return x_BHSTE.index_select(2, constant(places, like=x_BHSTE, dtype=torch.int64))


def _side_by_side(x_BHSTE: Tensor, count: int) -> Tensor:
    """(B, H, n * m, T, E) -> (B, H * n, m * T, E)"""
    return torch.unflatten(x_BHSTE, 2, (count, -1)).flatten(1, 2).flatten(2, 3)
