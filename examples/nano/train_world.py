"""Trains the transformer of the Matrix nano, and its text encoder, on encoded drives.

python examples/nano/train_world.py --drives runs/drives --out runs/teacher     # resumes where it was stopped

Half of a batch are windows of drives with noise on them: most at the levels of a queue, clean history first; some
at one level for all latents, as the clip has that a world begins with. The other half are queues that run: each step
is a row of them, the loss is against the drive, and the network's own answer goes on to the next row. So it learns
what to do about its own mistakes, for the price of nothing (compare self forcing, arXiv 2506.08009).

What is trained here takes twenty steps for a latent. `distill_world.py` makes one of four of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from drives import Drives
from team import together
from torch import Tensor
from training import Run, parser
from world_levels import scales, x0_of
from world_net import MODEL, Models
from world_windows import Queues, windows_of

MOST = 6
"""Latents that a queue runs for. Later on its road is another one than that of the drive, and what is learned from
the difference is to be vague: marks and trees smear into what they are on average."""


def main() -> None:
    p = parser(__doc__, steps=12_000, rate=2e-3)
    p.add_argument("--drives", type=Path, required=True)
    p.add_argument("--windows", type=int, default=8, help="windows of drives in a step")
    p.add_argument("--queues", type=int, default=8, help="running queues in a step")
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    torch.manual_seed(0)
    models, drives = Models(MODEL), Drives(args.drives)
    queues = Queues(drives, args.queues, MOST)
    run = Run(args.out, models, steps=args.steps, rate=args.rate)
    run.train(lambda number: loss_of(models, drives, queues, number, args.windows))


def loss_of(
    models: Models, drives: Drives, queues: Queues, number: int, windows: int
) -> tuple[Tensor, dict[str, float]]:
    """Squared error of v on latents that are not clean, on windows and on queues; queues take a row."""
    rng = np.random.default_rng([number, 8])
    batch = windows_of(drives, rng, windows) + queues.batch(rng)
    velocity = models.velocity(batch.x, batch.level, models.read(batch.prompts), batch.control)
    x0 = x0_of(batch.x, velocity, batch.level)
    error = ((x0 - batch.x0) ** 2).mean((1, 3, 4))
    queues.advance(x0[windows:].detach(), rng)
    is_noisy = (batch.level > 0).float()
    _, noise = scales(batch.level)
    loss = (error / noise[:, 0, :, 0, 0] ** 2 * is_noisy).sum() / is_noisy.sum()
    last = error[:, 1].detach()  # the next one to leave a queue
    in_queue = batch.level[:windows, 0] == 0
    return loss, {
        "last": last[:windows][in_queue].mean().item() if in_queue.any() else 0.0,
        "own": last[windows:].mean().item(),
    }


if __name__ == "__main__":
    main()
