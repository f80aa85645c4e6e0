"""The part of a clip that one rank has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.tensors import TensorSpec

Array = np.ndarray[Any, Any]
FRAMES, CONTEXT = "frames", "context_frames"
"""Axes of a graph: the frames that it works on, and those that these look at."""


@dataclass(frozen=True)
class Share:
    """Which of `total` latent frames rank `part` of `parts` has, in `group` 0 or 1 of guidance.

    Ranks have `each` frames in turn from the first rank on, and the last ones less: so the parts of all, each padded to
    `each`, lie in order one after another with the padding at the end. A rank that would have none repeats the last
    frame, which nobody reads.
    """

    part: int
    parts: int
    total: int
    group: int = 0

    @property
    def each(self) -> int:
        return -(-self.total // self.parts)

    @property
    def frames(self) -> slice:
        """Of the clip."""
        start = min(self.part * self.each, self.total - 1)
        end = min((self.part + 1) * self.each, self.total)
        return slice(start, max(end, start + 1))

    @property
    def count(self) -> int:
        frames = self.frames
        return int(frames.stop - frames.start)

    def take(self, spec: TensorSpec, array: Array) -> Array:
        """What this rank fills an input with, of an array for the whole clip or one that is broadcast to it."""
        shape = spec.shape[len(spec.shape) - array.ndim :]
        if FRAMES not in shape:
            return array
        axis = shape.index(FRAMES)
        return array if array.shape[axis] != self.total else self.cut(array, axis)

    def cut(self, array: Array, axis: int = 2) -> Array:
        """The frames of this rank of an array over the frames of the clip."""
        return array[(slice(None),) * axis + (self.frames,)]
