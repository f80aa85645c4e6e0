"""How the processes of a run keep together: orders of rank 0, values that all agree on, and a watch over each other.

Rank 0 is the `Host`: the others, `Guest`s, hold a connection to it. Whoever dies closes one, whoever stops falls
silent, and whoever is stuck holds up a collective; the host names the rank and tells all. From then on `check` raises
`RankError` in every process, and what was given to `on_failure` has been called, in a thread.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.engine.errors import BackendError, RankError
from worldrt.runtime.parallel.pulse import BEAT_S, LIMIT_S, Progress, Pulse, missing, too_silent
from worldrt.runtime.parallel.wire import Arrays, Message, Wire

LOOPBACK = "127.0.0.1"
POLL_S = 0.25
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
        self.changed = threading.Condition()
        self._agreed: dict[int, list[Any]] = {}
        self._collects = 0

    def check(self) -> None:
        """Raises `RankError` once a rank is known to be gone, stuck or failed."""
        if self.failure is not None:
            raise RankError(self.failure)

    def collect(self, value: Any) -> list[Any]:
        """The values of all ranks, each some JSON data, in the order of their ranks. All ranks call this in turn."""
        number, self._collects = self._collects, self._collects + 1
        self._give(number, value)
        with self.progress.busy():
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


class Host(Control):
    """Rank 0, with a connection to each of the others, in the order of their ranks."""

    def __init__(self, guests: list[Wire], *, limit_s: float = LIMIT_S) -> None:
        super().__init__(0, 1 + len(guests), guests[0].own_host if guests else LOOPBACK)
        self._guests, self._limit_s = guests, limit_s
        self._parts: dict[int, dict[int, Any]] = {}
        self._heard = [time.monotonic()] * self.size
        self._pulses = [Pulse()] * self.size
        self._left: set[int] = set()
        for rank in range(1, self.size):
            self._start(lambda rank=rank: self._listen(rank))  # type: ignore[misc]
        if guests:
            self._start(self._watch)

    def order(self, message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Have all other ranks do something. Raises `RankError` where one is gone."""
        self.check()
        for rank, guest in enumerate(self._guests, 1):
            try:
                guest.send({"kind": "order", "order": dict(message)}, arrays)
            except OSError:
                self.fail(f"rank {rank} is gone: its process has ended")
                self.check()

    def end_orders(self) -> None:
        """There are no more: `next_order` of the others gives None."""
        self._send_all({"kind": "end"})

    def close(self) -> None:
        """End the run: the others leave, too."""
        self._close()
        self._send_all({"kind": "end"})
        for guest in self._guests:
            guest.close()

    def _listen(self, rank: int) -> None:
        wire = self._guests[rank - 1]
        try:
            while True:
                message, _ = wire.receive()
                self._heard[rank] = time.monotonic()
                self._take(rank, message)
        except (EOFError, OSError, BackendError):
            if rank not in self._left and not self.closed:
                self.fail(f"rank {rank} is gone: its process has ended")

    def _take(self, rank: int, message: Message) -> None:
        kind = message.get("kind")
        if kind == "pulse":
            self._pulses[rank] = Pulse.of(message)
        elif kind == "value":
            self._value(rank, int(message["number"]), message["value"])
        elif kind == "failed":
            self.fail(str(message["text"]))
        elif kind == "left":
            self._left.add(rank)

    def _watch(self) -> None:
        while not self.closed and self.failure is None:
            time.sleep(BEAT_S / 2)
            self._send_all({"kind": "pulse"} | self.progress.pulse().as_json())
            now = time.monotonic()
            self._heard[0], self._pulses[0] = now, self.progress.pulse()
            silent = [now - heard for heard in self._heard]
            found = missing(self._pulses, silent, self._limit_s)
            if found is not None:
                self.fail(f"rank {found[0]} is missing: {found[1]}")

    def _give(self, number: int, value: Any) -> None:
        self._value(0, number, value)

    def _value(self, rank: int, number: int, value: Any) -> None:
        with self.changed:
            parts = self._parts.setdefault(number, {})
            parts[rank] = value
            if len(parts) < self.size:
                return
            values = [parts[r] for r in range(self.size)]
            del self._parts[number]
            self._agreed[number] = values
            self.changed.notify_all()
        self._send_all({"kind": "values", "number": number, "values": values})

    def tell(self, text: str) -> None:
        self._send_all({"kind": "failure", "text": text})

    def _send_all(self, message: Message) -> None:
        for guest in self._guests:
            with suppress(OSError):  # who is gone is found by its reader
                guest.send(message)


class Guest(Control):
    """Any other rank, with its connection to rank 0."""

    def __init__(self, rank: int, size: int, host: Wire, *, limit_s: float = LIMIT_S) -> None:
        super().__init__(rank, size, host.own_host)
        self._host, self._limit_s = host, limit_s
        self._orders: deque[Order] = deque()
        self._ended = False
        self._heard, self._pulse = time.monotonic(), Pulse()
        self._start(self._listen, self._beat)

    def next_order(self) -> Order | None:
        """What rank 0 wants done next; None at the end of the run. Raises `RankError`."""
        self._wait(lambda: bool(self._orders) or self._ended)
        with self.changed:
            return self._orders.popleft() if self._orders else None

    def close(self) -> None:
        """Leave."""
        self._close()
        with suppress(OSError):
            self._host.send({"kind": "left"})
        self._host.close()

    def _listen(self) -> None:
        try:
            while True:
                message, arrays = self._host.receive()
                self._heard = time.monotonic()
                self._take(message, arrays)
        except (EOFError, OSError, BackendError):
            if not self._ended:
                self._failed(f"{HOST_LOST}gone: its process has ended")

    def _take(self, message: Message, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        kind = message.get("kind")
        if kind == "pulse":
            self._pulse = Pulse.of(message)
        elif kind == "failure":
            self._failed(str(message["text"]))
        with self.changed:
            if kind == "order":
                self._orders.append((message["order"], arrays))
            elif kind == "values":
                self._agreed[int(message["number"])] = message["values"]
            elif kind == "end":
                self._ended = True
            self.changed.notify_all()

    def _beat(self) -> None:
        while not self.closed and not self._ended and self.failure is None:
            with suppress(OSError):
                self._host.send({"kind": "pulse"} | self.progress.pulse().as_json())
            time.sleep(BEAT_S)
            silent = time.monotonic() - self._heard
            if too_silent(self._pulse, silent - 2 * BEAT_S, self._limit_s):  # rank 0 speaks first where it can
                self._failed(f"{HOST_LOST}missing: nothing has been heard of it for {silent:.0f} s")

    def _give(self, number: int, value: Any) -> None:
        with suppress(OSError):
            self._host.send({"kind": "value", "number": number, "value": value})

    def tell(self, text: str) -> None:
        with suppress(OSError):
            self._host.send({"kind": "failed", "text": text})
