"""The side of a worker: one stream, calls in their order, a state that another worker goes on from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from worldrt.runtime.parallel.pools.base import Lost


class Worker(ABC):
    """Counts the calls of a stream, and refuses one that is not the next: none is done twice or left out."""

    def __init__(self) -> None:
        self._next = 0
        self._problem: Exception | None = None

    def run(self, number: int, method: str, *args: Any) -> Any:
        """Do call `number` of the stream. Raises `Lost` where it is not the next one: one before it was not done."""
        if number != self._next or self._problem is not None:
            raise Lost(f"call {number} of a stream whose next one is {self._next}")
        made = getattr(self, method)(*args)
        self._next += 1
        return made

    def next(self) -> int:
        """The number of the next call. Raises what `begin` raised."""
        if self._problem is not None:
            raise self._problem
        return self._next

    def begin(self, number: int, state: Any) -> None:
        """Go on before call `number` from a checkpoint; None is the beginning of a stream."""
        self._next, self._problem = number, None
        try:
            self._restore(state)
        except Exception as error:
            self._problem = error
            raise

    @abstractmethod
    def load(self) -> None:
        """Load what is needed, so that the first call is quick."""

    @abstractmethod
    def checkpoint(self) -> Any:
        """A copy of all that the next calls depend on."""

    @abstractmethod
    def _restore(self, state: Any) -> None:
        """Go on from a checkpoint, or begin."""
