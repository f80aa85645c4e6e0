"""No mathematics: right shapes, fixed outputs, and a programmable latency. For tests of scheduling and overhead."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Graph
from worldrt.engine.device import Buffer, Device
from worldrt.engine.plans import Profile
from worldrt.engine.session import Session
from worldrt.engine.weights import WeightStore


def unavailable() -> str | None:
    return None


def open_session(
    path: Path,
    graph: Graph,
    device: Device,
    *,
    weight_root: Path,
    weights: WeightStore | None = None,
    profile: Profile | None = None,
    latency_s: float = 0.0,
    **options: Any,
) -> Session:
    """Outputs keep what their buffers hold; each run sleeps for `latency_s`. The file is not read."""
    return NullSession(graph, device, latency_s)


class NullSession(Session):
    """Counts its runs in `runs`."""

    def __init__(self, graph: Graph, device: Device, latency_s: float) -> None:
        super().__init__(graph, device)
        self.latency_s = latency_s
        self.runs = 0

    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        return self._run

    def _run(self) -> None:
        self.runs += 1
        if self.latency_s:
            time.sleep(self.latency_s)
