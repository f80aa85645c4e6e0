"""From what was trained to the files that `trt-export` reads: a nano checkpoint, float16, as diffusers names things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from torch import Tensor

VAE_FILE = "diffusion_pytorch_model.safetensors"


def load_vae(run: Path) -> AutoencoderKLWan:
    """The averaged weights of a VAE run, with the statistics of its latents in the config once they are known."""
    from train_vae import CONFIG

    vae = AutoencoderKLWan(**CONFIG | _json(run / "statistics.json"))
    vae.load_state_dict(torch.load(run / "state.pt", weights_only=True)["average"])
    return vae.eval().requires_grad_(False)


def write_part(folder: Path, name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """One component: `config.json` and its weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {key: value.detach().to(torch.float16).contiguous() for key, value in tensors.items()}
    save_file(half, folder / name, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
