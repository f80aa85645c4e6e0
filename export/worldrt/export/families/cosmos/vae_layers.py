"""Layers of the causal video VAE of Wan 2.1 (arXiv 2503.20314), for one step of a stream.

A step is one latent frame. A causal convolution over time needs the frames before: two for kernels of three, which the
step takes from the last one and hands on to the next. Before the first frame there are zeros.

Shape letters: B batch, C channels, T frames of this step, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    def extend(self, x_BCTHW: Tensor, frames: int = PAST) -> Tensor:
        """`x` with the `frames` before it in front; keeps its last frames."""
        if self.first:
            extended = F.pad(x_BCTHW, (0, 0, 0, 0, frames, 0))
        else:
            extended = torch.cat([next(self._past), x_BCTHW], dim=2)
        self.keep(extended[:, :, -frames:])
        return extended

    def keep(self, frames: Tensor) -> None:
        """Leave `frames` for the next step."""
        self.kept.append(frames)


class ChannelNorm(nn.Module):
    """Every pixel's channel vector to the length sqrt(C), times gamma; lengths in float32."""

    def __init__(self, channels: int, axes: int = 3) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        length: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True).clamp_min(1e-12)
        gain: Tensor = self.gamma * self.scale
        return (wide / length).to(x.dtype) * gain


class ResidualBlock(nn.Module):
    """Two causal convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels_in), ChannelNorm(channels_out)
        self.conv1, self.conv2 = causal(channels_in, channels_out), causal(channels_out, channels_out)
        self.shortcut = nn.Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BCTHW: Tensor, memory: Memory) -> Tensor:
        h = self.conv1(memory.extend(F.silu(self.norm1(x_BCTHW))))
        h = self.conv2(memory.extend(F.silu(self.norm2(h))))
        out: Tensor = h + self.shortcut(x_BCTHW)
        return out


class MidAttention(nn.Module):
    """One head over the pixels of one frame. Its softmax is written out: no fused kernel has heads this wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCTHW: Tensor, _: Memory) -> Tensor:
        """T is 1: in the middle of the network a step is one frame."""
        frame = x_BCTHW.squeeze(2)
        q, k, v = self.to_qkv(self.norm(frame)).flatten(2).chunk(3, dim=1)
        scores = (q * q.shape[1] ** -0.5).transpose(1, 2) @ k
        weights = scores.float().softmax(dim=-1).to(v.dtype)
        attended: Tensor = self.proj((v @ weights.transpose(1, 2)).view_as(frame))
        return x_BCTHW + attended.unsqueeze(2)


class Downsample(nn.Module):
    """Halves rows and columns, and frames too where `temporal`; the first frame of a stream stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x_BCTHW: Tensor, memory: Memory) -> Tensor:
        x_BCTHW = frame_wise(self.conv, F.pad(x_BCTHW, (0, 1, 0, 1)))
        if self.time_conv is None:
            return x_BCTHW
        if memory.first:
            memory.keep(x_BCTHW)
            return x_BCTHW
        halved: Tensor = self.time_conv(memory.extend(x_BCTHW, frames=1))
        return halved


class Upsample(nn.Module):
    """Doubles rows and columns, and frames too where `temporal`; the first frame of a stream stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.time_conv = nn.Conv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self.conv = nn.Conv2d(channels, channels // 2, 3, padding=1)

    def forward(self, x_BCTHW: Tensor, memory: Memory) -> Tensor:
        if self.time_conv is not None and memory.first:
            memory.keep(torch.zeros_like(x_BCTHW).expand(-1, -1, PAST, -1, -1))
        elif self.time_conv is not None:
            pairs = torch.unflatten(self.time_conv(memory.extend(x_BCTHW)), 1, (2, -1))
            x_BCTHW = pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        return frame_wise(self.conv, F.interpolate(x_BCTHW, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))


def causal(channels_in: int, channels_out: int) -> nn.Conv3d:
    """A 3x3x3 convolution that pads rows and columns; `Memory.extend` supplies the frames before."""
    return nn.Conv3d(channels_in, channels_out, 3, padding=(0, 1, 1))


def frame_wise(conv: nn.Conv2d, x_BCTHW: Tensor) -> Tensor:
    """A 2-D convolution on every frame, as a 3-D one of depth 1: no reshaping of the video."""
    stride, padding = (1, *conv.stride), (0, *(int(p) for p in conv.padding))
    return F.conv3d(x_BCTHW, conv.weight.unsqueeze(2), conv.bias, stride=stride, padding=padding)
