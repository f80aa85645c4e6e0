"""Encoded drives, by number: their latents, what they show, and what the driver does."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from encode_drives import LATENTS, SHARD, drive_of
from motion import drive
from render import draw
from scene import Scene

FRAMES = 4
"""Of a latent."""


class Drives:
    """The shards of `encode_drives.py` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("drives-*.npy"))]
        self._numbers = [int(path.stem[-4:]) for path in sorted(folder.glob("drives-*.npy"))]

    def __len__(self) -> int:
        return len(self._shards) * SHARD

    def scene(self, index: int) -> Scene:
        """Of the drive at this place in the shards that are there."""
        return drive_of(self._numbers[index // SHARD] * SHARD + index % SHARD)

    def latents(self, index: int, first: int = 0, count: int = LATENTS) -> np.ndarray:
        """float32 (16, count, 10, 16)."""
        found: np.ndarray = self._shards[index // SHARD][index % SHARD][:, first : first + count].astype(np.float32)
        return found

    def frames(self, index: int, first: int, count: int) -> np.ndarray:
        """uint8 (4 count, 80, 128, 3): what these latents show."""
        return frames_of(self.scene(index), first, count)


def frames_of(scene: Scene, first: int, count: int) -> np.ndarray:
    """uint8 (4 count, 80, 128, 3): what latents `first` to `first + count - 1` of a drive show."""
    states = islice(drive(scene.actions, FRAMES * LATENTS + 1), FRAMES * first + 1, FRAMES * (first + count) + 1)
    return np.stack([draw(scene, state) for state in states])
