"""The causal video VAE: encoder and decoder as steps of a stream with explicit caches.

`EncodeStep(video)` starts a stream with one frame; `EncodeStep(video, *caches)` goes on with four. `DecodeStep` is the
reverse. Caches come out in a fixed order and go into the next step as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.export.families.cosmos.vae_layers import (
    ChannelNorm,
    Downsample,
    MidAttention,
    ResidualBlock,
    Upsample,
    causal,
)
from worldrt.export.families.cosmos.variants import VAEConfig
from worldrt.export.modules.pixels import PixelFormat, to_pixels
from worldrt.export.modules.streaming import Memory, TimeConv
from worldrt.export.modules.tensors import cast, constant


class Coder(nn.Module):
    """What encoder and decoder share: causal convolutions around a list of layers."""

    def __init__(self, conv_in: TimeConv, layers: list[nn.Module], norm_out: ChannelNorm, conv_out: TimeConv) -> None:
        super().__init__()
        self.conv_in, self.layers = conv_in, nn.ModuleList(layers)
        self.norm_out, self.conv_out = norm_out, conv_out

    def forward(self, x_BTCHW: Tensor, memory: Memory) -> Tensor:
        x_BTCHW = self.conv_in(memory.extend(x_BTCHW))
        for layer in self.layers:
            x_BTCHW = layer(x_BTCHW, memory)
        out: Tensor = self.conv_out(memory.extend(nn.functional.silu(self.norm_out(x_BTCHW))))
        return out


def encoder(config: VAEConfig) -> Coder:
    """Frames (B, T, 3, 8 h, 8 w) to mean and log-variance channels; layers: the stages going down, then the middle."""
    widths = [config.base * m for m in config.multipliers]
    layers: list[nn.Module] = []
    channels = config.base
    for stage, width in enumerate(widths):
        for _ in range(config.residual_blocks):
            layers.append(ResidualBlock(channels, width))
            channels = width
        if stage < len(config.temporal):
            layers.append(Downsample(width, config.temporal[stage]))
    return Coder(
        causal(3, config.base),
        [*layers, *_middle(channels)],
        ChannelNorm(channels),
        causal(channels, 2 * config.latent_channels),
    )


def decoder(config: VAEConfig) -> Coder:
    """Latents (B, 1, C, h, w) to frames; layers: the middle, then the stages going up."""
    widths = [config.base * m for m in reversed(config.multipliers)]
    layers: list[nn.Module] = []
    channels = widths[0]
    for stage, width in enumerate(widths):
        for _ in range(config.residual_blocks + 1):
            layers.append(ResidualBlock(channels, width))
            channels = width
        if stage < len(config.temporal):
            layers.append(Upsample(width, config.temporal[-1 - stage]))
            channels = width // 2
    return Coder(
        causal(config.latent_channels, widths[0]),
        [*_middle(widths[0]), *layers],
        ChannelNorm(widths[-1]),
        causal(widths[-1], 3),
    )


def _middle(channels: int) -> list[nn.Module]:
    return [ResidualBlock(channels, channels), MidAttention(channels), ResidualBlock(channels, channels)]


class EncodeStep(nn.Module):
    """Video float32 in [-1, 1] to one normalised latent frame, the mean of the posterior."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder(config)
        self.quant = TimeConv(2 * config.latent_channels, 2 * config.latent_channels, (1, 1, 1))

    def forward(self, video_BCTHW: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, 1 or 4, 8 h, 8 w) to latent float32 (B, C, 1, h, w), then the new caches."""
        memory = Memory(caches or None)
        frames = cast(video_BCTHW.transpose(1, 2), self.quant.weight.dtype)
        moments = self.quant(self.encoder(frames, memory)).transpose(1, 2)
        latent = cast(moments[:, : self.config.latent_channels], torch.float32)
        mean, std = _statistics(self.config, latent)
        return (latent - mean) / std, *memory.kept


class DecodeStep(nn.Module):
    """One normalised latent frame to pixels. `pixel_format` None gives the unclamped float32 video (B, 3, T, H, W)."""

    def __init__(self, config: VAEConfig, pixel_format: PixelFormat | None = "rgb24") -> None:
        super().__init__()
        self.config, self.pixel_format = config, pixel_format
        self.post_quant = TimeConv(config.latent_channels, config.latent_channels, (1, 1, 1))
        self.decoder = decoder(config)

    def forward(self, latent_BCTHW: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """(B, C, 1, h, w) to one frame, or four with caches; then the new caches."""
        memory = Memory(caches or None)
        mean, std = _statistics(self.config, latent_BCTHW)
        frames = cast((latent_BCTHW * std + mean).transpose(1, 2), self.post_quant.weight.dtype)
        video = cast(self.decoder(self.post_quant(frames), memory).transpose(1, 2), torch.float32)
        return video if self.pixel_format is None else to_pixels(video, self.pixel_format), *memory.kept


def _statistics(config: VAEConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Latent mean and standard deviation, (C, 1, 1, 1)."""
    mean, std = (constant(v, like).view(-1, 1, 1, 1) for v in (config.latent_mean, config.latent_std))
    return mean, std


def cache_shapes(config: VAEConfig, step: nn.Module) -> list[tuple[int, int, int]]:
    """Frames, channels, and rows per latent row of every cache of an `EncodeStep` or `DecodeStep`."""
    weight = next(step.parameters())
    scale = 2 ** len(config.temporal)
    shape = (1, 3, 1, scale, scale) if isinstance(step, EncodeStep) else (1, config.latent_channels, 1, 1, 1)
    with torch.no_grad():
        _, *caches = step(torch.empty(shape, device=weight.device))
    return [(c.shape[1], c.shape[2], c.shape[3]) for c in caches]
