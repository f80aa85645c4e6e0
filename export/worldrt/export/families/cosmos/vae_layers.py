"""Layers of the causal video VAE of Wan 2.1 (arXiv 2503.20314), for one step of a stream.

A step is one latent frame. A causal convolution over time needs the frames before: two for kernels of three, which the
step takes from the last one and hands on to the next. Before the first frame there is nothing (zeros).

Shape letters: B batch, T frames of this step, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.modules.streaming import PAST, FrameConv, Memory, TimeConv
from worldrt.export.modules.tensors import cast


class ChannelNorm(nn.Module):
    """Every pixel's channel vector to the length sqrt(C), times gamma; lengths in float32. Channels are axis -3."""

    def __init__(self, channels: int, axes: int = 3) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        wide = cast(x, torch.float32)
        length: Tensor = torch.linalg.vector_norm(wide, dim=-3, keepdim=True).clamp_min(1e-12)
        gain: Tensor = (self.gamma * self.scale).view(-1, 1, 1)
        return cast(wide / length, x.dtype) * gain


class ResidualBlock(nn.Module):
    """Two causal convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels_in), ChannelNorm(channels_out)
        self.conv1, self.conv2 = causal(channels_in, channels_out), causal(channels_out, channels_out)
        self.shortcut = TimeConv(channels_in, channels_out, (1, 1, 1)) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        h = self.conv1(memory.extend(F.silu(self.norm1(x_BTCHW))))
        h = self.conv2(memory.extend(F.silu(self.norm2(h))))
        out: Tensor = h + self.shortcut(x_BTCHW)
        return out


class MidAttention(nn.Module):
    """One head over the pixels of one frame. Its softmax is written out: no fused kernel has heads this wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BTCHW: Tensor, _: Memory) -> Tensor:
        """T is 1: in the middle of the network a step is one frame."""
        frame = x_BTCHW.squeeze(1)
        q, k, v = self.to_qkv(self.norm(frame)).flatten(2).chunk(3, dim=1)
        scores = (q * q.shape[1] ** -0.5).transpose(1, 2) @ k
        weights = cast(cast(scores, torch.float32).softmax(dim=-1), v.dtype)
        attended: Tensor = self.proj((v @ weights.transpose(1, 2)).view_as(frame))
        return x_BTCHW + attended.unsqueeze(1)


class Downsample(nn.Module):
    """Halves rows and columns, and frames too where `temporal`; the first frame of a stream stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.conv = FrameConv(channels, channels, 3, stride=2)
        self.time_conv = TimeConv(channels, channels, (3, 1, 1), stride=2) if temporal else None

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        x_BTCHW = self.conv(F.pad(x_BTCHW, (0, 1, 0, 1)))
        if self.time_conv is None:
            return x_BTCHW
        x_BTCHW = memory.extend(x_BTCHW, frames=1)
        halved: Tensor = x_BTCHW if memory.first else self.time_conv(x_BTCHW)
        return halved


class Upsample(nn.Module):
    """Doubles rows and columns, and frames too where `temporal`; the first frame of a stream stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.time_conv = TimeConv(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self.conv = FrameConv(channels, channels // 2, 3, padding=1)

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        if self.time_conv is not None and memory.first:
            memory.keep(torch.zeros_like(x_BTCHW).expand(-1, PAST, -1, -1, -1))
        elif self.time_conv is not None:
            # its channels are those of two frames, one after the other
            pairs = torch.unflatten(self.time_conv(memory.extend(x_BTCHW)), 2, (2, -1))
            x_BTCHW = pairs.flatten(1, 2)
        batch, frames, channels, rows, columns = x_BTCHW.shape
        larger = F.interpolate(x_BTCHW.flatten(0, 1), scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv(larger.view(batch, frames, channels, 2 * rows, 2 * columns))
        return out


def causal(channels_in: int, channels_out: int) -> TimeConv:
    """A 3x3x3 convolution; `Memory.extend` supplies the frames before."""
    return TimeConv(channels_in, channels_out, (3, 3, 3))
