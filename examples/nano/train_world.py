"""Trains the transformer of the Matrix nano, and its text encoder, on encoded drives.

python examples/nano/train_world.py --drives runs/drives --out runs/world     # resumes where it was stopped

Half of a batch are windows of drives with noise on them: most at the levels of the queue, clean history first; some
at one level for all latents, as the clip has that a world begins with. The other half are queues that run: each step
is a row of them, the loss is against the drive, and the network's own answer goes on to the next row. So it learns
what to do about its own mistakes, for the price of nothing (compare self forcing, arXiv 2506.08009).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drives import Drives
from encode_drives import LATENTS
from scene import Scene
from team import together
from torch import Tensor, nn
from training import Run

from worldrt.engine.diffusion import TRAINING_STEPS, alphas_cumprod
from worldrt.export.families.matrix.control import SYMBOLS
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.variants import NANO, Variant, variant
from worldrt.export.modules.nano_tokenizer import train as make_tokenizer
from worldrt.export.modules.padded import PaddedEncoder
from worldrt.runtime.samplers_vp import phased_ddim

ABAR = alphas_cumprod(dtype=np.float32)
MODEL = variant(NANO)
QUEUE = phased_ddim(MODEL.sampler.steps, MODEL.sampler.steps, abar=ABAR)
QUEUE_SCALES = QUEUE.signal, QUEUE.noise
WINDOW = 1 + MODEL.sampler.steps
HISTORY_NOISE = 0.3
"""Most noise on a clean history, which may be the network's own."""
WORDINGS = 8
CLIPS = 0.4
"""Share of windows of drives that are clips."""
NO_TEXT = 0.05
ROWS = 6
"""Most rows that a queue runs for. Later on its road is another one than that of the drive, and what is learned from
the difference is to be vague: marks and trees smear into what they are on average."""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--drives", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, default=12000)
    p.add_argument("--windows", type=int, default=8, help="windows of drives in a step")
    p.add_argument("--queues", type=int, default=8, help="running queues in a step")
    p.add_argument("--rate", type=float, default=2e-3)
    p.add_argument("--workers", type=int, default=1, help="processes; each takes a batch of its own in every step")
    args = p.parse_args()
    together(train, args, args.workers)


def train(args: argparse.Namespace) -> None:
    """What each process does."""
    torch.manual_seed(0)
    models, drives = Models(MODEL), Drives(args.drives)
    queues = Queues(drives, args.queues)
    run = Run(args.out, models, steps=args.steps, rate=args.rate)
    run.train(lambda number: loss_of(models, drives, queues, number, args.windows))


class Models(nn.Module):
    """The transformer, the text encoder that it learns to understand, and what it sees of each control."""

    table: Tensor

    def __init__(self, model: Variant) -> None:
        super().__init__()
        self.text, self.dit = PaddedEncoder(model.t5), DiT(model.dit)
        self.register_buffer("table", control_table(model.dit.control_width))
        nn.init.normal_(self.text.t5.embedding.weight, std=1.0)
        nn.init.normal_(self.text.t5.position_bias.weight, std=0.02)
        nn.init.zeros_(self.dit.proj_out.weight)
        for name, parameter in self.dit.named_parameters():
            if name.endswith(("norm1.linear.weight", "norm2.linear.weight", "norm_out.linear.weight")):
                nn.init.zeros_(parameter)

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Text rows (B, tokens, width) of token ids."""
        ids = torch.zeros(len(prompts), self.text.config.tokens, dtype=torch.int64)
        mask = torch.zeros(ids.shape)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
        rows: Tensor = self.text(ids, mask)
        return rows

    def velocity(self, x_BCTHW: Tensor, level_BT: Tensor, prompts: list[list[int]], control_BT: Tensor) -> Tensor:
        """v of windows; controls are numbers of symbols."""
        position = torch.arange(x_BCTHW.shape[2], dtype=torch.float32)
        made: Tensor = self.dit(x_BCTHW, level_BT, self.read(prompts), self.table[control_BT], position)
        return made


def control_table(width: int) -> Tensor:
    """(symbols, width): seeded and random for straight on, left, right and rolling, which the world knows. Going back
    is taken for rolling, and a turn is a turn at any speed."""
    found = torch.randn(len(SYMBOLS), width, generator=torch.Generator().manual_seed(0))
    for number, symbol in enumerate(SYMBOLS):
        same = {"B": "N", "BL": "DL", "NL": "DL", "BR": "DR", "NR": "DR"}.get(symbol, symbol)
        found[number] = found[SYMBOLS.index(same)]
    return found


@dataclass
class Batch:
    """Windows: noisy and clean latents (B, 16, T, 10, 16), levels (B, T), prompts, and controls (B, T)."""

    x: Tensor
    x0: Tensor
    level: Tensor
    prompts: list[list[int]]
    control: Tensor


def loss_of(
    models: Models, drives: Drives, queues: Queues, number: int, windows: int
) -> tuple[Tensor, dict[str, float]]:
    """Squared error of v on latents that are not clean, on windows and on queues; queues take a step."""
    rng = np.random.default_rng([number, 8])
    given, running = windows_of(drives, rng, windows), queues.batch(rng)
    x, level = torch.cat([given.x, running.x]), torch.cat([given.level, running.level])
    control = torch.cat([given.control, running.control])
    velocity = models.velocity(x, level, given.prompts + running.prompts, control)
    signal, noise = at(level)
    error = ((signal * x - noise * velocity - torch.cat([given.x0, running.x0])) ** 2).mean((1, 3, 4))
    queues.advance((signal * x - noise * velocity)[windows:].detach(), rng)
    is_noisy = (level > 0).float()
    loss = (error / noise[:, 0, :, 0, 0] ** 2 * is_noisy).sum() / is_noisy.sum()
    last = error[:, 1].detach()  # the next one to leave a queue
    in_queue = level[:windows, 0] == 0
    return loss, {
        "last": last[:windows][in_queue].mean().item() if in_queue.any() else 0.0,
        "own": last[windows:].mean().item(),
    }


def windows_of(drives: Drives, rng: np.random.Generator, count: int) -> Batch:
    """Random windows at the levels of a queue, or of a clip; the history is not quite clean."""
    picked = [(int(rng.integers(len(drives))), int(rng.integers(LATENTS - WINDOW + 1))) for _ in range(count)]
    x0 = torch.from_numpy(np.stack([drives.latents(index, first, WINDOW) for index, first in picked]))
    level = np.tile(QUEUE.labels, (count, 1))
    is_clip = rng.random(count) < CLIPS
    either = (rng.choice(QUEUE.labels[1:], count), rng.integers(1, TRAINING_STEPS, count))
    one = np.where(rng.random(count) < 0.7, *either)
    level[is_clip] = one[is_clip, None]
    levels = torch.from_numpy(level).float()
    signal, noise = at(levels)
    x = signal * x0 + noise * normal(x0.shape, rng)
    wrong = torch.from_numpy(rng.uniform(0, HISTORY_NOISE, (count, 1, 1, 1)) * ~is_clip[:, None, None, None]).float()
    x[:, :, 0] += wrong * normal(x[:, :, 0].shape, rng)
    scenes = [drives.scene(index) for index, _ in picked]
    control = torch.stack([controls(s, first) for s, (_, first) in zip(scenes, picked, strict=True)])
    return Batch(x, x0, levels, [prompt(s, rng) for s in scenes], control)


class Queues:
    """Queues in the middle of a drive, that are trained on as they run."""

    def __init__(self, drives: Drives, count: int) -> None:
        self._drives, self._states = drives, [_State.nowhere() for _ in range(count)]

    def batch(self, rng: np.random.Generator) -> Batch:
        """The next row of all; those at their end begin another drive."""
        for i, state in enumerate(self._states):
            if not state.rows or state.first + WINDOW > LATENTS:
                self._states[i] = self._begun(rng)
        states = self._states
        x0 = np.stack([self._drives.latents(s.drive, s.first, WINDOW) for s in states])
        scenes = [self._drives.scene(s.drive) for s in states]
        control = torch.stack([controls(scene, s.first) for scene, s in zip(scenes, states, strict=True)])
        level = torch.from_numpy(QUEUE.labels).float().expand(len(states), -1)
        return Batch(
            torch.stack([s.x for s in states]), torch.from_numpy(x0), level, [s.prompt for s in states], control
        )

    def advance(self, x0: Tensor, rng: np.random.Generator) -> None:
        """Take a row, of which this is what the network said."""
        keep, add = (torch.from_numpy(QUEUE.steps[:, i]).float()[:, None, None] for i in (0, 1))
        for i, state in enumerate(self._states):
            x = keep * state.x + add * x0[i]
            x = torch.cat([x[:, 1:], normal((len(x), 1, *x.shape[2:]), rng)], dim=1)
            self._states[i] = replace(state, x=x, first=state.first + 1, rows=state.rows - 1)

    def _begun(self, rng: np.random.Generator) -> _State:
        index, first = int(rng.integers(len(self._drives))), int(rng.integers(LATENTS - WINDOW + 1))
        x0 = torch.from_numpy(self._drives.latents(index, first, WINDOW))
        signal, noise = (torch.from_numpy(v).float()[:, None, None] for v in QUEUE_SCALES)
        x = signal * x0 + noise * normal(x0.shape, rng)
        x[:, 0] = x0[:, 0]
        rows = int(rng.integers(2, ROWS + 1))
        return _State(index, first, x, prompt(self._drives.scene(index), rng), rows)


@dataclass(frozen=True)
class _State:
    """A queue whose window begins at latent `first` of a drive, (16, T, 10, 16), and how many rows it has left."""

    drive: int
    first: int
    x: Tensor
    prompt: list[int]
    rows: int

    @classmethod
    def nowhere(cls) -> _State:
        return cls(0, 0, torch.empty(0), [], 0)


def at(level_BT: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar) of levels, (B, 1, T, 1, 1)."""
    number = level_BT.to(torch.int64)
    found = (torch.from_numpy(np.sqrt(v)).float()[number][:, None, :, None, None] for v in (ABAR, 1 - ABAR))
    signal, noise = found
    return signal, noise


def controls(scene: Scene, first: int) -> Tensor:
    """The numbers of the controls of a window."""
    return torch.tensor([SYMBOLS.index(action) for action in scene.actions[first + 1 : first + 1 + WINDOW]])


def prompt(scene: Scene, rng: np.random.Generator) -> list[int]:
    """Token ids of what the world is, in the plain wording or another one; now and then nothing."""
    if rng.random() < NO_TEXT:
        return ids("")
    still = replace(scene, actions=())
    return ids(still.caption if rng.random() < 0.3 else still.reworded(int(rng.integers(WORDINGS))))


@cache
def ids(text: str) -> list[int]:
    found: list[int] = _tokenizer().encode(text).ids
    return found


@cache
def _tokenizer() -> Any:
    return make_tokenizer(MODEL.t5.vocabulary)


def normal(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Noise."""
    return torch.from_numpy(rng.standard_normal(tuple(shape), np.float32))


if __name__ == "__main__":
    main()
