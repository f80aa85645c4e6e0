"""A denoiser that is bound for this rank's part of some clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.tensors import TensorSpec
from worldrt.runtime.bound import ROW, BoundDenoiser, Float64
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.share import Share

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SharedBound(BoundDenoiser):
    """It is given arrays of whole clips, and takes its pieces of them. `context` are the ranks that share the frames,
    None where this rank has them all; `rows` are those of tokens of a whole frame; `ranks` are all of the run."""

    share: Share = Share(0, 1, 1)  # noqa: RUF009  # frozen
    specs: Mapping[str, TensorSpec] = None  # type: ignore[assignment]  # a field after those with defaults
    context: Communicator | None = None
    rows: int = 1
    ranks: Ranks | None = None

    def fill_rows(self) -> None:
        """Write which rows of their frames this rank has, where the graphs ask for that."""
        if ROW in self.inputs:
            self.device.upload(self.inputs[ROW], self.share.rows_of_pieces(self.rows))

    def fill(self, name: str, array: Array) -> None:
        super().fill(name, self.share.take(self.specs[name], array, self.rows))

    def fill_text(self, cond: Array, uncond: Array | None) -> None:
        """The texts of a group that has one of them come in another order."""
        if self.share.group and uncond is not None:
            cond, uncond = uncond, cond
        spec, share = self.specs["text"], self.share
        other = None if uncond is None else share.take(spec, uncond, self.rows)
        super().fill_text(share.take(spec, cond, self.rows), other)

    def pieces(self, frames: int, tokens: int) -> tuple[int, int, Sequence[tuple[int, int]]]:
        share = self.share
        whole = range(share.frames.start, share.frames.stop)
        here = [(piece // share.cuts, piece % share.cuts * tokens) for piece in whole]
        return share.total, tokens * share.cuts, here

    def summed(self, sums: Float64) -> Float64:
        """Those of the ranks that have the prompts, each frame counted once."""
        assert self.ranks is not None
        counts = not self.share.group and not self.share.repeats(self.share.part)
        parts = self.ranks.control.collect(sums.tolist() if counts else None, watched=True)
        total: Float64 = np.sum([part for part in parts if part is not None], axis=0, dtype=np.float64)
        return total

    def own(self, array: Array) -> Array:
        return self.share.cut(array, self.share.dimension, array.ndim - 2)

    def result(self) -> Array:
        return self.whole(self.device.download(self.x))

    def whole(self, own: Array) -> Array:
        """The frames of all ranks, float32 (N, C, T, ..., H, W), from the pieces of each; all ranks call this."""
        if self.context is None:
            return own
        axis = self.share.dimension
        pieces = np.zeros((self.share.each, *np.moveaxis(own, axis, 0).shape[1:]), np.float32)
        pieces[: self.share.count] = np.moveaxis(own, axis, 0)
        sent = self.keep("result of this rank", pieces.shape, "float32")
        made = self.keep("result", (self.share.parts * len(pieces), *pieces.shape[1:]), "float32")
        self.device.upload(sent, pieces)
        self.context.all_gather(made, sent)()
        every = np.moveaxis(self.device.download(made)[: self.share.pieces], 0, axis)
        return np.ascontiguousarray(self.share.join(every, axis, own.ndim - 2))
