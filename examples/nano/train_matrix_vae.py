"""Trains the causal video VAE of the Matrix nano (CogVideoX layout) to read and write the latents of the Cosmos nano.

python examples/nano/train_matrix_vae.py --part decoder --drives runs/drives --out runs/decoder   # resumes
python examples/nano/train_matrix_vae.py --part encoder --drives runs/drives --out runs/encoder

What a latent says is settled by `encode_drives.py`, so that both halves, and the transformer, may be trained at once.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from drives import Drives
from encode_drives import LATENTS
from team import together
from torch import Tensor
from training import Run, parser

from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import NANO, variant

EDGES = 0.5
NOISE = 0.15
"""Most noise that the decoder is shown on its latents: those of a transformer are not exact."""
CROP = 6, 8
"""Rows and columns of latents in the first half of the decoder's training: three times as many steps in its time."""
BEGIN = 2
"""Latents of the first chunk of a stream."""


def main() -> None:
    p = parser(__doc__, steps=2_000, rate=4e-3)
    p.add_argument("--part", choices=("decoder", "encoder"), required=True)
    p.add_argument("--drives", type=Path, required=True)
    p.add_argument("--crops", type=int, help="steps of the decoder on crops; default: half")
    p.add_argument("--batch", type=int, default=2)
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    torch.manual_seed(0)
    drives, config = Drives(args.drives), variant(NANO).vae
    if args.part == "encoder":
        encoder = EncodeChunk(config)
        run = Run(args.out, encoder, steps=args.steps, rate=args.rate)
        run.train(lambda number: encoder_loss(encoder, drives, number, args.batch))
        return
    decoder = DecodeChunk(config, None)
    crops = args.steps // 2 if args.crops is None else args.crops
    run = Run(args.out, decoder, steps=args.steps, rate=args.rate)
    run.train(lambda number: decoder_loss(decoder, drives, number, args.batch, CROP if run.step < crops else None))


def decoder_loss(
    decoder: DecodeChunk, drives: Drives, number: int, batch: int, crop: tuple[int, int] | None
) -> tuple[Tensor, dict[str, float]]:
    """Of three latents, decoded as a stream is: the first two, then one that goes on from them."""
    rng = np.random.default_rng([number, 5])
    latent, video = moments(drives, rng, 2 * batch if crop else batch, BEGIN + 1, crop)
    latent = latent + torch.from_numpy(rng.uniform(0, NOISE, (len(latent), 1, 1, 1, 1))).float() * normal(latent, rng)
    first, *caches = decoder(latent[:, :, :BEGIN])
    then = decoder(latent[:, :, BEGIN:], *caches)[0]
    made = torch.cat([first, then], dim=2)
    squared = F.mse_loss(made, video)
    edges = sum(F.l1_loss(made.diff(dim=d), video.diff(dim=d)) for d in (-1, -2))
    return F.l1_loss(made, video) + squared + EDGES * edges, {"psnr_db": 10 * math.log10(4 / squared.item())}


def encoder_loss(encoder: EncodeChunk, drives: Drives, number: int, batch: int) -> tuple[Tensor, dict[str, float]]:
    """Squared error of the latents of nine frames, the first of them alone: what a stream begins with."""
    rng = np.random.default_rng([number, 6])
    latent, video = moments(drives, rng, batch, BEGIN + 1, None)
    error = F.mse_loss(encoder(video[:, :, 3:])[0], latent)
    return error, {"error": error.item()}


def moments(
    drives: Drives, rng: np.random.Generator, batch: int, count: int, crop: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """Latents (B, 16, count, h, w) of random moments, and their frames (B, 3, 4 count, 8 h, 8 w) in [-1, 1]."""
    latents, videos = [], []
    for _ in range(batch):
        index, first = int(rng.integers(len(drives))), int(rng.integers(LATENTS - count + 1))
        latent, frames = drives.latents(index, first, count), drives.frames(index, first, count)
        rows, columns = crop or latent.shape[2:]
        top = int(rng.integers(latent.shape[2] - rows + 1))
        left = int(rng.integers(latent.shape[3] - columns + 1))
        latents.append(latent[:, :, top : top + rows, left : left + columns])
        videos.append(frames[:, 8 * top : 8 * (top + rows), 8 * left : 8 * (left + columns)])
    video = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return torch.from_numpy(np.stack(latents)), video


def normal(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Noise of this shape."""
    return torch.from_numpy(rng.standard_normal(tuple(like.shape), np.float32))


if __name__ == "__main__":
    main()
