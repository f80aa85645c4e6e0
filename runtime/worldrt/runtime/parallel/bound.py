"""A denoiser that is bound for this rank's part of some clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.tensors import TensorSpec
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.share import Share

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SharedBound(BoundDenoiser):
    """It is given arrays of whole clips, and takes its frames of them. `context` are the ranks that share the frames,
    None where this rank has them all."""

    share: Share = Share(0, 1, 1)  # noqa: RUF009  # frozen
    specs: Mapping[str, TensorSpec] = None  # type: ignore[assignment]  # a field after those with defaults
    context: Communicator | None = None

    def fill(self, name: str, array: Array) -> None:
        super().fill(name, self.share.take(self.specs[name], array))

    def fill_text(self, cond: Array, uncond: Array | None) -> None:
        """The texts of a group that has one of them come in another order."""
        if self.share.group and uncond is not None:
            cond, uncond = uncond, cond
        super().fill_text(cond, uncond)

    def own(self, array: Array) -> Array:
        return self.share.cut(array)

    def result(self) -> Array:
        return self.whole(self.device.download(self.x))

    def whole(self, own: Array) -> Array:
        """The frames of all ranks, float32 (N, C, T, ...), from those of each; all ranks call this."""
        if self.context is None:
            return own
        frames = np.zeros((self.share.each, *np.moveaxis(own, 2, 0).shape[1:]), np.float32)
        frames[: self.share.count] = np.moveaxis(own, 2, 0)
        sent = self.keep("result of this rank", frames.shape, "float32")
        made = self.keep("result", (self.share.parts * len(frames), *frames.shape[1:]), "float32")
        self.device.upload(sent, frames)
        self.context.all_gather(made, sent)()
        whole = self.device.download(made)[: self.share.total]
        return np.ascontiguousarray(np.moveaxis(whole, 0, 2))
