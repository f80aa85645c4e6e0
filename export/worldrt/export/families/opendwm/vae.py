"""The image VAE of Stable Diffusion 3.5 (arXiv 2403.03206): every picture by itself, no memory from frame to frame.

Parameters have the names of checkpoints. Shape letters: B batch, C channels, H and W rows and columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.opendwm.variants import VAEConfig
from worldrt.export.modules.pixels import PixelFormat, to_pixels
from worldrt.export.modules.tensors import cast

EPS = 1e-6
LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE = -30.0, 20.0


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(groups, c, eps=EPS) for c in (channels_in, channels_out))
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        out: Tensor = h + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class MidAttention(nn.Module):
    """One head over all pixels. Its softmax is written out: no fused kernel has heads this wide."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        tokens = self.group_norm(x_BCHW).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
        weights = cast(cast(scores, torch.float32).softmax(dim=-1), v.dtype)
        out: Tensor = x_BCHW + self.to_out[0](weights @ v).transpose(1, 2).reshape(x_BCHW.shape)
        return out


class Resample(nn.Module):
    """Half as many rows and columns, or twice as many."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else 0)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        changed = F.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else F.pad(x, (0, 1, 0, 1))
        out: Tensor = self.conv(changed)
        return out


class Stage(nn.Module):
    """Residual blocks of one size, then a change of size where there is one."""

    def __init__(self, resnets: list[ResidualBlock], down: Resample | None = None, up: Resample | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = None if down is None else nn.ModuleList([down])
        self.upsamplers = None if up is None else nn.ModuleList([up])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *(self.downsamplers or ()), *(self.upsamplers or ())):
            x = layer(x)
        return x


class Middle(nn.Module):
    """A residual block, attention, and another residual block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([MidAttention(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class Encoder(nn.Module):
    """Pictures (B, 3, 8 h, 8 w) to mean and log-variance channels of latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        stages = []
        for number, width in enumerate(widths):
            before = widths[max(0, number - 1)]
            resnets = [ResidualBlock(before if i == 0 else width, width, groups) for i in range(config.layers)]
            stages.append(Stage(resnets, down=Resample(width, up=False) if number < len(widths) - 1 else None))
        self.down_blocks = nn.ModuleList(stages)
        self.mid_block = Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return out


class Decoder(nn.Module):
    """Latents (B, C, h, w) to pictures (B, 3, 8 h, 8 w)."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, groups = tuple(reversed(config.widths)), config.groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups)
        stages = []
        for number, width in enumerate(widths):
            before = widths[max(0, number - 1)]
            resnets = [ResidualBlock(before if i == 0 else width, width, groups) for i in range(config.layers + 1)]
            stages.append(Stage(resnets, up=Resample(width, up=True) if number < len(widths) - 1 else None))
        self.up_blocks = nn.ModuleList(stages)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for stage in self.up_blocks:
            x = stage(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class Encode(nn.Module):
    """float32 pictures (B, 3, 1, 8 h, 8 w) in [-1, 1] to float32 latents (B, C, 1, h, w) as the network sees them: mean
    and deviation."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def forward(self, video_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        made = self.encoder(cast(video_BCTHW.squeeze(2), self.encoder.conv_in.weight.dtype))
        mean, log_variance = cast(made, torch.float32).chunk(2, dim=1)
        deviation = (log_variance.clamp(LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE) / 2).exp()
        scaled = (mean - self.config.shift) * self.config.scaling, deviation * self.config.scaling
        return scaled[0].unsqueeze(2), scaled[1].unsqueeze(2)


class Decode(nn.Module):
    """float32 latents (B, C, 1, h, w) as the network sees them to frames (`modules.pixels`)."""

    def __init__(self, config: VAEConfig, pixel_format: PixelFormat | None = "rgb24") -> None:
        super().__init__()
        self.config, self.pixel_format = config, pixel_format
        self.decoder = Decoder(config)

    def forward(self, latent_BCTHW: Tensor) -> Tensor:
        """Without a pixel format, float32 (B, 3, 1, 8 h, 8 w) in about [-1, 1]."""
        z = latent_BCTHW.squeeze(2) / self.config.scaling + self.config.shift
        video = cast(self.decoder(cast(z, self.decoder.conv_in.weight.dtype)), torch.float32).unsqueeze(2)
        return video if self.pixel_format is None else to_pixels(video, self.pixel_format)
