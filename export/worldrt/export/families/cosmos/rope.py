"""Rotary position embedding over three axes: frames, rows, columns.

Half-rotate form (RoFormer, arXiv 2104.09864, with the two halves of a head as pairs). The frequencies of an axis are
stretched by the NTK rule: base 10000 * ratio^(d / (d - 2)). Frames are counted, not timed: the checkpoints were trained
without any dependence on frames per second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from worldrt.export.modules.tensors import cast, constant

RopeDtype = Literal["float32", "bfloat16"]
BASE = 10000.0


class RopeTables(NamedTuple):
    """Cosine and sine, float32 (frames, tokens, head_dim / 2)."""

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class Rope:
    """The table maker for one head dimension and one (frames, rows, columns) ratio.

    `dtype="bfloat16"` rounds exponents, frequencies and angles to bfloat16, as the official pipelines do (they cast the
    whole network): up to 0.19 rad away from float32, but it is what the checkpoints were always run with.
    """

    head_dim: int
    ratio: tuple[float, float, float]
    dtype: RopeDtype = "float32"
    frequencies: tuple[tuple[float, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # here and not in a forward pass, where a tracer would record every single number
        object.__setattr__(self, "frequencies", tuple(self._frequencies(axis) for axis in range(3)))

    def axis_dims(self) -> tuple[int, int, int]:
        """How many of a head's dimensions belong to frames, rows and columns."""
        spatial = self.head_dim // 6 * 2
        return self.head_dim - 2 * spatial, spatial, spatial

    def angles(self, axis: int, position: Tensor) -> Tensor:
        """float32 (positions, axis_dim / 2) of axis 0 frames, 1 rows, 2 columns."""
        frequencies = constant(self.frequencies[axis], like=position)
        angles = position.unsqueeze(1) * frequencies
        return angles.bfloat16().float() if self.dtype == "bfloat16" else angles

    def tables(self, position: Tensor, rows: int, columns: int, first_row: Tensor | None = None) -> RopeTables:
        """Tables for the frames at `position` (frames,) and all tokens of a frame, row by row. Frames that are parts of
        others begin at `first_row` (frames,) of them."""
        frames, device = position.shape[0], position.device
        by_frame = self.angles(0, position)[:, None, None]
        row = torch.arange(rows, dtype=torch.float32, device=device)
        if first_row is None:
            by_row = self.angles(1, row)[None, :, None]
        else:
            places = (first_row.unsqueeze(1) + row).flatten()
            by_row = torch.unflatten(self.angles(1, places), 0, (frames, rows)).unsqueeze(2)
        by_column = self.angles(2, torch.arange(columns, dtype=torch.float32, device=device))[None, None]

        def table(function: str) -> Tensor:
            parts = (getattr(axis, function)() for axis in (by_frame, by_row, by_column))
            spread = [part.expand(frames, rows, columns, -1) for part in parts]
            return torch.cat(spread, dim=-1).flatten(1, 2)

        return RopeTables(table("cos"), table("sin"))

    def _frequencies(self, axis: int) -> tuple[float, ...]:
        dim, ratio = self.axis_dims()[axis], self.ratio[axis]
        dtype = torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
        theta = BASE * ratio ** (dim / (dim - 2))
        return tuple((1.0 / theta ** exponents.to(dtype)).float().tolist())


def rotate(x_BHLE: Tensor, cos_BLF: Tensor, sin_BLF: Tensor) -> Tensor:
    """Turn queries or keys (batch, heads, length, head_dim) by their angles.

    Float32 inside, as the official kernel.
    """
    turned: Tensor = torch.onnx.ops.rotary_embedding(cast(x_BHLE, torch.float32), cos_BLF, sin_BLF)
    return cast(turned, x_BHLE.dtype)
