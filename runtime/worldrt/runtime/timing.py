"""How long each stage of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Timings:
    """Seconds by stage, in the order the stages were first met; a stage that comes again adds to its sum.

    `steps` are the seconds of each step of the stages that count.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict, repr=False)

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

    def count(self, stage: str, done: int) -> None:
        """A stage that counts is at `done`: what went by since it was last told of is a step. 0 begins the stage."""
        now = time.perf_counter()
        if done and stage in self._since:
            self.steps.setdefault(stage, []).append(now - self._since[stage])
        self._since[stage] = now

    def share(self, count: int) -> Timings:
        """What falls to each of `count` results that were made together."""
        return Timings({name: seconds / count for name, seconds in self.seconds.items()})

    def rounded(self) -> dict[str, float]:
        """For reports: microseconds are enough."""
        return {name: round(seconds, 6) for name, seconds in self.seconds.items()}
