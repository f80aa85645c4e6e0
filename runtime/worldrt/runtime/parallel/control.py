"""How the processes of a run keep together: orders of rank 0, values that all agree on, and a watch over each other.

Rank 0 is the host (`host.py`): the others, guests (`guest.py`), hold a connection to it. Whoever dies closes one,
whoever stops falls silent, and whoever is stuck holds up a collective; the host names the rank and tells all. From then
on `check` raises `RankError` in every process, and what was given to `on_failure` has been called, in a thread.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.engine.errors import RankError
from worldrt.runtime.parallel.pulse import Progress
from worldrt.runtime.parallel.wire import Message

LOOPBACK = "127.0.0.1"
POLL_S = 0.25
LEAVE_S = 5.0
HOST_LOST = "rank 0 is "
"""How texts begin that rank 0 itself cannot tell of."""
Order = tuple[Message, dict[str, np.ndarray[Any, Any]]]


class Control(ABC):
    """One process of a run. `progress` is what it tells the others of its collectives; `address` is that of this
    machine as the others see it. `changed` tells of failures and of the end."""

    def __init__(self, rank: int, size: int, address: str) -> None:
        self.rank, self.size, self.address = rank, size, address
        self.progress = Progress()
        self.on_failure: list[Callable[[], None]] = []
        self.failure: str | None = None
        self.closed = False
        self.settled = False
        """Nobody else is needed for what is left, until something is ordered or collected again."""
        self.changed = threading.Condition()
        self._agreed: dict[int, list[Any]] = {}
        self._collects = 0

    def check(self) -> None:
        """Raises `RankError` once a rank is known to be gone, stuck or failed."""
        if self.failure is not None:
            raise RankError(self.failure)

    def collect(self, value: Any, *, watched: bool = False) -> list[Any]:
        """The values of all ranks, each some JSON data, in the order of their ranks. All ranks call this in turn.
        `watched`: it is as a collective, and a rank that does not come is missed; else it takes as long as it takes."""
        self.settled = False
        number, self._collects = self._collects, self._collects + 1
        self._give(number, value)
        with self.progress.waiting() if watched else self.progress.busy():
            self._wait(lambda: number in self._agreed)
        with self.changed:
            return self._agreed.pop(number)

    def explained(self, error: Exception, wait_s: float = 2.0) -> RankError:
        """An error of a collective, said with the rank that caused it where that becomes known in time."""
        end = time.monotonic() + wait_s
        with self.changed:
            self.changed.wait_for(lambda: self.failure is not None, max(0.0, end - time.monotonic()))
        return RankError(self.failure or f"rank {self.rank}: a collective failed: {' '.join(str(error).split())}")

    def fail(self, text: str) -> None:
        """Let every rank know of a failure. The first one counts."""
        self.tell(text)
        self._failed(text)

    def _failed(self, text: str) -> None:
        with self.changed:
            if self.failure is not None or self.closed:
                return
            self.failure = text
            self.changed.notify_all()
        for call in self.on_failure:
            with suppress(Exception):
                call()

    def _close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self.changed:
            while not self.changed.wait_for(lambda: ready() or self.failure is not None, POLL_S):
                pass  # in short turns, so that Ctrl-C is heard
            if not ready():
                self.check()

    def _start(self, *loops: Callable[[], None]) -> None:
        for loop in loops:
            threading.Thread(target=loop, name=f"rank {self.rank}: {loop.__name__}", daemon=True).start()

    @abstractmethod
    def close(self) -> None:
        """Leave the run in good order; on the host, end it."""

    @abstractmethod
    def _give(self, number: int, value: Any) -> None: ...

    @abstractmethod
    def tell(self, text: str) -> None:
        """Let the other ranks know of a failure of this one."""
