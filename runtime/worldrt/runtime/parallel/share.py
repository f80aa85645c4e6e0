"""The part of a clip that one rank has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.tensors import TensorSpec, split_axis

Array = np.ndarray[Any, Any]
FRAMES, CONTEXT = "frames", "context_frames"
"""Axes of a graph: the frames that it works on, and those that these look at. Either may be parts of frames."""
VIEWS, CONTEXT_VIEWS = "views", "context_views"
"""The same of the views of a frame."""
ROWS, WINDOW_FRAMES = "rows", "window_frames"
"""Rows of tokens, and frames that are always whole ones."""
MOST_PIECES = 128


@dataclass(frozen=True)
class Share:
    """Which of `total` latent frames rank `part` of `parts` has, in `group` 0 or 1 of guidance.

    A frame is cut into `cuts` pieces of as many rows, which are to a graph as many frames of fewer rows. Ranks have
    `each` pieces in turn from the first rank on, and the last ones less: so the parts of all, each padded to `each`,
    lie in order one after another with the padding at the end. A rank that would have none repeats the last piece,
    which nobody reads.

    Where `axis` is `views`, it is the views of all frames that are shared, and none is cut.
    """

    part: int
    parts: int
    total: int
    group: int = 0
    cuts: int = 1
    axis: str = FRAMES

    @property
    def dimension(self) -> int:
        """What is shared, in latents (N, C, T, V, H, W)."""
        return 3 if self.axis == VIEWS else 2

    @property
    def pieces(self) -> int:
        """Of the clip."""
        return self.total * self.cuts

    @property
    def each(self) -> int:
        return -(-self.pieces // self.parts)

    @property
    def frames(self) -> slice:
        """The pieces of this rank."""
        return self.of(self.part)

    @property
    def count(self) -> int:
        frames = self.frames
        return int(frames.stop - frames.start)

    def of(self, part: int) -> slice:
        """The pieces of a rank."""
        start = min(part * self.each, self.pieces - 1)
        end = min((part + 1) * self.each, self.pieces)
        return slice(start, max(end, start + 1))

    def repeats(self, part: int) -> bool:
        """Whether a rank has no pieces but one that is another's."""
        return part * self.each >= self.pieces

    def take(self, spec: TensorSpec, array: Array, rows: int) -> Array:
        """What this rank fills an input with, of an array for the whole clip or one that is broadcast to it; `rows` are
        those of tokens of a whole frame."""
        shape = spec.shape[len(spec.shape) - array.ndim :]
        if self.axis not in shape:
            return array
        axis = shape.index(self.axis)
        within = next((i for i, entry in enumerate(shape) if isinstance(entry, str) and _is_rows(entry)), None)
        whole = array.shape[axis] == self.total
        if within is not None and isinstance(entry := shape[within], str):
            whole = whole and array.shape[within] == split_axis(entry)[0] * rows
        return self.cut(array, axis, within) if whole else array

    def cut(self, array: Array, axis: int, rows: int | None = None) -> Array:
        """The pieces of this rank of an array over the frames of the clip, and over rows in dimension `rows`."""
        if self.cuts > 1:
            array = np.repeat(array, self.cuts, axis) if rows is None else self._parted(array, axis, rows)
        return array[(slice(None),) * axis + (self.frames,)]

    def _parted(self, array: Array, axis: int, rows: int) -> Array:
        shape = array.shape
        split = array.reshape(*shape[:rows], self.cuts, shape[rows] // self.cuts, *shape[rows + 1 :])
        moved = np.moveaxis(split, rows, axis + 1)
        return moved.reshape(*shape[:axis], self.pieces, *moved.shape[axis + 2 :])

    def join(self, pieces: Array, axis: int, rows: int) -> Array:
        """The whole frames of an array over all pieces."""
        if self.cuts == 1:
            return pieces
        shape = pieces.shape
        split = pieces.reshape(*shape[:axis], self.total, self.cuts, *shape[axis + 1 :])
        moved = np.moveaxis(split, axis + 1, rows)
        return moved.reshape(*shape[:axis], self.total, *shape[axis + 1 : rows], -1, *shape[rows + 1 :])

    def rows_of_pieces(self, rows: int) -> Array:
        """float32 (count, 2): the first row of tokens of each piece of this rank, and the `rows` of a whole frame."""
        first = np.arange(self.frames.start, self.frames.stop) % self.cuts * (rows // self.cuts)
        return np.stack([first, np.full(len(first), rows)], axis=1).astype(np.float32)


def cuts_of(total: int, parts: int, rows: int) -> int:
    """Into how many pieces each of `total` frames with so many rows is best cut for so many ranks: where there are
    fewer frames than ranks, so that the rank with the most has the least. Pieces are of equal size."""
    if total >= parts:
        return 1
    fitting = [n for n in range(1, rows + 1) if rows % n == 0 and (n == 1 or total * n <= MOST_PIECES)]
    return min(fitting, key=lambda n: (-(-total * n // parts) / n, n))


def _is_rows(entry: str) -> bool:
    return split_axis(entry)[1] == ROWS
