"""Layers of the causal video VAE of CogVideoX (arXiv 2408.06072), for one chunk of a stream.

A chunk is one to three latents, or up to thirteen frames. A convolution over time takes the two frames before from the
chunk before; the first chunk repeats its first frame instead. Normalisation is over a whole chunk, so the size of
chunks is part of the result.

Parameters have the names of official checkpoints. Shape letters: B batch, T frames of this chunk, C channels, H rows,
W columns, Z latent channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.modules.streaming import PAST, FrameConv, Memory, TimeConv
from worldrt.export.modules.tensors import cast, constant

EPS = 1e-6


class RepeatingMemory(Memory):
    """In the first chunk the frames before are its first frame, again and again."""

    def extend(self, x_BTCHW: Tensor, frames: int = PAST) -> Tensor:
        if not self.first:
            return super().extend(x_BTCHW, frames)
        extended = torch.cat([x_BTCHW[:, :1]] * frames + [x_BTCHW], dim=1)
        self.keep(extended[:, -frames:])
        return extended


class CausalConv(nn.Module):
    """A convolution over time, rows and columns; one over pixels alone (`size` 1) has no memory."""

    def __init__(self, channels_in: int, channels_out: int, size: int = 3) -> None:
        super().__init__()
        self.conv = TimeConv(channels_in, channels_out, (size, size, size))

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        out: Tensor = self.conv(memory.extend(x_BTCHW))
        return out


class ChunkNorm(nn.Module):
    """Group norm over all frames and pixels of a chunk, computed in float32."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        centred, scale = self.parts(x_BTCHW)
        return cast(centred * scale + self.shift, x_BTCHW.dtype)

    @property
    def shift(self) -> Tensor:
        """(C, 1, 1)"""
        return cast(self.bias, torch.float32).view(-1, 1, 1)

    def parts(self, x_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Values less their mean, (B, T, C, H, W), and what each is to be multiplied by, (B, 1, C, 1, 1); float32."""
        batch, frames, channels, rows, columns = x_BTCHW.shape
        grouped = batch, frames, self.groups, channels // self.groups, rows, columns
        wide = cast(x_BTCHW, torch.float32).view(grouped)
        centred = wide - wide.mean((1, 3, 4, 5), keepdim=True)
        # by the norm, which a graph reads the values for once and writes none
        norm = torch.linalg.vector_norm(centred, dim=(1, 3, 4, 5), keepdim=True)
        count = frames * (channels // self.groups) * rows * columns
        gain = cast(self.weight, torch.float32).view(1, 1, self.groups, channels // self.groups, 1, 1)
        scale = gain * (norm.square() / count + EPS).rsqrt()
        return centred.view(x_BTCHW.shape), scale.view(batch, 1, channels, 1, 1)


class LatentNorm(nn.Module):
    """Group norm, scaled and shifted by the latents of each place. The latents are `scale` times smaller."""

    def __init__(self, channels: int, groups: int, latent_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm_layer = ChunkNorm(channels, groups)
        self.conv_y, self.conv_b = (CausalConv(latent_channels, channels, size=1) for _ in range(2))

    def forward(self, x_BTCHW: Tensor, latent_BTZHW: Tensor) -> Tensor:
        latent = _of_frames(latent_BTZHW, x_BTCHW.shape[1])
        by_place, offset = (cast(conv.conv(latent), torch.float32) for conv in (self.conv_y, self.conv_b))
        centred, scale = self.norm_layer.parts(x_BTCHW)
        # two passes over the pixels: everything else is done where there are `scale` squared times fewer
        factor, rest = by_place * scale, by_place * self.norm_layer.shift + offset
        tiles = torch.unflatten(centred, 3, (-1, self.scale))
        out = tiles * self._rows(factor) + self._rows(rest)
        return cast(out, x_BTCHW.dtype).view(x_BTCHW.shape)

    def _rows(self, value_BTCHW: Tensor) -> Tensor:
        """(B, T, C, H, 1, scale W): the value of a place stands for a square of pixels."""
        return value_BTCHW.repeat_interleave(self.scale, dim=4).unsqueeze(4)


def _of_frames(latent_BTZHW: Tensor, frames: int) -> Tensor:
    """The latent of each frame. Where latents and frames are odd numbers, the first frame has one of its own."""
    count = latent_BTZHW.shape[1]
    if count == frames:
        return latent_BTZHW
    alone = int(count > 1 and frames % 2 == 1)
    factor = (frames - alone) // (count - alone)
    index = [0] * alone + [alone + i // factor for i in range(frames - alone)]
    return latent_BTZHW.index_select(1, constant(index, latent_BTZHW, torch.int64))


class ResidualBlock(nn.Module):
    """Two causal convolutions around a shortcut; normalised by latents where `latent_channels` is given."""

    def __init__(
        self, channels_in: int, channels_out: int, groups: int, latent_channels: int | None = None, scale: int = 1
    ) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            if latent_channels is None:
                return ChunkNorm(channels, groups)
            return LatentNorm(channels, groups, latent_channels, scale)

        self.norm1, self.norm2 = norm(channels_in), norm(channels_out)
        self.conv1, self.conv2 = CausalConv(channels_in, channels_out), CausalConv(channels_out, channels_out)
        self.conv_shortcut = TimeConv(channels_in, channels_out, (1, 1, 1)) if channels_in != channels_out else None

    def forward(self, x_BTCHW: Tensor, memory: Memory, *latent_BTZHW: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BTCHW, *latent_BTZHW)), memory)
        h = self.conv2(F.silu(self.norm2(h, *latent_BTZHW)), memory)
        out: Tensor = h + (x_BTCHW if self.conv_shortcut is None else self.conv_shortcut(x_BTCHW))
        return out


class Downsample(nn.Module):
    """Halves rows and columns, and frames too where `temporal`: the mean of each pair, the first of an odd number stays
    alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.conv = FrameConv(channels, channels, 3, stride=2)

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        frames = x_BTCHW.shape[1]
        if self.temporal and frames > 1:
            alone = frames % 2
            pairs = torch.unflatten(x_BTCHW[:, alone:], 1, (-1, 2)).mean(2)
            x_BTCHW = torch.cat([x_BTCHW[:, :1], pairs], dim=1) if alone else pairs
        out: Tensor = self.conv(F.pad(x_BTCHW, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Doubles rows and columns, and frames too where `temporal`; of an odd number above one the first stays alone."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.conv = FrameConv(channels, channels, 3, padding=1)

    def forward(self, x_BTCHW: Tensor) -> Tensor:
        batch, frames, channels, rows, columns = x_BTCHW.shape
        larger = F.interpolate(x_BTCHW.flatten(0, 1), scale_factor=2.0, mode="nearest")
        larger = larger.view(batch, frames, channels, 2 * rows, 2 * columns)
        out: Tensor = self.conv(larger)
        if not self.temporal:
            return out
        # frames of a pair are equal, so they are convolved once
        alone = int(frames > 1 and frames % 2 == 1)
        index = [0] * alone + [alone + i // 2 for i in range(2 * (frames - alone))]
        return out.index_select(1, constant(index, out, torch.int64))
