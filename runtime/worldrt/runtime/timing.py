"""How long each stage of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Timings:
    """Seconds by stage, in the order the stages were first met; a stage that comes again adds to its sum."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a `with` block, also one that ends in an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def rounded(self) -> dict[str, float]:
        """For reports: microseconds are enough."""
        return {name: round(seconds, 6) for name, seconds in self.seconds.items()}


def mean(runs: list[Timings]) -> Timings:
    """The mean of each stage over some runs of the same work."""
    return Timings({name: sum(run.seconds.get(name, 0.0) for run in runs) / len(runs) for name in runs[0].seconds})
