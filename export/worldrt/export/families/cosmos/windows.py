"""Which blocks of a sparse checkpoint look where: the windows of neighbourhood attention, as data.

Neighborhood Attention (arXiv 2204.07143), dilated (2209.15001) and with a stride (Generalized Neighborhood Attention,
2504.16922). Windows are local in rows and columns; every one spans all frames of the clip.
"""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]
"""Of rows and columns, counted in tokens."""


@dataclass(frozen=True)
class Window:
    """What a token reads: `size` rows and columns of tokens, `dilation` apart. The tokens of `stride` rows and columns
    share the window of the one in their middle."""

    size: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)

    @property
    def name(self) -> str:
        """`12x24`: no two windows of a checkpoint have the same size."""
        return f"{self.size[0]}x{self.size[1]}"


DENSE = "dense"
"""The name of a block's window where the block has none."""


@dataclass(frozen=True)
class Windows:
    """The window of each block, None where it reads everything, and the rows and columns of tokens they are made for.

    A checkpoint is trained with its windows on one grid, and is of no use on another.
    """

    grid: Pair
    blocks: tuple[Window | None, ...]

    def names(self) -> tuple[str, ...]:
        """That of each block."""
        return tuple(DENSE if window is None else window.name for window in self.blocks)


_SCATTERED = Window((4, 16), dilation=(11, 5))
_ACROSS = Window((12, 16), stride=(4, 1), dilation=(1, 5))
_NEAR, _WIDER, _HALF = (Window(size, stride=(4, 8)) for size in ((12, 24), (20, 40), (28, 56)))

GRID_720P = (44, 80)

WINDOWS_2B = Windows(
    GRID_720P,
    (
        *(_SCATTERED, _SCATTERED, _ACROSS, _NEAR, _NEAR, _ACROSS, _NEAR, _NEAR, _NEAR, _NEAR, _ACROSS),
        *(_WIDER,) * 12,
        *(_HALF, _WIDER, _WIDER, _WIDER, _NEAR),
    ),
)
WINDOWS_14B = Windows(
    GRID_720P,
    (
        *(_SCATTERED,) * 11,
        *(_ACROSS,) * 2,
        *(_NEAR,) * 10,
        *(_WIDER, _HALF, _WIDER, _HALF, None, _HALF, _WIDER, _WIDER, _HALF, _HALF, _WIDER, _HALF, _WIDER),
    ),
)
_APART, _CLOSE = Window((2, 4), dilation=(2, 2)), Window((3, 4), stride=(2, 3))
WINDOWS_NANO = Windows((5, 8), (_APART, _CLOSE, None, _APART))
"""For a grid that no window divides evenly, so that small runs meet every case."""
