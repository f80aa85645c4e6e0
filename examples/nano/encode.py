"""Encodes scenes of the world with a trained VAE, to train transformers on.

python examples/nano/encode.py --vae runs/vae --out runs/latents     # goes on where it was stopped

A shard holds float16 latents (N, 16, T, 10, 16), normalised. `clips-*` are the beginnings of drives (T = 5), `images-*`
single pictures of other scenes (T = 1), of which there can be many more.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import load_vae, normalised
from render import render
from scene import Scene, sample
from torch import Tensor
from train_vae import STATISTICS

LATENTS = {"clips": 5, "images": 1}
SHARD = {"clips": 64, "images": 512}
FIRST_SEED = {"clips": 0, "images": 2_000_000}
STATISTICS_FROM = 32
BATCH = 4


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vae", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--clips", type=int, default=100, help="shards of 64 clips")
    p.add_argument("--images", type=int, default=64, help="shards of 512 pictures")
    p.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0: none but this")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.vae / STATISTICS).is_file():
        write_statistics(args.vae)
    shards = [(kind, number) for kind in LATENTS for number in range(getattr(args, kind))]
    shards.sort(key=lambda shard: shard[1] / getattr(args, shard[0]))  # some of both soon
    if not args.workers:
        for shard in shards:
            write_shard(args.vae, args.out, *shard)
        return
    alone = (torch.set_num_threads, (1,))
    with ProcessPoolExecutor(args.workers, get_context("spawn"), *alone) as pool:
        list(pool.map(write_shard, repeat(args.vae), repeat(args.out), *zip(*shards, strict=True)))


def scene_of(kind: str, index: int) -> Scene:
    """The scene that clip or image `index` shows, counted over all shards."""
    return sample(FIRST_SEED[kind] + index, LATENTS[kind])


def write_shard(vae_run: Path, out: Path, kind: str, number: int) -> None:
    """One file, complete or not there; nothing if it is there."""
    place = out / f"{kind}-{number:04}.npy"
    if place.is_file():
        return
    vae, size = load_vae(vae_run), SHARD[kind]
    scenes = [scene_of(kind, number * size + i) for i in range(size)]
    latents = normalised(torch.cat([raw_latents(vae, scenes[i : i + BATCH]) for i in range(0, size, BATCH)]))
    with (part := place.with_suffix(".part")).open("wb") as file:
        np.save(file, latents.half().numpy())
    os.replace(part, place)


def raw_latents(vae: Any, scenes: Sequence[Scene]) -> Tensor:
    """(B, 16, T, 10, 16): the mean of the posterior."""
    frames = np.stack([render(scene, 4 * len(scene.actions) - 3) for scene in scenes])
    video = torch.from_numpy(frames).permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        mean: Tensor = vae.encode(video.contiguous(memory_format=torch.channels_last_3d)).latent_dist.mean
    return mean


def write_statistics(run: Path) -> None:
    """Mean and standard deviation of every channel; from scenes that shards do not hold."""
    vae = load_vae(run)
    values = raw_latents(vae, [sample(8_000_000 + i, 3) for i in range(STATISTICS_FROM)]).transpose(0, 1).flatten(1)
    found = {"mean": values.mean(1).tolist(), "std": values.std(1).tolist()}
    (run / STATISTICS).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
