"""Which control each latent frame gets: the newest that came in, or one that was written down."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from worldrt.engine.errors import InputError
from worldrt.runtime.live.controls import AUTO, RandomControls, check_control

Idle = Literal["neutral", "hold", "random", "auto"]


@dataclass(frozen=True)
class Bound:
    """The control of a frame, and when it came in; None where nobody gave it."""

    control: str
    came_s: float | None = None


class Steering(Protocol):
    """Where controls come from."""

    def press(self, control: str | None, now_s: float) -> None:
        """A key went down, or (None) all are up. From any thread, as often as one likes."""
        ...

    def of(self, frame: int) -> Bound | None:
        """The control of a frame, asked for in ascending order; None ends the world before it."""
        ...

    def late(self, row: int) -> Bound | None:
        """The control that frames in flight get before a row in place of theirs; None leaves them what they have. Asked
        only where the schedule binds late."""
        ...

    def fork(self) -> Steering:
        """Another one of the same kind, with no key pressed."""
        ...

    def state(self) -> Any:
        """What the controls to come depend on, beside keys."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state."""
        ...


class Wheel:
    """The newest control wins. Without one: `neutral` stands still, `hold` goes on as before, `random` draws, `auto`
    leaves it to a world that drives by itself. Raises `InputError` for `auto` of a world that does not."""

    def __init__(self, names: Sequence[str], idle: Idle = "neutral", seed: int = 0) -> None:
        self._names, self._idle, self._seed = tuple(names), idle, seed
        if idle == "auto":
            check_control(AUTO, "idle", names)
        self._neutral = AUTO if idle == "auto" else "N" if "N" in names else names[0]
        self._lock = threading.Lock()
        self._pressed: str | None = None
        self._came_s: float | None = None
        self._changes = self._changes_taken = 0
        self._last = "D" if idle != "neutral" and "D" in names else self._neutral
        self._random = RandomControls(seed, holds=(2, 4, 4)) if idle == "random" else None

    def press(self, control: str | None, now_s: float) -> None:
        if control is not None:
            check_control(control, names=self._names)
        with self._lock:
            if control != self._pressed:
                self._pressed, self._came_s = control, now_s
                self._changes += 1

    def of(self, frame: int) -> Bound:
        with self._lock:
            control, came_s = self._pressed, self._came_s
        if control is None:
            if self._random is not None:
                control, came_s = self._random(), None
            else:
                control = self._last if self._idle == "hold" else self._neutral
        self._last = control
        return Bound(control, came_s)

    def late(self, row: int) -> Bound | None:
        with self._lock:
            control, came_s, changed = self._pressed, self._came_s, self._changes != self._changes_taken
            self._changes_taken = self._changes
        if not changed or (control is None and self._random is not None):
            return None
        if control is None:
            control = self._last if self._idle == "hold" else self._neutral
        self._last = control
        return Bound(control, came_s)

    def fork(self) -> Wheel:
        return Wheel(self._names, self._idle, self._seed)

    def state(self) -> Any:
        return self._last, deepcopy(self._random)

    def restore(self, state: Any) -> None:
        self._last, self._random = state[0], deepcopy(state[1])


class Written:
    """A signal, one control for each frame from number `first` on. After its end the world ends, or its last control
    stays (`endless`)."""

    def __init__(self, signal: Sequence[str], first: int = 0, *, endless: bool = False) -> None:
        self._signal, self._first, self._endless = tuple(signal), first, endless
        if not self._signal:
            raise InputError("control signal: expected one control or more")

    def press(self, control: str | None, now_s: float) -> None:
        """Keys say nothing to a world that is written down."""

    def of(self, frame: int) -> Bound | None:
        place = frame - self._first
        if place >= len(self._signal) and not self._endless:
            return None
        return Bound(self._signal[min(max(place, 0), len(self._signal) - 1)])

    def late(self, row: int) -> None:
        """What is written down is known from the beginning."""

    def fork(self) -> Written:
        return self  # it never changes

    def state(self) -> Any:
        return None

    def restore(self, state: Any) -> None:
        """It depends on the frame alone."""


class Replayed:
    """Controls as a recording has them: by the first frame that got each, and, bound late, by row; none from frame
    `end` on."""

    def __init__(
        self, changes: Mapping[int, str], end: int | None = None, late: Mapping[int, str] | None = None
    ) -> None:
        self._changes, self._end, self._late = dict(changes), end, dict(late or {})
        self._now: str | None = None

    def press(self, control: str | None, now_s: float) -> None:
        """Keys say nothing to a world that is written down."""

    def of(self, frame: int) -> Bound | None:
        if self._end is not None and frame >= self._end:
            return None
        self._now = self._changes.get(frame, self._now)
        if self._now is None:
            raise InputError(f"recording: no control for frame {frame}; the file is damaged")
        return Bound(self._now)

    def late(self, row: int) -> Bound | None:
        control = self._late.get(row)
        return None if control is None else Bound(control)

    def fork(self) -> Replayed:
        return Replayed(self._changes, self._end, self._late)

    def state(self) -> Any:
        return self._now

    def restore(self, state: Any) -> None:
        self._now = state
