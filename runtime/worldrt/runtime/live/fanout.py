"""One producer, many readers, none of whom it waits for.

    fanout: Fanout[AccessUnit] = Fanout(is_key=lambda unit: unit.key, want_key=encoder.request_key)
    with fanout.reader(capacity=4) as reader:       # in any thread; or `async for` in an event loop
        for unit in reader:
            ...

Each reader has a ring of its own. When it is full, its oldest items are dropped up to the next key, and counted; items
that only make sense after a key are not given to a reader that missed it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
DEFAULT_CAPACITY = 8


class EndOfStream(Exception):  # noqa: N818  # it is no error
    """The fan-out was closed and everything that waited has been read; or the reader was closed."""


def _every(item: object) -> bool:
    return True


def _nobody() -> None:
    pass


class Fanout(Generic[T]):
    """`is_key` tells where a reader can begin; `want_key` is called, in the thread that joins or puts, when a reader
    waits for a key. It must not call back into the fan-out."""

    def __init__(self, *, is_key: Callable[[T], bool] = _every, want_key: Callable[[], None] = _nobody) -> None:
        self.is_key, self.want_key = is_key, want_key
        self._lock = threading.Lock()
        self._readers: tuple[Reader[T], ...] = ()
        self._closed = False

    @property
    def readers(self) -> tuple[Reader[T], ...]:
        """Who reads now."""
        return self._readers

    def put(self, item: T) -> None:
        """Give an item to every reader. Never waits; does nothing once closed."""
        key = self.is_key(item)
        starved = [reader for reader in self._readers if reader._put(item, key)]
        if starved:
            self.want_key()

    def reader(self, capacity: int = DEFAULT_CAPACITY, name: str = "") -> Reader[T]:
        """A new reader, which begins with the next key."""
        reader = Reader(self, capacity, name)
        with self._lock:
            if self._closed:
                reader._end()
            else:
                self._readers = (*self._readers, reader)
        self.want_key()
        return reader

    def close(self) -> None:
        """Readers get what waits for them, and then `EndOfStream`."""
        with self._lock:
            readers, self._readers, self._closed = self._readers, (), True
        for reader in readers:
            reader._end()

    def _leave(self, reader: Reader[T]) -> None:
        with self._lock:
            self._readers = tuple(other for other in self._readers if other is not reader)


class Reader(Generic[T]):
    """One reader's ring, for one thread or one task at a time. It is a context manager and an iterator, of either
    kind; `dropped` and `taken` count items."""

    def __init__(self, fanout: Fanout[T], capacity: int, name: str) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, got {capacity}")
        self.name, self.capacity, self.dropped, self.taken = name, capacity, 0, 0
        self._fanout = fanout
        self._ring: deque[tuple[T, bool]] = deque()
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._began, self._needs_key, self._ended = False, True, False

    @property
    def waiting(self) -> int:
        """Items in the ring."""
        return len(self._ring)

    def get(self, timeout_s: float | None = None) -> T:
        """The next item. Raises `EndOfStream`, or `TimeoutError` after `timeout_s`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._ring or self._ended, timeout_s):
                raise TimeoutError(f"nothing came within {timeout_s} s")
            return self._take()

    async def next(self) -> T:
        """`get` for an event loop. Raises `EndOfStream`."""
        while True:
            with self._changed:
                if self._ring or self._ended:
                    return self._take()
                loop = asyncio.get_running_loop()
                came: asyncio.Future[None] = loop.create_future()
                self._waiter = loop, came
            await came

    def pause(self, duration_s: float) -> bool:
        """Read nothing for a while and go on with the next key; what came meanwhile is dropped. False at the end of the
        stream, which ends the pause."""
        with self._changed:
            ended = self._changed.wait_for(lambda: self._ended, duration_s)
            self.dropped += len(self._ring)
            self._ring.clear()
            self._needs_key = True
        self._fanout.want_key()
        return not ended

    def close(self) -> None:
        """Leave; what waits is thrown away, and who waits gets `EndOfStream`."""
        self._fanout._leave(self)
        with self._changed:
            self._ring.clear()
        self._end()

    def _take(self) -> T:
        if not self._ring:
            raise EndOfStream
        self.taken += 1
        return self._ring.popleft()[0]

    def _put(self, item: T, key: bool) -> bool:
        """Whether the reader has just begun to wait for a key."""
        with self._changed:
            if self._ended:
                return False
            starves = len(self._ring) >= self.capacity and self._make_room(key)
            if self._needs_key and not key:
                self.dropped += self._began  # what passed before it began was never its own
                return starves
            self._began, self._needs_key = True, False
            self._ring.append((item, key))
            self._wake()
        return False

    def _make_room(self, key: bool) -> bool:
        """Drop the oldest items up to the next key. Whether there is none, and what comes now is none either."""
        self._ring.popleft()
        self.dropped += 1
        while self._ring and not self._ring[0][1]:
            self._ring.popleft()
            self.dropped += 1
        self._needs_key = not self._ring
        return self._needs_key and not key

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._wake()

    def _wake(self) -> None:
        self._changed.notify()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            loop, came = waiter
            with suppress(RuntimeError):  # a loop that was closed has no tasks to wake
                loop.call_soon_threadsafe(_finish, came)

    def __enter__(self) -> Reader[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Reader[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.get()
        except EndOfStream:
            raise StopIteration from None

    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.next()
        except EndOfStream:
            raise StopAsyncIteration from None


def _finish(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)
