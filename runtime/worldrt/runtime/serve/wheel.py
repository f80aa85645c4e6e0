"""Who drives: one at a time, in the order in which they asked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

LEASE_S = 30.0


class Wheel:
    """The wheel of a world. It is held under a name: that of a connection, or the token of `lease`.

    A token is held as long as it is used at least every `lease_s`; a connection until it ends. For one event loop.
    """

    def __init__(self, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._line: list[str] = []  # the driver, and those who wait
        self._used: dict[str, float] = {}  # when a token was used last

    @property
    def driver(self) -> str | None:
        """Who drives now."""
        while self._line and self._stale(self._line[0]):
            self.leave(self._line[0])
        return self._line[0] if self._line else None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who asked for the wheel, the first one first."""
        return tuple(self._line[1:]) if self.driver else ()

    def take(self, name: str) -> bool:
        """Take the wheel if it is free, else stand in line; whether `name` drives now."""
        if self.driver != name and name not in self._line:
            self._line.append(name)
        return self.holds(name)

    def lease(self) -> str | None:
        """A new token that drives, where the wheel is free."""
        if self.driver is not None:
            return None
        token = secrets.token_urlsafe(16)
        self._used[token] = self._clock()
        self._line.append(token)
        return token

    def holds(self, name: str) -> bool:
        """Whether `name` drives; a token is used by asking so."""
        held = self.driver == name
        if held and name in self._used:
            self._used[name] = self._clock()
        return held

    def leave(self, name: str) -> None:
        """Give the wheel to the first in line, or step out of the line."""
        self._used.pop(name, None)
        if name in self._line:
            self._line.remove(name)

    def _stale(self, name: str) -> bool:
        return name in self._used and self._clock() - self._used[name] > self._lease_s
