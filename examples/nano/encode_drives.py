"""Encodes drives of the world for the Matrix nano, with the VAE of a trained Cosmos nano.

python examples/nano/encode_drives.py --bundle runs/nano --out runs/drives     # goes on where it was stopped

A shard holds float16 latents (N, 16, T, 10, 16). Latent k is what the VAE says of frames 4 k + 1 to 4 k + 4 and the one
before them, and of nothing else: so a latent means the same at any moment of a drive, and drives may be endless.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from render import render
from scene import Scene, sample

from worldrt.runtime import Video2World
from worldrt.runtime.vae import VaeCodec

LATENTS = 13
SHARD = 32
FIRST_SEED = 3_000_000


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bundle", type=Path, required=True, help="of a trained Cosmos nano, as package.py writes it")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--shards", type=int, default=40, help=f"of {SHARD} drives")
    p.add_argument("--workers", type=int, default=1, help="processes")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.workers == 1:
        write_shards(args, 0)
        return
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        list(pool.map(write_shards, repeat(args), range(args.workers)))


def write_shards(args: argparse.Namespace, first: int) -> None:
    """Every so manieth file, complete or not there; nothing where it is there."""
    with Video2World.open(args.bundle, backend="onnxruntime", options={"threads": 1}) as world:
        vae = world.models.vae("video2world")
        for number in range(first, args.shards, args.workers):
            place = args.out / f"drives-{number:04}.npy"
            if place.is_file():
                continue
            latents = [encoded(vae, number * SHARD + i) for i in range(SHARD)]
            with (part := place.with_suffix(".part")).open("wb") as file:
                np.save(file, np.stack(latents).astype(np.float16))
            os.replace(part, place)


def encoded(vae: VaeCodec, index: int) -> np.ndarray:
    """float32 (16, T, 10, 16) of a drive."""
    return np.concatenate([vae.encode(window)[0, :, 1:] for window in windows(index)], axis=1)


def drive_of(index: int, latents: int = LATENTS) -> Scene:
    """A drive in clear weather, by number; latent k has action k + 1."""
    return replace(sample(FIRST_SEED + index, latents + 1, steady=False), weather="clear")


def windows(index: int) -> list[np.ndarray]:
    """The five frames that each latent is made of."""
    frames = render(drive_of(index), 4 * LATENTS + 1)
    return [frames[4 * k : 4 * k + 5] for k in range(LATENTS)]


if __name__ == "__main__":
    main()
