"""Rank 0 of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.control import LEAVE_S, LOOPBACK, Control
from worldrt.runtime.parallel.pulse import BEAT_S, LIMIT_S, Pulse, missing
from worldrt.runtime.parallel.wire import Arrays, Message, Wire


class Host(Control):
    """Rank 0, with a connection to each of the others, in the order of their ranks."""

    def __init__(self, guests: list[Wire], *, limit_s: float = LIMIT_S) -> None:
        super().__init__(0, 1 + len(guests), guests[0].own_host if guests else LOOPBACK)
        self._guests, self._limit_s = guests, limit_s
        self._parts: dict[int, dict[int, Any]] = {}
        self._heard = [time.monotonic()] * self.size
        self._pulses = [Pulse()] * self.size
        self._left: set[int] = set()
        self._gone: set[int] = set()
        for rank in range(1, self.size):
            self._start(lambda rank=rank: self._listen(rank))  # type: ignore[misc]
        if guests:
            self._start(self._watch)

    def order(self, message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Have all other ranks do something. Raises `RankError` where one is gone."""
        self.settled = False
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
        """End the run: the others leave first."""
        self._close()
        self.end_orders()
        if self.failure is None:
            with self.changed:
                self.changed.wait_for(lambda: len(self._gone) == len(self._guests), LEAVE_S)
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
        wire.close()
        with self.changed:
            self._gone.add(rank)
            self.changed.notify_all()

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
