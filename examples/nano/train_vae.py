"""Trains the causal video VAE (Wan 2.1 layout) on the procedural world.

python examples/nano/train_vae.py --out runs/vae            # resumes where it was stopped
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from render import render
from scene import sample
from team import together
from torch import Tensor
from training import Run, parser

CONFIG = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
STATISTICS = "statistics.json"
"""Mean and deviation of every channel of its latents, in the folder of a run once they are known."""
KL = 1e-5
EDGES = 0.5


def main() -> None:
    p = parser(__doc__, steps=16_000, rate=1.5e-3)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--frames", type=int, help="1 more than a multiple of 4; default: 5 mostly, now and then more")
    p.add_argument("--decoder_of", type=Path, metavar="RUN", help="train on the decoder of that run; its latents stay")
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    torch.manual_seed(0)
    vae = new_vae()
    for module in vae.modules():  # channels last: a third of the time of a forward pass less on a CPU
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    if args.decoder_of is not None:
        keep_latents(vae, args.decoder_of, args.out)
    run = Run(args.out, vae, steps=args.steps, rate=args.rate)
    run.train(lambda number: loss_of(vae, clips(number, args.batch, args.frames)))


def keep_latents(vae: Any, start: Path, out: Path) -> None:
    """Begin with the weights of another run, and leave its encoder as it is: transformers need no new training."""
    vae.load_state_dict(torch.load(start / "state.pt", weights_only=True)["average"])
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(start / STATISTICS, out / STATISTICS)


def new_vae() -> Any:
    """The network as diffusers has it."""
    from diffusers import AutoencoderKLWan

    make: Any = AutoencoderKLWan
    return make(**CONFIG)


def clips(number: int, batch: int, frames: int | None = None) -> Tensor:
    """float32 (B, 3, T, H, W) in [-1, 1] of scenes that no other number has: 5 frames mostly, 9 or 17 now and then.

    Long ones too, or what is remembered from frame to frame drifts. Two clips or more: torch takes a slow way for one.
    """
    frames = frames or (17, 5, 9, 5, 5, 5, 9, 5)[number // 2 % 8]
    made = []
    for i in range(batch):
        seed = 1_000_000 + 16 * number + i
        made.append(render(sample(seed, 2 + frames // 4), frames))
    video = torch.from_numpy(np.stack(made)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return video.contiguous(memory_format=torch.channels_last_3d)


def loss_of(vae: Any, video: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Absolute and squared error, that of differences between neighbours (edges), and a little KL."""
    posterior = vae.encode(video).latent_dist
    made = vae.decode(posterior.sample()).sample
    squared = F.mse_loss(made, video)
    edges = sum(F.l1_loss(made.diff(dim=d), video.diff(dim=d)) for d in (-1, -2))
    loss = F.l1_loss(made, video) + squared + EDGES * edges + KL * posterior.kl().sum() / video.numel()
    return loss, {"psnr_db": 10 * math.log10(4 / max(squared.item(), 1e-9))}


if __name__ == "__main__":
    main()
