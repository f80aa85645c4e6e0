"""From what was trained to the files that `trt-export` reads: a nano checkpoint, float16, as diffusers names things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from train_vae import STATISTICS, new_vae

from worldrt.export.families.cosmos.variants import VAEConfig


def averaged(run: Path) -> dict[str, Tensor]:
    """The averaged weights of a run."""
    weights: dict[str, Tensor] = torch.load(run / "state.pt", weights_only=True)["average"]
    return weights


def load_vae(run: Path) -> Any:
    """The VAE of a run. Once the statistics of its latents are known, they have those of Wan 2.1: mean and deviation
    of every channel, which are constants of the architecture, so that nothing else has to know that it was trained
    anew."""
    vae = new_vae()
    vae.load_state_dict(averaged(run))
    vae = vae.eval().requires_grad_(False)
    if (run / STATISTICS).is_file():
        restate(vae, json.loads((run / STATISTICS).read_text()))
    return vae


def restate(vae: Any, found: dict[str, list[float]]) -> None:
    """Move and stretch the latents from the statistics that they have to those of Wan 2.1. Nothing else changes: the
    encoder's last layer says them so, and the decoder's first takes them back."""
    config = VAEConfig()
    wanted_mean, wanted_std = (torch.tensor(v) for v in (config.latent_mean, config.latent_std))
    mean, std = (torch.tensor(found[name]) for name in ("mean", "std"))
    scale = wanted_std / std
    shift = wanted_mean - scale * mean
    channels = len(mean)
    last, first = vae.quant_conv, vae.post_quant_conv
    last.weight.data[:channels] *= scale[:, None, None, None, None]
    last.bias.data[:channels] = last.bias.data[:channels] * scale + shift
    last.bias.data[channels:] += 2 * scale.log()  # the log-variance
    first.bias.data -= first.weight.data[:, :, 0, 0, 0] @ (shift / scale)
    first.weight.data /= scale[None, :, None, None, None]


def normalised(latents: Tensor) -> Tensor:
    """Latents (..., 16, T, h, w) as transformers see them: mean 0 and deviation 1 in every channel."""
    config = VAEConfig()
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (config.latent_mean, config.latent_std))
    return (latents - mean) / std
