"""What the parts share: the device, and how time is taken on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import summarize

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Setup:
    """`device` is cpu or cuda. `bundle` is for the parts that need one."""

    device: str
    rounds: int
    bundle: Path | None = None

    @property
    def dry(self) -> bool:
        """Whether this only shows that the code runs: shapes are tiny."""
        return self.device == "cpu"


class Part(Protocol):
    """What a module here holds. Anything it raises ends this part, and is printed."""

    def run(self, setup: Setup) -> tuple[list[Table], Samples]: ...


def timed(setup: Setup, call: Callable[[], object], warmups: int = 3) -> list[float]:
    """Seconds of single calls: by CUDA events on the current stream, by the clock on the CPU."""
    for _ in range(warmups):
        call()
    if setup.dry:
        return [_clocked(call) for _ in range(setup.rounds)]
    event: Any = torch.cuda.Event
    pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(setup.rounds)]
    torch.cuda.synchronize()
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def row(samples: list[float]) -> tuple[float, float, float]:
    """min, median and p90 in milliseconds."""
    s = summarize([1e3 * value for value in samples])
    return s.minimum, s.median, s.p90


def relative_error(actual: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest difference over the largest value, in float64."""
    a, r = actual.double().cpu(), reference.double().cpu()
    return float((a - r).abs().max() / r.abs().max())


def _clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
