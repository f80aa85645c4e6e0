"""What layers of a causal video VAE need to work on a stream, one chunk of frames after the other.

Convolutions over time are computed as 2-D ones over stacked frames, which is several times faster on a CPU.

Shape letters: B batch, T frames of this chunk, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.modules.tensors import constant

PAST = 2
"""Frames that a temporal kernel of three looks back."""


class Memory:
    """The frames that one step takes from the step before (`past`, None in the first) and leaves for the next (`kept`).

    Both are in the order in which the layers run.
    """

    def __init__(self, past: Sequence[Tensor] | None) -> None:
        self.first = past is None
        self.kept: list[Tensor] = []
        self._past = iter(past or ())

    def extend(self, x_BTCHW: Tensor, frames: int = PAST) -> Tensor:
        """`x` with the `frames` before it in front, where there are any; leaves the last `frames` for the next step."""
        if self.first:
            self.keep(F.pad(x_BTCHW, (0, 0, 0, 0, 0, 0, frames - x_BTCHW.shape[1], 0)))
            return x_BTCHW
        extended = torch.cat([next(self._past), x_BTCHW], dim=1)
        self.keep(extended[:, -frames:])
        return extended

    def keep(self, frames: Tensor) -> None:
        """Leave `frames` for the next step."""
        self.kept.append(frames)


class TimeConv(nn.Conv3d):
    """A convolution over time, rows and columns of frames (B, T, C, H, W), without padding in time.

    Fewer frames than the kernel is deep give one frame: the ones missing in front are zeros, and their part of the
    kernel falls away.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride=(stride, 1, 1))
        self.margin = kernel[1] // 2

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        depth, stride = min(self.kernel_size[0], x_BTCHW.shape[1]), self.stride[0]
        steps = (x_BTCHW.shape[1] - depth) // stride + 1
        kernel = self.weight if depth == self.kernel_size[0] else self.weight[:, :, -depth:]
        if depth > 1:
            window = [stride * step + k for step in range(steps) for k in range(depth)]
            x_BTCHW = x_BTCHW.index_select(1, constant(window, x_BTCHW, torch.int64))
            kernel = kernel.transpose(1, 2)
        batch, _, channels, rows, columns = x_BTCHW.shape
        stacked = x_BTCHW.reshape(batch * steps, depth * channels, rows, columns)
        return F.conv2d(stacked, kernel.flatten(1, 2), self.bias, padding=self.margin).view(
            batch, steps, self.out_channels, rows, columns
        )


class FrameConv(nn.Conv2d):
    """A convolution over rows and columns of every frame (B, T, C, H, W)."""

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        flat: Tensor = super().forward(x_BTCHW.flatten(0, 1))
        return flat.view(*x_BTCHW.shape[:2], *flat.shape[1:])


def cache_specs(
    prefix: str, dtype: str, shapes: list[tuple[int, int, int]], batch: int | str = "batch"
) -> tuple[TensorSpec, ...]:
    """The caches of a step; `shapes` are frames, channels, and rows and columns for each of a latent's."""

    def size(scale: int, axis: str) -> str:
        return axis if scale == 1 else f"{scale}*{axis}"

    return tuple(
        TensorSpec(f"{prefix}{n:02}", dtype, (batch, frames, channels, size(scale, "rows"), size(scale, "columns")))
        for n, (frames, channels, scale) in enumerate(shapes)
    )
