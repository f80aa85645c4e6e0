"""What each process of a run tells of itself every second, and who is missing by that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

BEAT_S = 1.0
LIMIT_S = 7.0
"""With a beat and a look in between, a stall is an error within 10 s."""
BUSY_S = 60.0
PATIENCE = 3.0
"""A wait of so many times the longest way between two collectives is no stall yet."""


@dataclass(frozen=True)
class Pulse:
    """`begun` collectives, all of which but maybe the last are over; for `waits_s` it has been in the last one, 0 where
    it is not. `busy`: it loads or builds, or runs something for the first time, and nobody counts its seconds. `gap_s`
    is the longest time that it was ever between two collectives while it was busy."""

    begun: int = 0
    waits_s: float = 0.0
    busy: bool = True
    gap_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: Any) -> Pulse:
        """Of what `as_json` gave."""
        return cls(int(data["begun"]), float(data["waits_s"]), bool(data["busy"]), float(data["gap_s"]))


def missing(pulses: Sequence[Pulse], silent_s: Sequence[float], limit_s: float) -> tuple[int, str] | None:
    """The rank that holds up the others, and why it is thought so; None while all is well.

    `silent_s`: how long nothing has been heard of each rank. A rank that is silent for too long is gone or stopped.
    Where others have been waiting in a collective, one that has begun fewer, and neither waits nor is busy itself, is
    stuck.
    """
    for rank, silence in enumerate(silent_s):
        if too_silent(pulses[rank], silence, limit_s):
            return rank, f"nothing has been heard of it for {silence:.0f} s"
    patience = max(limit_s, PATIENCE * max(pulse.gap_s for pulse in pulses))
    waiting = max(pulses, key=lambda pulse: pulse.waits_s)
    behind = [
        r for r, pulse in enumerate(pulses) if not pulse.busy and not pulse.waits_s and pulse.begun < waiting.begun
    ]
    if waiting.waits_s <= patience or not behind:
        return None
    rank = min(behind, key=lambda rank: pulses[rank].begun)
    return rank, f"others have waited for it in a collective for {waiting.waits_s:.0f} s"


def too_silent(last: Pulse, silence_s: float, limit_s: float) -> bool:
    """Whether a process has said nothing for too long. One that is busy, as with loading libraries, may not get to
    it."""
    return silence_s > (max(limit_s, BUSY_S) if last.busy else limit_s)


class Progress:
    """The pulse of this process as its work goes on. `enter` and `leave` take well under a microsecond. `device_waits`
    tells how long the oldest work that was given to a device has not been done."""

    def __init__(self) -> None:
        self.device_waits: Callable[[], float] = float
        self._begun, self._since, self._left, self._gap_s = 0, 0.0, time.monotonic(), 0.0
        self._busy, self._lock = 1, threading.Lock()

    def enter(self) -> None:
        """A collective begins."""
        now = time.monotonic()
        if self._busy and now - self._left > self._gap_s:
            self._gap_s = now - self._left
        self._begun += 1
        self._since = now

    def leave(self) -> None:
        """It is over."""
        self._since, self._left = 0.0, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block is a collective."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within the block nobody counts the seconds of this process."""
        with self._lock:
            self._busy += 1
        self._left = time.monotonic()
        try:
            yield
        finally:
            self._left = time.monotonic()
            with self._lock:
                self._busy -= 1

    def ready(self) -> None:
        """A process is busy from its start on until it says so."""
        with self._lock:
            self._busy -= 1

    def unready(self) -> None:
        """It is busy again."""
        with self._lock:
            self._busy += 1

    def pulse(self) -> Pulse:
        since = self._since
        waits_s = time.monotonic() - since if since else self.device_waits()
        return Pulse(self._begun, waits_s, self._busy > 0, self._gap_s)
