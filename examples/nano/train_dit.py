"""Trains the text encoder and the diffusion transformer (text2image and video2world in one) on encoded scenes.

python examples/nano/train_dit.py --latents runs/latents --out runs/dit      # resumes where it was stopped

Rectified flow with a velocity loss. The level is one for a whole clip, or one for each latent, so that first latents
may be clean (video2world), and any level may meet any other (queues; diffusion forcing, arXiv 2407.01392).
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from encode import LATENTS, SHARD, scene_of
from one_net import Models, teach_rotary_gradient
from team import together
from torch import Tensor
from training import Run, parser

from worldrt.export.families.cosmos.denoiser import precondition
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.modules.nano_tokenizer import train as make_tokenizer
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT

NO_TEXT = 0.08
"""Share of clips without their caption, for guidance; and of steps whose captions are all the usual negative prompt."""
WORDINGS = 8


class Encoded:
    """Latents and captions of one kind (`clips` or `images`), by number."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob(f"{kind}-*.npy"))]
        self._tokenizer = make_tokenizer(variant("nano", "text2image").t5.vocabulary)

    def __len__(self) -> int:
        return len(self.shards) * SHARD[self.kind]

    def latents(self, numbers: np.ndarray) -> Tensor:
        """float32 (B, 16, T, 10, 16)."""
        size = SHARD[self.kind]
        return torch.from_numpy(np.stack([self.shards[n // size][n % size] for n in numbers])).float()

    def captions(self, numbers: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        """Token ids, in the plain wording or another one."""
        scenes = (scene_of(self.kind, int(n)) for n in numbers)
        return [self.ids(s.caption if rng.random() < 0.3 else s.reworded(int(rng.integers(WORDINGS)))) for s in scenes]

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text).ids
        return found

    @cached_property
    def nothing(self) -> list[int]:
        return self.ids(DEFAULT_NEGATIVE_PROMPT)


def main() -> None:
    p = parser(__doc__, steps=20_000, rate=2e-3)
    p.add_argument("--latents", type=Path, required=True)
    p.add_argument("--images", type=int, default=24, help="pictures in a step")
    p.add_argument("--clips", type=int, default=4, help="clips in a step; one costs as much as five pictures")
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    torch.manual_seed(0)
    teach_rotary_gradient()
    models = Models()
    batches = {kind: (Encoded(args.latents, kind), getattr(args, kind)) for kind in LATENTS if getattr(args, kind)}
    run = Run(args.out, models, steps=args.steps, rate=args.rate)
    run.train(lambda step: loss_of(models, batches, step))


def loss_of(models: Models, batches: dict[str, tuple[Encoded, int]], step: int) -> tuple[Tensor, dict[str, float]]:
    """The sum of the losses on pictures and on clips."""
    rng, torch_rng = np.random.default_rng([step, 4]), torch.Generator().manual_seed(step)
    losses = {}
    for kind, (encoded, batch) in batches.items():
        numbers = rng.integers(len(encoded), size=batch)
        text = texts_of(models, encoded, numbers, rng)
        frames = LATENTS[kind]
        mask = known(rng, batch, frames) if frames > 1 else torch.zeros(batch, 1)
        sigma = levels(rng, batch, frames)
        losses[kind] = flow_loss(models.dit, encoded.latents(numbers), text, sigma, mask, torch_rng)
    return torch.stack(list(losses.values())).sum(), {name: loss.item() for name, loss in losses.items()}


def texts_of(models: Models, encoded: Encoded, numbers: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Text rows (B, N, width): captions, no text at all for a few, or the negative prompt for all."""
    if rng.random() < NO_TEXT:
        return models.read([encoded.nothing]).expand(len(numbers), -1, -1)
    has_text = torch.from_numpy(rng.random((len(numbers), 1, 1)) >= NO_TEXT)
    return models.read(encoded.captions(numbers, rng)) * has_text


def levels(rng: np.random.Generator, batch: int, frames: int) -> Tensor:
    """Sigmas (B, T): logit-normal t, leaning to noise; the same in a clip, rising along it, or independent."""
    one = rng.normal(0.6, 1.4, size=(batch, 1)) + np.zeros((1, frames))
    each = rng.normal(0.6, 1.4, size=(batch, frames))
    kind = rng.random((batch, 1))
    logit = np.where(kind < 0.7, one, np.where(kind < 0.85, np.sort(each, axis=1), each))
    return torch.from_numpy(np.exp(np.clip(logit, -6, 4.4))).float()  # sigma = t / (1 - t)


def known(rng: np.random.Generator, batch: int, frames: int) -> Tensor:
    """(B, T): 1 on latents that are given: mostly the first, or the first two, or none."""
    count = rng.choice([0, 1, 1, 1, 1, 2], size=(batch, 1))
    return torch.from_numpy((np.arange(frames)[None] < count).astype(np.float32))


def flow_loss(dit: DiT, x0: Tensor, text: Tensor, sigma: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
    """Mean squared error of the velocity noise - x0 on latents that are not given."""
    noise = torch.randn(x0.shape, generator=rng)
    x = x0 + noise * sigma[:, None, :, None, None]
    scaled, t = precondition(x, sigma, x0, mask)
    velocity = dit(scaled, t, text, torch.arange(x0.shape[2], dtype=torch.float32), mask)
    error = ((velocity - (noise - x0)) ** 2).mean((1, 3, 4))
    loss: Tensor = (error * (1 - mask)).sum() / (1 - mask).sum().clamp_min(1)
    return loss


if __name__ == "__main__":
    main()
