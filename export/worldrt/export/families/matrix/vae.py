"""The causal video VAE: encoder and decoder for chunks of a stream, with explicit caches.

`DecodeChunk(config, frames)(latent)` starts a stream and `DecodeChunk(config, frames)(latent, *caches)` goes on with
it; `EncodeChunk` is the reverse. Caches come out in a fixed order and go into the next chunk as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.matrix.vae_layers import (
    CausalConv,
    ChunkNorm,
    Downsample,
    LatentNorm,
    RepeatingMemory,
    ResidualBlock,
    Upsample,
)
from worldrt.export.families.matrix.variants import VAEConfig
from worldrt.export.modules.pixels import PixelFormat, to_pixels
from worldrt.export.modules.streaming import Memory
from worldrt.export.modules.tensors import cast

LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE = -30.0, 20.0


class Stage(nn.Module):
    """Residual blocks of one size, then a change of size where there is one."""

    def __init__(
        self, resnets: list[ResidualBlock], down: Downsample | None = None, up: Upsample | None = None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = None if down is None else nn.ModuleList([down])
        self.upsamplers = None if up is None else nn.ModuleList([up])

    def forward(self, x_BTCHW: Tensor, memory: Memory, *latent_BTZHW: Tensor) -> Tensor:
        for block in self.resnets:
            x_BTCHW = block(x_BTCHW, memory, *latent_BTZHW)
        for change in (*(self.downsamplers or ()), *(self.upsamplers or ())):
            x_BTCHW = change(x_BTCHW)
        return x_BTCHW


class Encoder(nn.Module):
    """Frames (B, T, 3, 8 h, 8 w) to mean and log-variance channels of latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.conv_in = CausalConv(3, config.widths[0])
        stages, channels, last = [], config.widths[0], len(config.widths) - 1
        for number, width in enumerate(config.widths):
            resnets = [ResidualBlock(channels if i == 0 else width, width, config.groups) for i in range(config.layers)]
            stages.append(Stage(resnets, down=Downsample(width, number < config.temporal) if number < last else None))
            channels = width
        self.down_blocks = nn.ModuleList(stages)
        self.mid_block = Stage([ResidualBlock(channels, channels, config.groups) for _ in range(2)])
        self.norm_out = ChunkNorm(channels, config.groups)
        self.conv_out = CausalConv(channels, 2 * config.latent_channels)

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        x_BTCHW = self.conv_in(x_BTCHW, memory)
        for stage in (*self.down_blocks, self.mid_block):
            x_BTCHW = stage(x_BTCHW, memory)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x_BTCHW)), memory)
        return out


class Decoder(nn.Module):
    """Latents (B, t, Z, h, w) to frames."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, latent, last = config.widths[::-1], config.latent_channels, len(config.widths) - 1
        self.conv_in = CausalConv(latent, widths[0])
        self.mid_block = Stage([ResidualBlock(widths[0], widths[0], config.groups, latent) for _ in range(2)])
        stages, channels = [], widths[0]
        for number, width in enumerate(widths):
            resnets = [
                ResidualBlock(channels if i == 0 else width, width, config.groups, latent, 2**number)
                for i in range(config.layers + 1)
            ]
            stages.append(Stage(resnets, up=Upsample(width, number < config.temporal) if number < last else None))
            channels = width
        self.up_blocks = nn.ModuleList(stages)
        self.norm_out = LatentNorm(channels, config.groups, latent, 2**last)
        self.conv_out = CausalConv(channels, 3)

    def forward(self, latent_BTZHW: Tensor, memory: Memory) -> Tensor:
        x_BTCHW = self.conv_in(latent_BTZHW, memory)
        for stage in (self.mid_block, *self.up_blocks):
            x_BTCHW = stage(x_BTCHW, memory, latent_BTZHW)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x_BTCHW, latent_BTZHW)), memory)
        return out


class EncodeChunk(nn.Module):
    """Video float32 in [-1, 1] to normalised latents: the mean and the standard deviation of the posterior."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def forward(self, video_BCTHW: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, T, 8 h, 8 w) to two of float32 (B, Z, t, h, w), then the new caches."""
        memory = RepeatingMemory(caches or None)
        frames = cast(video_BCTHW.transpose(1, 2), self.encoder.conv_in.conv.weight.dtype)
        moments = cast(self.encoder(frames, memory).transpose(1, 2), torch.float32)
        mean, log_variance = moments.chunk(2, dim=1)
        deviation = (0.5 * log_variance.clamp(LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE)).exp()
        return mean * self.config.scaling, deviation * self.config.scaling, *memory.kept


class DecodeChunk(nn.Module):
    """Normalised latents to pixels. `pixel_format` None gives the unclamped float32 video (B, 3, T, H, W)."""

    def __init__(self, config: VAEConfig, pixel_format: PixelFormat | None = "rgb24") -> None:
        super().__init__()
        self.config, self.pixel_format = config, pixel_format
        self.decoder = Decoder(config)

    def forward(self, latent_BCTHW: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """(B, Z, t, h, w) to frames, then the new caches."""
        memory = RepeatingMemory(caches or None)
        raw = (latent_BCTHW / self.config.scaling).transpose(1, 2)
        video = self.decoder(cast(raw, self.decoder.conv_in.conv.weight.dtype), memory)
        wide = cast(video.transpose(1, 2), torch.float32)
        return wide if self.pixel_format is None else to_pixels(wide, self.pixel_format), *memory.kept
