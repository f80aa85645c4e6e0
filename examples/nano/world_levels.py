"""The levels of noise of the Matrix nano: four phases, one for each latent in a queue, and five steps in each phase.

A queue in fine steps (Swin-DPM) takes all of them; the distilled one takes a phase in one step. Timesteps are 0, 49,
99, ..., 999, and a phase ends at 0, 249, 499 or 749. Steps are DDIM without noise, along the network's trajectory.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from world_net import MODEL

from worldrt.engine.diffusion import TRAINING_STEPS, alphas_cumprod

PHASES = MODEL.sampler.steps
WINDOW = 1 + PHASES
"""Latents: a clean one, and those of a queue."""
FINE = 5
"""Steps of a phase."""
APART = TRAINING_STEPS // (PHASES * FINE)
LEVELS = torch.cat([torch.zeros(1), APART * torch.arange(1.0, PHASES * FINE + 1) - 1])
"""(21,) timesteps."""
ABAR = torch.from_numpy(alphas_cumprod(dtype=np.float32))


def of_queue(taken: int) -> Tensor:
    """(WINDOW,) timesteps of the clean latent and a queue that has taken so many of the steps of a phase."""
    return torch.cat([torch.zeros(1), LEVELS[FINE * torch.arange(1, WINDOW) - taken]])


def below(level: Tensor, steps: int) -> Tensor:
    """The timesteps so many steps lower, though not below the end of the phase; 0 stays."""
    index = ((level + 1) / APART).long()
    end = (index - 1).clamp(min=0) // FINE * FINE
    return LEVELS[torch.maximum(index - steps, end)]


def scales(level_BT: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar) of timesteps, (B, 1, T, 1, 1)."""
    abar = ABAR[level_BT.long()][:, None, :, None, None]
    return abar.sqrt(), (1 - abar).sqrt()


def shares(level_BT: Tensor, lower_BT: Tensor) -> tuple[Tensor, Tensor]:
    """a and b, (B, 1, T, 1, 1), of the step x' = a x + b x0 from one level to another."""
    (signal, noise), (lower_signal, lower_noise) = scales(level_BT), scales(lower_BT)
    keep = lower_noise / noise
    return keep, lower_signal - signal * keep


def step(x_BCTHW: Tensor, x0_BCTHW: Tensor, level_BT: Tensor, lower_BT: Tensor) -> Tensor:
    """Latents at a lower level."""
    keep, add = shares(level_BT, lower_BT)
    return keep * x_BCTHW + add * x0_BCTHW


def x0_of(x_BCTHW: Tensor, v_BCTHW: Tensor, level_BT: Tensor) -> Tensor:
    """What the network's v says of the clean latents."""
    signal, noise = scales(level_BT)
    return signal * x_BCTHW - noise * v_BCTHW
