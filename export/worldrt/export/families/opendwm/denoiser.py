"""The denoiser of OpenDWM, x0 = denoise(x, level, ...).

Flow matching: x = (1 - sigma) x0 + sigma eps, and the network gives v = eps - x0, so x0 = x - sigma v. The level of a
frame is its timestep, 1000 sigma, the same for all views.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.export.families.opendwm.dit import DiT
from worldrt.export.modules.tensors import cast

TRAINING_STEPS = 1000


class Denoise(nn.Module):
    """The whole form. Everything float32 in and out."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(
        self,
        x_BCTVHW: Tensor,
        level_BT: Tensor,
        text_BTVLC: Tensor,
        pooled_BTVP: Tensor,
        camera_BTVK: Tensor,
        residual_BTRVSD: Tensor,
        position_T: Tensor,
        view_V: Tensor,
    ) -> Tensor:
        timestep = of_views(level_BT, pooled_BTVP)
        velocity = self.dit(
            x_BCTVHW, timestep, text_BTVLC, pooled_BTVP, camera_BTVK, residual_BTRVSD, position_T, view_V
        )
        return to_x0(velocity, x_BCTVHW, level_BT)


def of_views(level_BT: Tensor, pooled_BTVP: Tensor) -> Tensor:
    """The level of each view (B, T, V)."""
    return level_BT.unsqueeze(2).expand(pooled_BTVP.shape[:3])


def to_x0(velocity: Tensor, x_BCTVHW: Tensor, level_BT: Tensor) -> Tensor:
    """Clean latents from the velocity, in float32."""
    sigma = (level_BT / TRAINING_STEPS)[:, None, :, None, None, None]
    return x_BCTVHW - sigma * cast(velocity, torch.float32)
