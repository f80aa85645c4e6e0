"""A step as one CUDA graph: captured once for each set of shapes and addresses, then only launched.

    steps = StepGraphs(device, mode="auto")
    steps.run(key, body)       # the first time: runs `body`, which warms everything up
    steps.run(key, body)       # the second time: captures `body` and launches the graph; from then on only launches

A captured step keeps addresses and shapes; values in device memory may change between launches. `key` says everything
that the graph depends on; another key is another graph.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Literal

from worldrt.engine.cuda import CudaDevice, Event

Mode = Literal["auto", "on", "off"]
KEPT = 4
WORTH = 0.01  # of a step's time on the device, spent by the host in giving it its work
_log = logging.getLogger(__name__)


class StepGraphs:
    """The graphs of one body of work on one device.

    `refusal` says why the work cannot be captured, or None. `auto` captures unless there is a refusal, or the host
    spends less than `WORTH` of the step's time on it, measured once; `on` warns of a refusal; `off` never captures.
    A capture that fails is warned of once, and the work goes on without.
    """

    def __init__(
        self, device: CudaDevice, *, mode: Mode = "auto", refusal: Callable[[], str | None] = lambda: None
    ) -> None:
        self._device, self._mode, self._refusal = device, mode, refusal
        self._graphs: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._timing: tuple[Event, Event, float] | None = None
        self.off = "switched off" if mode == "off" else None  # why nothing is captured

    def run(self, key: Hashable, body: Callable[[], None]) -> None:
        """Do `body` on the device's stream. Raises what `body` raises when it is run and not launched."""
        graph = self._graphs.get(key)
        if graph is not None:
            self._graphs.move_to_end(key)
            graph.launch()
        elif self.off is not None:
            body()
        elif key not in self._graphs:
            body()
            self._keep(key, None)
        elif self._worth(body):
            self._capture(key, body)

    def _worth(self, body: Callable[[], None]) -> bool:
        """Whether to capture now; else the body has been run. One run is timed, and looked at without waiting."""
        reason = self._refusal()
        if reason is not None:
            self._give_up(reason, logging.WARNING if self._mode == "on" else logging.INFO)
            body()
            return False
        if self._mode == "on":
            return True
        if self._timing is None:
            self._timing = self._timed(body)
            return False
        start, end, host_ms = self._timing
        if not end.reached:
            body()  # the host is ahead of the device: nothing is lost
            return False
        if host_ms < WORTH * end.ms_since(start):
            self._give_up(f"the host needs {host_ms:.2f} ms of {end.ms_since(start):.0f} ms per step", logging.INFO)
            body()
            return False
        return True

    def _timed(self, body: Callable[[], None]) -> tuple[Event, Event, float]:
        start, end = self._device.event(timed=True), self._device.event(timed=True)
        begun = time.perf_counter()
        start.record(self._device.stream)
        body()
        host_ms = 1e3 * (time.perf_counter() - begun)
        end.record(self._device.stream)
        return start, end, host_ms

    def _capture(self, key: Hashable, body: Callable[[], None]) -> None:
        graph, problem = None, None
        try:
            graph = _captured(self._device, body)
        except Exception as error:
            problem = f"the capture failed: {error}"
        problem = self._agreed(problem)
        if graph is not None and problem is None:
            try:
                graph.launch()  # the first launch takes memory on the device
            except Exception as error:
                problem = f"the first launch failed: {error}"
        if graph is None or problem is not None:
            self._give_up(problem or "", logging.WARNING)
            body()
        else:
            self._keep(key, graph)

    def _agreed(self, problem: str | None) -> str | None:
        """What stands in the way of a capture, here or in another process that must do the same."""
        return problem

    def _keep(self, key: Hashable, graph: _Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        while len(self._graphs) > KEPT:
            self._graphs.popitem(last=False)

    def _give_up(self, reason: str, level: int) -> None:
        self.off = reason
        _log.log(level, "%s: steps run without a CUDA graph: %s", self._device.name, reason)


class _Graph:
    """A captured step that can be launched. It ends its current launch before it goes."""

    def __init__(self, device: CudaDevice, handle: object) -> None:
        self._device, self._handle = device, handle

    def launch(self) -> None:
        self._device.call("cudaGraphLaunch", self._handle, self._device.stream)

    def __del__(self) -> None:
        self._device.destroy("cudaGraphExecDestroy", self._handle)


def _captured(device: CudaDevice, body: Callable[[], None]) -> _Graph:
    """Record `body`. Whatever fails, the stream takes work again when this returns.

    Nothing may free device memory meanwhile: no garbage is collected, and buffers that go wait for the end.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with device.no_frees():
            device.begin_capture()
            try:
                body()
            except BaseException:
                device.abandon_capture()
                raise
            graph = device.end_capture()
    finally:
        if collects:
            gc.enable()
    try:
        return _Graph(device, device.call("cudaGraphInstantiate", graph, 0))
    finally:
        device.destroy("cudaGraphDestroy", graph)
