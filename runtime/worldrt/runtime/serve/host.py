"""The thread that a world lives in: it steps the world, and does what is asked of it between two steps."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Literal, TypeVar

from worldrt.engine.errors import BlockedError, WorldrtError
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.serve.world import World

T = TypeVar("T")
State = Literal["loading", "running", "paused", "failed", "ended"]
WAITING_CALLS = 16


class BusyError(Exception):
    """More was asked of the world than it can do now."""


class Host:
    """Runs a world until `end`.

    `open_world` makes it, in the host's thread, for that may take a while; `ready` is called with it once it has been
    started, and returns what takes each frame. `changed` is called in that thread after each change of `state`.
    """

    def __init__(
        self,
        open_world: Callable[[], World],
        ready: Callable[[World], Callable[[LiveFrame], None]],
        changed: Callable[[], None] = lambda: None,
        *,
        prompt: str = "",
    ) -> None:
        self.state: State = "loading"
        self.problem = ""
        self.prompt = prompt
        self.world: World | None = None
        self.loaded: Future[None] = Future()  # fails where the world cannot be loaded
        self._open, self._ready, self._changed = open_world, ready, changed
        self._calls: queue.Queue[tuple[Callable[[World], Any], Future[Any]] | None] = queue.Queue(WAITING_CALLS)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live, name="worldrt-world", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self, timeout_s: float = 10.0) -> bool:
        """Stop the world after the step that runs; whether that was done in time."""
        self._ending.set()
        with suppress(queue.Full):
            self._calls.put_nowait(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the world's thread runs."""
        return self._thread.is_alive()

    def control(self, name: str | None) -> None:
        """Steer; takes effect as soon as the world can. Without effect before it is loaded."""
        if self.world is not None:
            self.world.control(name)

    def call(self, work: Callable[[World], T]) -> Future[T]:
        """Do something to the world between two steps. Raises `BusyError` where too much waits for that already, or
        the world is not there."""
        if self.state in ("loading", "ended"):
            raise BusyError(f"the world is {self.state}; try again later")
        future: Future[T] = Future()
        try:
            self._calls.put_nowait((work, future))
        except queue.Full:
            raise BusyError(f"{WAITING_CALLS} requests wait for the world already; try again later") from None
        return future

    def set_running(self, running: bool) -> Future[None]:
        """Go on, or stand still."""

        def work(world: World) -> None:
            if self.state == "failed":
                if not running:
                    return
                self._reset(world)
            self._be("running" if running else "paused")

        return self.call(work)

    def set_prompt(self, text: str) -> Future[None]:
        """Go on with another prompt."""

        def work(world: World) -> None:
            world.prompt(text)
            self.prompt = text
            self._changed()

        return self.call(work)

    def restore(self, state: Any, prompt: str) -> Future[None]:
        """Go on from a snapshot, whose prompt was `prompt`."""

        def work(world: World) -> None:
            world.restore(state)
            self.prompt = prompt
            self._be("running" if self.state == "failed" else self.state)

        return self.call(work)

    def reset(self) -> Future[None]:
        """Begin again, also after a failure."""
        return self.call(self._reset)

    def _reset(self, world: World) -> None:
        world.reset()
        if self.state == "failed":
            self._be("running")

    def _live(self) -> None:
        try:
            self.world = self._open()
            self.world.start(self.prompt)
            take = self._ready(self.world)
        except Exception as error:
            self._fail(error, log=False)
            self.loaded.set_exception(error)
        else:
            self._be("running")
            self.loaded.set_result(None)
            while not self._ending.is_set():
                self._serve_calls(wait=self.state != "running")
                if self.state == "running" and not self._ending.is_set():
                    self._step(take)
        self._leave()

    def _step(self, take: Callable[[LiveFrame], None]) -> None:
        assert self.world is not None
        try:
            for frame in self.world.step():
                take(frame)
            if self.world.done:
                self._be("paused")
        except Exception as error:
            self._fail(error)

    def _serve_calls(self, *, wait: bool) -> None:
        """Do what waits; where nothing else is to be done, wait for the first."""
        assert self.world is not None
        with suppress(queue.Empty):
            while (call := self._calls.get(block=wait)) is not None:
                wait = False
                work, future = call
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(work(self.world))
                except Exception as error:
                    future.set_exception(error)

    def _leave(self) -> None:
        if self.state != "failed":
            self._be("ended")
        if self.world is not None:
            try:
                self.world.stop()
            except Exception as error:
                self._fail(error)
        with suppress(queue.Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call[1].cancel()

    def _fail(self, error: Exception, *, log: bool = True) -> None:
        if isinstance(error, WorldrtError):
            self.problem = ("blocked: " if isinstance(error, BlockedError) else "") + " ".join(str(error).split())
        else:
            self.problem = f"the world failed: {type(error).__name__}; the server's log has more"
            if log:
                traceback.print_exception(error, file=sys.stderr)
        self._be("failed")

    def _be(self, state: State) -> None:
        self.state = state
        if state != "failed":
            self.problem = ""
        self._changed()
