"""An iterator that is run in a thread of its own, ahead of who takes its items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Generic, TypeVar

from worldrt.runtime.observer import Observer

T = TypeVar("T")
LOOK_S = 0.05


class Stopped(Exception):  # noqa: N818  # no mistake
    """Nobody wants what a thread makes any more."""


class Ahead(Generic[T]):
    """As a context manager it gives `items`, which are made while those before them are used; one waits at most. In the
    end `stopped` is set, which `items` are to heed, and the thread has ended."""

    def __init__(self, items: Iterator[T], stopped: threading.Event) -> None:
        self._items, self._stopped = items, stopped
        self._made: queue.Queue[T | None] = queue.Queue(1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._taken()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._made.get(timeout=LOOK_S)  # which it may wait to be rid of
        self._thread.join()

    def _taken(self) -> Iterator[T]:
        """The items. Raises what making one raised."""
        while (made := self._made.get()) is not None:
            yield made
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for item in self._items:
                self._made.put(item)
        except BaseException as error:
            self._error = error
        self._made.put(None)


class Until(Observer):
    """Another observer, as a thread sees it: its next step is the last one when it is told to stop."""

    def __init__(self, observer: Observer, stopped: threading.Event) -> None:
        self._observer, self._stopped = observer, stopped
        self.timings, self.before_step = observer.timings, observer.before_step

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with self._observer.stage(name):
            yield

    def progress(self, stage: str, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise Stopped
        self._observer.progress(stage, done, total)

    def warn(self, text: str) -> None:
        self._observer.warn(text)
