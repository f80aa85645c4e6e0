"""Trains the judge: a small network that says of a frame what it shows, to measure what the models make.

python examples/nano/train_judge.py --out runs/judge

It never sees what a model made. `accuracy` on held-out scenes says how far its word can be trusted.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from motion import CURVATURE_PER_M, drive
from render import draw
from scene import COLOURS, PLACES, TIMES, WEATHERS, Scene, sample
from torch import Tensor, nn
from training import Run

HEADS = {"place": list(PLACES), "weather": list(WEATHERS), "time": list(TIMES), "colour": list(COLOURS)}
FULL_CURVATURE = max(CURVATURE_PER_M.values())


class Judge(nn.Module):
    """Frames float32 (B, 3, 80, 128) in [-1, 1] to logits of each attribute, and curvature (1 = a full right bend)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 3 * width, 4 * width, 4 * width]
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.SiLU())
                for a, b in pairwise(sizes)
            )
        )
        self.heads = nn.ModuleDict({name: nn.Linear(sizes[-1] * 3 * 4, len(HEADS[name])) for name in HEADS})
        self.curvature = nn.Linear(sizes[-1] * 3 * 4, 1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        seen = self.body(frames).flatten(1)
        return {name: head(seen) for name, head in self.heads.items()} | {"curvature": self.curvature(seen)[:, 0]}


def moments(seed: int, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Frames (B, 3, 80, 128) of `count` scenes, each at a random moment, and what they show."""
    frames, scenes, bends = [], [], []
    for i in range(count):
        scene: Scene = sample(seed + i, 6)
        states = list(drive(scene.actions, 21))
        state = states[int(np.random.default_rng([seed + i, 3]).integers(len(states)))]
        frames.append(draw(scene, state))
        scenes.append(scene)
        bends.append(state.curvature_per_m / FULL_CURVATURE)
    labels = {n: torch.tensor([values.index(getattr(s, n)) for s in scenes]) for n, values in HEADS.items()}
    return as_input(np.stack(frames)), labels | {"curvature": torch.tensor(bends, dtype=torch.float32)}


def as_input(frames_THWC: np.ndarray) -> Tensor:
    """uint8 frames as the judge takes them."""
    return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(judge: Judge, step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
    """Frames are blurred and noised a little, as those of a model are."""
    frames, labels = moments(5_000_000 + step * batch, batch)
    generator = torch.Generator().manual_seed(step)
    soft = F.avg_pool2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(batch, 1, 1, 1, generator=generator)
    frames = frames + share * (soft - frames) + 0.06 * torch.randn(frames.shape, generator=generator)
    said = judge(frames)
    losses = [F.cross_entropy(said[name], labels[name]) for name in HEADS]
    bend = F.smooth_l1_loss(said["curvature"], labels["curvature"], beta=0.1)
    return torch.stack(losses).sum() + 2 * bend, {"bend": bend.item()} | right(said, labels)


def right(said: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float]:
    """Share of right answers by attribute."""
    return {name: (said[name].argmax(1) == labels[name]).float().mean().item() for name in HEADS}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, default=2500)
    p.add_argument("--batch", type=int, default=32)
    args = p.parse_args()
    torch.manual_seed(0)
    judge = Judge()
    run = Run(args.out, judge, steps=args.steps, rate=3e-3)
    run.train(lambda step: loss_of(judge, step, args.batch))
    judge.load_state_dict(run.average)
    with torch.no_grad():
        frames, labels = moments(9_000_000, 500)
        said = judge(frames)
    print({name: round(value, 3) for name, value in right(said, labels).items()})
    print(
        "sign of bends:",
        ((said["curvature"] * labels["curvature"] > 0) | (labels["curvature"].abs() < 0.3)).float().mean().item(),
    )


if __name__ == "__main__":
    main()
