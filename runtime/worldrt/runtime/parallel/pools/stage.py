"""A supervised stage: calls of a stream, each with its result exactly once, though workers die.

    latents, frames = Stage(cluster, make_denoiser, "denoise"), Stage(cluster, make_decoder, "decode")
    latents.begin()
    frames.begin()
    row = latents.submit("row", ...)                 # a Result, at once
    pictures = frames.submit("decode", row, 0)       # waits for the row, in the worker
    pictures.get()

A stage remembers the calls since a checkpoint of its worker's state. When the worker is lost, another one goes on from
the checkpoint and does them again; a worker is a function of its state and its calls, so the results are the same. What
a call gave is kept as long as somebody may still ask for it, which is as long as its `Result` lives; a call of another
stage that takes it holds it, too.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.pools.base import Cluster, Handle, Lost, Make, Ref

MOST_LOSSES = 5
"""Losses one after the other, with no result between, after which the cause is not chance."""
FAR_BEHIND = 4
"""Checkpoints that may be due before calls wait for one."""


class Result:
    """What a call will give."""

    def __init__(self, stage: Stage, number: int) -> None:
        self._stage, self.number = stage, number
        self.ref: Ref = None

    def get(self) -> Any:
        """Wait for it. Raises what the call raised; `BackendError` where workers are lost again and again."""
        return self._stage.settled(self, fetch=True)

    def wait(self) -> None:
        """Wait until it is there, but leave it where it is. Raises as `get` does."""
        self._stage.settled(self, fetch=False)


@dataclass(eq=False)
class _Call:
    number: int
    method: str
    args: tuple[Any, ...]
    result: weakref.ref[Result]


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    number: int  # of the call after it
    state: Any


class Stage:
    """One worker at a time, made by `make`, and with `spare` another one that waits, loaded. A checkpoint is taken
    every so many calls. To be called from any thread. `told` hears of losses, which `losses` counts."""

    def __init__(
        self,
        cluster: Cluster,
        make: Make,
        name: str,
        *,
        every: int = 8,
        spare: bool = False,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.losses = name, 0
        self._cluster, self._make, self._every, self._with_spare, self._told = cluster, make, every, spare, told
        self._in_a_row = 0
        self._lock = threading.RLock()
        self._handle: Handle = self._started()
        self._spare: Handle | None = self._started() if spare else None
        self._calls: deque[_Call] = deque()  # from the oldest checkpoint on
        self._checkpoints = deque([_Checkpoint(0, None)])
        self._coming: tuple[int, Ref] | None = None
        self._next = 0

    def ask(self, method: str, *args: Any) -> Any:
        """What a call gives that is no part of the stream; asked again where the worker is lost. Raises as
        `Result.get` does."""
        while True:
            with self._lock:
                handle = self._handle
                ref = handle.call(method, *args)
            try:
                made = self._cluster.get(ref)
                self._in_a_row = 0
                return made
            except Lost as error:
                with self._lock:
                    if handle is self._handle:
                        self._replace(error, self._next)

    def begin(self, state: Any = None) -> None:
        """A stream from its beginning, or from a state that `state` gave; of the one before nothing is asked."""
        with self._lock:
            self._next, self._coming = 0, None
            self._calls.clear()
            self._checkpoints = deque([_Checkpoint(0, state)])
            self._handle.call("begin", 0, state)

    def state(self) -> Any:
        """The state after all calls, whose results are to be there."""
        return self.ask("checkpoint")

    def submit(self, method: str, *args: Any) -> Result:
        """The next call; arguments may be results of other stages. It waits only where checkpoints are far behind."""
        with self._lock:
            result = Result(self, self._next)
            call = _Call(self._next, method, args, weakref.ref(result))
            self._calls.append(call)
            self._next += 1
            self._send(call)
            self._look()
            if self._next % self._every == 0 and self._coming is None:
                self._coming = self._next, self._handle.call("checkpoint")
            return result

    def settled(self, result: Result, *, fetch: bool) -> Any:
        """As `Result.get` and `Result.wait`."""
        while True:
            ref = result.ref
            try:
                self._cluster.wait(ref)
                made = self._cluster.get(ref) if fetch else None
                self._in_a_row = 0
                return made
            except Lost as error:
                self._mend(result, ref, error.with_traceback(None))  # which would keep the result alive

    def end(self) -> None:
        """Let the workers go."""
        with self._lock:
            for handle in (self._handle, self._spare):
                if handle is not None:
                    handle.end()

    def _started(self) -> Handle:
        handle = self._cluster.start(self._make)
        handle.call("load")
        return handle

    def _send(self, call: _Call) -> None:
        args = [arg.ref if isinstance(arg, Result) else arg for arg in call.args]
        ref = self._handle.call("run", call.number, call.method, *args)
        result = call.result()
        if result is not None:
            result.ref = ref

    def _look(self) -> None:
        """Take a checkpoint that is there, and forget what is not needed any more."""
        if self._coming is None:
            return
        number, ref = self._coming
        if self._next - number < FAR_BEHIND * self._every and not self._cluster.ready(ref):
            return
        self._coming = None
        try:
            self._checkpoints.append(_Checkpoint(number, self._cluster.get(ref)))
        except Lost:
            return  # found, and mended, by who asks for a result
        needed = min((call.number for call in self._calls if call.result() is not None), default=self._next)
        while len(self._checkpoints) > 1 and self._checkpoints[1].number <= needed:
            self._checkpoints.popleft()
        while self._calls and self._calls[0].number < self._checkpoints[0].number:
            self._calls.popleft()

    def _mend(self, result: Result, ref: Ref, error: Lost) -> None:
        """Have a result that was lost made again: by this worker, where only what it depends on was lost."""
        call = next((call for call in self._calls if call.result() is result), None)
        if call is None:
            raise BackendError(f"{self.name}: another stream was begun meanwhile") from error
        for arg in call.args:
            if isinstance(arg, Result):
                arg.get()
        with self._lock:
            if result.ref is not ref:
                return  # another thread was quicker
            try:
                coming = self._cluster.get(self._handle.call("next"))
            except Lost:
                coming = None
            if coming is None or coming > result.number:
                self._replace(error, result.number)
            else:
                self._count(error)
                self._resend(coming)

    def _replace(self, error: Lost, number: int) -> None:
        """Go on with another worker, from the last checkpoint before call `number`."""
        self.losses += 1
        self._count(error)
        self._told(f"a worker for '{self.name}' was lost; another one goes on")
        self._handle.end()
        self._handle, self._spare = self._spare or self._started(), None
        if self._with_spare:
            self._spare = self._started()
        self._coming = None
        while len(self._checkpoints) > 1 and self._checkpoints[-1].number > number:
            self._checkpoints.pop()
        last = self._checkpoints[-1]
        self._handle.call("begin", last.number, last.state)
        self._resend(last.number)

    def _resend(self, number: int) -> None:
        for call in self._calls:
            if call.number >= number:
                self._send(call)

    def _count(self, error: Lost) -> None:
        self._in_a_row += 1
        if self._in_a_row > MOST_LOSSES:
            raise BackendError(
                f"{self.name}: workers were lost {MOST_LOSSES} times with no result between ({error}); "
                "where memory is short, give them more, or fewer workers to a machine"
            ) from error
