"""Encodes scenes of the world with a trained VAE, to train transformers on.

python examples/nano/encode.py --vae runs/vae --out runs/latents     # goes on where it was stopped

A shard holds float16 latents (N, 16, T, 10, 16), normalised; scene n of shard k has the seed k * N + n.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from checkpoint import load_vae
from render import render
from scene import sample
from torch import Tensor

SHARD = 64
LATENTS = 9
STATISTICS_FROM = 96


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vae", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--shards", type=int, default=100)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.vae / "statistics.json").is_file():
        write_statistics(args.vae)
    vae = load_vae(args.vae)
    mean, std = (torch.tensor(vae.config[f"latents_{n}"])[:, None, None, None] for n in ("mean", "std"))
    for shard in range(args.shards):
        place = args.out / f"{shard:04}.npy"
        if place.is_file():
            continue
        clips = [(raw_latents(vae, shard * SHARD + i, LATENTS) - mean) / std for i in range(SHARD)]
        with (part := place.with_suffix(".part")).open("wb") as file:
            np.save(file, torch.stack(clips).half().numpy())
        os.replace(part, place)


def raw_latents(vae: torch.nn.Module, seed: int, latents: int) -> Tensor:
    """(16, T, 10, 16): the mean of the posterior."""
    video = torch.from_numpy(render(sample(seed, latents), 4 * latents - 3)).permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.no_grad():
        mean: Tensor = vae.encode(video).latent_dist.mean[0]  # type: ignore[operator]
    return mean


def write_statistics(run: Path) -> None:
    """Mean and standard deviation of every channel; from scenes that shards do not hold."""
    vae = load_vae(run)
    values = torch.cat([raw_latents(vae, 8_000_000 + i, 3).flatten(1) for i in range(STATISTICS_FROM)], 1)
    found = {"latents_mean": values.mean(1).tolist(), "latents_std": values.std(1).tolist()}
    (run / "statistics.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
