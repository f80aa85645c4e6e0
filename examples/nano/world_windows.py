"""What the transformer of the Matrix nano is trained on: windows of drives with noise on them, and queues that run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from drives import Drives
from encode_drives import LATENTS
from scene import Scene, walk
from torch import Tensor
from world_levels import FINE, LEVELS, WINDOW, below, of_queue, scales, step
from world_net import ids

from worldrt.engine.diffusion import TRAINING_STEPS
from worldrt.export.families.matrix.control import SYMBOLS

HISTORY_NOISE = 0.3
"""Most noise on a clean history, which may be the network's own."""
WORDINGS = 8
CLIPS = 0.4
"""Share of windows of drives that are clips."""
NO_TEXT = 0.05


@dataclass
class Batch:
    """Windows: noisy latents (B, 16, T, 10, 16), levels (B, T), prompts, controls (B, T), and clean latents."""

    x: Tensor
    level: Tensor
    prompts: list[list[int]]
    control: Tensor
    x0: Tensor

    def __add__(self, other: Batch) -> Batch:
        pairs = ((self.x, other.x), (self.level, other.level), (self.control, other.control), (self.x0, other.x0))
        x, level, control, x0 = (torch.cat(pair) for pair in pairs)
        return Batch(x, level, self.prompts + other.prompts, control, x0)


def windows_of(drives: Drives, rng: np.random.Generator, count: int, *, on_grid: bool = False) -> Batch:
    """Random windows at the levels of a queue, or of a clip; the history is not quite clean. Clips are at any level at
    all, or, `on_grid`, at those of a sampler only."""
    picked = [(int(rng.integers(len(drives))), int(rng.integers(LATENTS - WINDOW + 1))) for _ in range(count)]
    x0 = torch.from_numpy(np.stack([drives.latents(index, first, WINDOW) for index, first in picked]))
    level = torch.stack([of_queue(int(taken)) for taken in rng.integers(FINE, size=count)])
    is_clip = rng.random(count) < CLIPS
    either = (rng.choice(LEVELS[1:].numpy(), count), rng.integers(1, TRAINING_STEPS, count))
    one = either[0] if on_grid else np.where(rng.random(count) < 0.7, *either)
    level[is_clip] = torch.from_numpy(one[is_clip, None].astype(np.float32))
    signal, noise = scales(level)
    x = signal * x0 + noise * normal(x0.shape, rng)
    wrong = torch.from_numpy(rng.uniform(0, HISTORY_NOISE, (count, 1, 1, 1)) * ~is_clip[:, None, None, None]).float()
    x[:, :, 0] += wrong * normal(x[:, :, 0].shape, rng)
    scenes = [drives.scene(index) for index, _ in picked]
    control = torch.stack([controls(s, first) for s, (_, first) in zip(scenes, picked, strict=True)])
    return Batch(x, level, [prompt(s, rng) for s in scenes], control, x0)


class Queues:
    """Queues in the middle of a drive, that are trained on as they run.

    A row takes `steps` of the levels of a phase; at its end the queue moves on by a latent. One runs for 2 to `most`
    latents. Where it may leave its drive, the wheel goes on turning, and what is true is not known: zeros.
    """

    def __init__(self, drives: Drives, count: int, most: int, *, steps: int = 1, leave: bool = False) -> None:
        self._drives, self._most, self._steps, self._leave = drives, most, steps, leave
        self._states = [_State.nowhere() for _ in range(count)]

    def batch(self, rng: np.random.Generator) -> Batch:
        """The next row of all; those at their end begin another drive."""
        self._states = [state if state.left else self._begun(rng) for state in self._states]
        states = self._states
        return Batch(
            torch.stack([s.x for s in states]),
            torch.stack([of_queue(s.taken) for s in states]),
            [s.prompt for s in states],
            torch.stack([s.control[:WINDOW] for s in states]),
            torch.stack([self._truth(s) for s in states]),
        )

    def advance(self, x0: Tensor, rng: np.random.Generator) -> None:
        """Take a row, of which this is what the network said."""
        for i, state in enumerate(self._states):
            level = of_queue(state.taken)[None]
            x = step(state.x[None], x0[i][None], level, below(level, self._steps))[0]
            state = replace(state, x=x, taken=state.taken + self._steps)
            self._states[i] = state if state.taken < FINE else state.moved(rng)

    def _begun(self, rng: np.random.Generator) -> _State:
        index, first = int(rng.integers(len(self._drives))), int(rng.integers(LATENTS - WINDOW + 1))
        scene, x0 = self._drives.scene(index), torch.from_numpy(self._drives.latents(index, first, WINDOW))
        signal, noise = scales(of_queue(0)[None])
        x = (signal * x0 + noise * normal(x0.shape, rng))[0]
        x[:, 0] = x0[:, 0]
        left = int(rng.integers(2, self._most + 1))
        if not self._leave:
            left = min(left, LATENTS - WINDOW - first + 1)
        known = controls(scene, first, LATENTS - first)
        beyond = torch.tensor([SYMBOLS.index(action) for action in walk(rng, WINDOW + left)])
        return _State(index, first, x, 0, prompt(scene, rng), torch.cat([known, beyond]), left)

    def _truth(self, state: _State) -> Tensor:
        if state.first + WINDOW > LATENTS:
            return torch.zeros_like(state.x)
        return torch.from_numpy(self._drives.latents(state.drive, state.first, WINDOW))


@dataclass(frozen=True)
class _State:
    """A queue whose window begins at latent `first` of a drive, (16, T, 10, 16), with `taken` steps of a phase, the
    controls from there on, and how many latents it goes on for."""

    drive: int
    first: int
    x: Tensor
    taken: int
    prompt: list[int]
    control: Tensor
    left: int

    @classmethod
    def nowhere(cls) -> _State:
        return cls(0, 0, torch.empty(0), 0, [], torch.empty(0), 0)

    def moved(self, rng: np.random.Generator) -> _State:
        """One latent leaves, and one of noise comes."""
        x = torch.cat([self.x[:, 1:], normal((len(self.x), 1, *self.x.shape[2:]), rng)], dim=1)
        return replace(self, x=x, taken=0, first=self.first + 1, control=self.control[1:], left=self.left - 1)


def controls(scene: Scene, first: int, count: int = WINDOW) -> Tensor:
    """The numbers of the controls of latents of a drive."""
    return torch.tensor([SYMBOLS.index(action) for action in scene.actions[first + 1 : first + 1 + count]])


def prompt(scene: Scene, rng: np.random.Generator) -> list[int]:
    """Token ids of what the world is, in the plain wording or another one; now and then nothing."""
    if rng.random() < NO_TEXT:
        return ids("")
    still = replace(scene, actions=())
    return ids(still.caption if rng.random() < 0.3 else still.reworded(int(rng.integers(WORDINGS))))


def normal(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Noise."""
    return torch.from_numpy(rng.standard_normal(tuple(shape), np.float32))
