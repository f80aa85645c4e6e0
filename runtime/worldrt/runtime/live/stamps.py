"""A frame on its way, and when it passed each stage.

frame = LiveFrame(0, picture, Stamps(control=t0, bound=t1))
frame.stamps.at(decoded=time.monotonic()).between("control", "decoded")
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stamps:
    """Monotonic seconds at which a frame passed a stage; None where it has not, or does not pass it at all.

    `control`: the control that it answers came in. `bound`: the control was bound to the frame. `denoise_begin`,
    `denoise_end`: its last call of the transformer. `decoded`: the picture is in host memory. `checked`: the guard has
    seen it. `encoded`: its access unit is complete. `sent`: handed to a socket or to a file.

    Stamps never change, so readers in several threads may each carry their own forward.
    """

    control: float | None = None
    bound: float | None = None
    denoise_begin: float | None = None
    denoise_end: float | None = None
    decoded: float | None = None
    checked: float | None = None
    encoded: float | None = None
    sent: float | None = None

    def at(self, **times_s: float) -> Stamps:
        """These stamps with more stages passed."""
        return replace(self, **times_s)

    def between(self, begin: str, end: str) -> float | None:
        """Seconds from one stage to another; None where one of them was not passed."""
        first, last = self.passed().get(begin), self.passed().get(end)
        return None if first is None or last is None else last - first

    def passed(self) -> dict[str, float]:
        """The stages that were passed, in their order."""
        return {name: at_s for name in STAGES if (at_s := getattr(self, name)) is not None}


STAGES = tuple(field.name for field in fields(Stamps))


@dataclass(frozen=True)
class LiveFrame:
    """The picture of frame `index` of the world: uint8 RGB (H, W, 3), or planes as the `VideoFormat` says."""

    index: int
    picture: np.ndarray[Any, np.dtype[np.uint8]]
    stamps: Stamps = Stamps()
