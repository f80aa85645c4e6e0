"""This process among those of a run, and its communication with them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

from worldrt.engine import plugin
from worldrt.engine.cuda import CudaDevice, Event
from worldrt.engine.device import Device
from worldrt.engine.errors import BackendError, RankError
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.mesh import Mesh, mesh
from worldrt.runtime.parallel.share import Share
from worldrt.runtime.parallel.wire import Arrays

COMMUNICATORS = "worldrt.runtime.parallel.communicators"
Mode = Literal["gather", "ulysses", "native"]


class Ranks:
    """`control` holds the processes together; `cfg` and `context` are the numbers asked for, None where they are to be
    chosen; `mode` is how ranks that share the frames attend to those of all."""

    def __init__(
        self, control: Control, *, cfg: int | None = None, context: int | None = None, mode: Mode = "gather"
    ) -> None:
        self.control, self.mode = control, mode
        self.axis: str | None = None
        """What ranks share of a model that knows views: `frames` or `views`; None where it is to be chosen."""
        self._cfg, self._context = cfg, context
        self._everyone: Communicator | None = None
        self._groups: dict[tuple[int, ...], Communicator] = {}
        self._given: deque[tuple[float, Event]] = deque()
        self._watched = False
        self.turn = threading.RLock()
        """Held by the thread of rank 0 that orders something and does its own part of it."""

    @property
    def rank(self) -> int:
        return self.control.rank

    @property
    def size(self) -> int:
        return self.control.size

    def mesh(self, *, guided: bool) -> Mesh:
        """How the work of a clip is shared."""
        return mesh(self.size, guided=guided, cfg=self._cfg, context=self._context)

    def share(self, total: int, *, guided: bool, whole: bool = False) -> Share:
        """This rank's part of a clip of `total` frames; `whole`: all ranks of a group do the same."""
        chosen = self.mesh(guided=guided)
        group, part = chosen.place(self.rank)
        return Share(0, 1, total, group) if whole else Share(part, chosen.context, total, group)

    def open(self, device: Device) -> None:
        """Open the communication of all; every rank does so before the first `among`."""
        if self._everyone is None:
            with self.loading():
                self._everyone = open_communicator(self.control, device)

    def take(self, everyone: Communicator) -> None:
        """Have a communication of all that is open already."""
        self._everyone = everyone

    def among(self, members: Sequence[int]) -> Communicator:
        """The communication of some ranks. All of them come here, every rank in the same order."""
        key = tuple(members)
        assert self._everyone is not None
        if key == self._everyone.members:
            return self._everyone
        if key not in self._groups:
            with self.loading():
                self._groups[key] = self._everyone.group(key)
        return self._groups[key]

    @property
    def communicators(self) -> tuple[Communicator, ...]:
        """All that are open."""
        return tuple(c for c in (self._everyone, *self._groups.values()) if c is not None)

    def order(self, message: Mapping[str, Any], arrays: Arrays) -> None:
        """On rank 0: have all others do something."""
        if isinstance(self.control, Host):
            self.control.order(message, arrays)

    @contextmanager
    def rows(self, device: Device) -> Iterator[Callable[[], None]]:
        """While the rows of a sampler's table are done. What is given is called after each: the first row takes as long
        as it takes; from then on a rank that does not come is missed."""
        progress, first = self.control.progress, True
        self._given.clear()
        if self._watched:
            progress.unready()
            self._watched = False

        def done() -> None:
            nonlocal first
            self.control.check()
            if isinstance(device, CudaDevice):
                self._mark(device)
            if first:
                progress.ready()
            first = False

        try:
            yield done
        finally:
            if not first:
                progress.unready()

    @contextmanager
    def window(self, device: Device, *, known: bool) -> Iterator[Callable[[], None]]:
        """While a window of a stream is evaluated. What is given is called when its work was given to the device. The
        first one of a kind, which is not `known`, takes as long as it takes; from then on, between windows too, a rank
        that does not come is missed. An error is that of all ranks, since the others are left in the middle."""
        progress = self.control.progress

        def done() -> None:
            self.control.check()
            if isinstance(device, CudaDevice):
                self._mark(device)

        with nullcontext() if known else progress.busy():
            try:
                yield done
            except RankError:
                raise
            except Exception as error:
                self.control.fail(f"rank {self.rank}: {' '.join(str(error).split()) or type(error).__name__}")
                raise
        if not self._watched:
            progress.ready()
            self._watched = True

    def loading(self) -> AbstractContextManager[None]:
        """While models are loaded or ranks find each other, which takes as long as it takes."""
        return self.control.progress.busy()

    def _mark(self, device: CudaDevice) -> None:
        """The device is as far as this when the event is reached; how long that takes is told to the others."""
        event = device.event()
        event.record(device.stream)
        self._given.append((time.monotonic(), event))
        self.control.progress.enter()
        self.control.progress.leave()
        self.control.progress.device_waits = self._device_waits

    def _device_waits(self) -> float:
        while self._given and self._given[0][1].reached:
            self._given.popleft()
        return time.monotonic() - self._given[0][0] if self._given else 0.0

    def close(self, *, failed: bool = False) -> None:
        """Free the communication."""
        for communicator in self.communicators:
            communicator.close(failed=failed)
        self._groups, self._everyone = {}, None


class Alone:
    """A process that shares its work with none."""

    rank = 0

    def order(self, message: Mapping[str, Any], arrays: Arrays) -> None:
        """There is nobody to order."""

    @contextmanager
    def rows(self, device: Device) -> Iterator[Callable[[], None]]:
        """There is nobody to miss."""
        yield lambda: None


def open_communicator(control: Control, device: Device) -> Communicator:
    """Of all ranks, by the best way that this machine has. Raises `BackendError` that says what to install."""
    several = ["gloo"] if device.name == "cpu" else ["nccl", "torch_nccl"]
    names = several if control.size > 1 else ["single"]
    reasons = []
    for name in names:
        module = plugin.load(COMMUNICATORS, name)
        reason = module.unavailable()
        if reason is None:
            made: Communicator = module.open(control, device)
            return made
        reasons.append(reason)
    raise BackendError("; or ".join(reasons))
