"""Makes the Matrix nano of four steps out of that of twenty: phased consistency distillation.

python examples/nano/distill_world.py --teacher runs/teacher --drives runs/drives --out runs/world

The trajectory of a latent has four phases, and the student goes from anywhere in one to its end at once: to where the
teacher's small steps lead (phased consistency models, Wang et al., arXiv 2405.18407; the steps themselves are taken,
rather than one of them and the student's own answer, which is slower to learn from at this size). Half of a batch are
windows of drives; the other half are queues that the student itself runs, for so long that they leave their drives:
the teacher needs no truth, so nothing is learned there that is only true on average.
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
from world_levels import FINE, below, scales, shares, step, x0_of
from world_net import Models, load
from world_windows import Batch, Queues, windows_of

MOST = 40
"""Latents that a queue runs for: ten seconds."""


def main() -> None:
    p = parser(__doc__, steps=4_000, rate=1e-3)
    p.add_argument("--teacher", type=Path, required=True, help="a run of train_world.py")
    p.add_argument("--drives", type=Path, required=True)
    p.add_argument("--windows", type=int, default=4, help="windows of drives in a step")
    p.add_argument("--queues", type=int, default=4, help="running queues in a step")
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    teacher, student, drives = load(args.teacher).requires_grad_(False), load(args.teacher), Drives(args.drives)
    student.text.requires_grad_(False)
    queues = Queues(drives, args.queues, MOST, steps=FINE, leave=True)
    run = Run(args.out, student, steps=args.steps, rate=args.rate)
    run.train(lambda number: loss_of(student, teacher, drives, queues, number, args.windows))


def loss_of(
    student: Models, teacher: Models, drives: Drives, queues: Queues, number: int, windows: int
) -> tuple[Tensor, dict[str, float]]:
    """Squared error at the ends of phases, as one of v, of latents that are not clean; queues take a row."""
    rng = np.random.default_rng([number, 9])
    batch = windows_of(drives, rng, windows, on_grid=True) + queues.batch(rng)
    with torch.no_grad():
        text = student.read(batch.prompts)
        goal = ends(teacher, batch, text)
    x0 = x0_of(batch.x, student.velocity(batch.x, batch.level, text, batch.control), batch.level)
    queues.advance(x0[windows:].detach(), rng)
    end = below(batch.level, FINE)
    off = step(batch.x, x0, batch.level, end) - goal
    (_, add), (_, noise) = shares(batch.level, end), scales(batch.level)
    is_noisy = (batch.level > 0)[:, None, :, None, None].expand_as(x0)
    error = (off[is_noisy] / (add * noise).expand_as(x0)[is_noisy]) ** 2
    last = (off.detach() ** 2).mean((1, 3, 4))[:, 1]
    return error.mean(), {"last": last[:windows].mean().item(), "own": last[windows:].mean().item()}


def ends(teacher: Models, batch: Batch, text: Tensor) -> Tensor:
    """Where the teacher's steps lead, (B, 16, T, 10, 16): to the end of each latent's phase."""
    x, level, end = batch.x, batch.level, below(batch.level, FINE)
    for _ in range(FINE):
        lower = torch.maximum(below(level, 1), end)
        x0 = x0_of(x, teacher.velocity(x, level, text, batch.control), level)
        x, level = step(x, x0, level, lower), lower
    return x


if __name__ == "__main__":
    main()
