"""The layout images of a frame as residuals of the first layers. They do not depend on noise levels, so they are
computed once for each frame and go with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.opendwm.variants import PATCH, VAE_SCALE, DiTConfig
from worldrt.export.modules.tensors import cast


class Resnet(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block2(F.relu(self.block1(x)))
        return out


class Stage(nn.Module):
    """Residual blocks at the size of tokens; the first stage brings images to that."""

    def __init__(self, channels_in: int, channels: int, resnets: int) -> None:
        super().__init__()
        self.first = channels_in != channels
        self.in_conv = nn.Conv2d(channels_in, channels, 1) if self.first else None
        self.resnets = nn.ModuleList(Resnet(channels) for _ in range(resnets))

    def forward(self, x: Tensor) -> Tensor:
        if self.in_conv is not None:
            x = self.in_conv(F.avg_pool2d(x, PATCH))
        for block in self.resnets:
            x = block(x)
        return x


class ImageAdapter(nn.Module):
    """float32 images (B, V, C, 16 rows, 16 columns) in [0, 1] to float32 residuals (B, stages, V, S, D)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, pixels = config.width, config.image_channels * VAE_SCALE**2
        if pixels == width:
            raise ValueError("the first stage is known by its other number of channels")
        self.body = nn.ModuleList(
            Stage(pixels if i == 0 else width, width, config.resnets) for i in range(config.stages)
        )
        self.zero_convs = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(config.stages))

    def forward(self, image_BVCHW: Tensor) -> Tensor:
        batch, views = image_BVCHW.shape[:2]
        dtype = next(self.zero_convs.parameters()).dtype
        x = F.pixel_unshuffle(cast(image_BVCHW, dtype).flatten(0, 1), VAE_SCALE)
        residuals = []
        for stage, out in zip(self.body, self.zero_convs, strict=True):
            x = stage(x)
            residuals.append(torch.unflatten(out(x).flatten(2).transpose(1, 2), 0, (batch, views)))
        return cast(torch.stack(residuals, dim=1), torch.float32)
