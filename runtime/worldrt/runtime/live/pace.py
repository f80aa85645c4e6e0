"""When frames are due, and when the next row is to begin so that it is ready just in time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from worldrt.engine.errors import InputError

Late = Literal["slow", "drop"]
JUMP_S = 1.0
"""Beyond this a clock has jumped, or the world has stood still: the pace begins anew."""
REMEMBERED = 8


@dataclass(frozen=True)
class PaceOptions:
    """`fps`: None hands frames out as soon as they are made. `late`: what becomes of frames that come too late: `slow`
    shows all of them and moves the rest back, `drop` throws away those whose successor is due. `margin_s` is added to
    the time that frames are expected to take. `adapt` asks for fewer frames where the models are too slow, evenly, and
    for more again when they are not."""

    fps: float | None = None
    late: Late = "slow"
    margin_s: float = 0.02
    adapt: bool = True

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"fps: expected more than 0 and at most 1000, got {self.fps}")


class Pacer:
    """Frames are due one period after another. The next ones are begun as late as their expected time allows, since
    controls are taken when they begin; the expectation is the longest of the last eight."""

    def __init__(self, options: PaceOptions) -> None:
        self.options = options
        self.late = self.jumps = 0
        self._due_s: float | None = None
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)
        self._each_s: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def period_s(self) -> float:
        """Seconds between frames; 0 without a pace."""
        if not self.options.fps:
            return 0.0
        slowest_s = max(self._each_s, default=0.0) if self.options.adapt else 0.0
        return max(1 / self.options.fps, slowest_s)

    def restart(self) -> None:
        """The next frame is due when it is there."""
        self._due_s = None

    def due_s(self, now_s: float) -> float:
        """When the next frame is due; that is now where nothing is known of an earlier one or the clock has jumped."""
        if self._due_s is not None and abs(now_s - self._due_s) > JUMP_S + self.period_s:
            self.jumps += 1
            self._due_s = None
        return now_s if self._due_s is None else self._due_s

    def shown(self, now_s: float) -> None:
        """A frame goes out, or is dropped. The next one is due a period after it was, or after now if it was late."""
        due_s = self.due_s(now_s)
        if self.period_s and now_s > due_s + self.period_s:
            self.late += 1
            due_s = now_s if self.options.late == "slow" else due_s
        self._due_s = due_s + self.period_s

    def too_late(self, now_s: float) -> bool:
        """Whether the next frame is to be dropped, because its successor is due already."""
        return self.options.late == "drop" and self.period_s > 0 and now_s >= self.due_s(now_s) + self.period_s

    def made(self, frames: int, took_s: float, busy_s: float) -> None:
        """So many frames were made: how long after their beginning, and how long the slowest stage worked on them."""
        self._took_s.append(took_s)
        self._each_s.append(busy_s / max(1, frames))

    def begin_s(self, frames_waiting: int, now_s: float) -> float:
        """When the frames after those that wait are to be begun."""
        if not self.period_s or not self._took_s:
            return now_s
        until_due_s = frames_waiting * self.period_s - max(self._took_s) - self.options.margin_s
        return self.due_s(now_s) + until_due_s
