"""The sources of a world: one for each stream."""

from __future__ import annotations

from collections.abc import Callable

from worldrt.runtime.conditions.base import ConditionSource


class Sources:
    """Opens a source for each stream by its seed. The first one is open from the beginning, since it says what the
    world is, and is the source of the first stream where that has its seed."""

    def __init__(self, opened: Callable[[int], ConditionSource], seed: int) -> None:
        self._open, self.first = opened, opened(seed)
        self._spare: tuple[int, ConditionSource] | None = (seed, self.first)

    def take(self, seed: int) -> ConditionSource:
        """A source at its beginning."""
        spare, self._spare = self._spare, None
        if spare is not None and spare[0] == seed:
            return spare[1]
        if spare is not None:
            spare[1].close()
        return self._open(seed)

    def close(self) -> None:
        """Let the first one go where no stream took it."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare[1].close()
