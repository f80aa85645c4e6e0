"""Every other rank of a run."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.control import HOST_LOST, LEAVE_S, Control, Order
from worldrt.runtime.parallel.pulse import BEAT_S, LIMIT_S, Pulse, too_silent
from worldrt.runtime.parallel.wire import Message, Wire


class Guest(Control):
    """Any other rank, with its connection to rank 0."""

    def __init__(self, rank: int, size: int, host: Wire, *, limit_s: float = LIMIT_S) -> None:
        super().__init__(rank, size, host.own_host)
        self._host, self._limit_s = host, limit_s
        self._orders: deque[Order] = deque()
        self._ended = self._alone = False
        self._heard, self._pulse = time.monotonic(), Pulse()
        self._start(self._listen, self._beat)

    def next_order(self) -> Order | None:
        """What rank 0 wants done next; None at the end of the run. Raises `RankError`."""
        self._wait(lambda: bool(self._orders) or self._ended)
        with self.changed:
            return self._orders.popleft() if self._orders else None

    def close(self) -> None:
        """Leave. What was said last is lost where a connection is closed at once, so rank 0 closes it."""
        self._close()
        if self.failure is None:
            with suppress(OSError):
                self._host.send({"kind": "left"})
            self._host.finish()
            with self.changed:
                self.changed.wait_for(lambda: self._alone, LEAVE_S)
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
        with self.changed:
            self._alone = True
            self.changed.notify_all()

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
