"""Time as a session sees it, and the stages that work beside it: real, or simulated.

A job is work of a stage; a stage does one after another, and stages do not wait for each other. The simulated clock
does a job at once and says that it is done later, so sessions of hours run in seconds, and always in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
Work = Callable[[], Any]


class Job(Protocol):
    """Work under way. `result` waits for it, and raises what it raised; `begun_s` and `ended_s` are of the clock."""

    begun_s: float
    ended_s: float

    def done(self) -> bool: ...

    def result(self) -> Any: ...


class Clock(Protocol):
    """Seconds that only grow, though they may jump."""

    def now(self) -> float: ...

    def submit(self, stage: str, work: Work) -> Job:
        """Have a stage do something."""
        ...

    def wait(self, until_s: float, jobs: Iterable[Job]) -> None:
        """Return at a time, or when one of the jobs is done."""
        ...

    def close(self) -> None:
        """Wait for what is under way, and let the stages go."""
        ...


class _ThreadJob(Generic[T]):
    def __init__(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> None:
        self.begun_s = self.ended_s = 0.0
        self.future: Future[T] = pool.submit(self._run, work)

    def _run(self, work: Callable[[], T]) -> T:
        self.begun_s = time.monotonic()
        try:
            return work()
        finally:
            self.ended_s = time.monotonic()

    def done(self) -> bool:
        return self.future.done()

    def result(self) -> T:
        return self.future.result()


class RealClock:
    """`time.monotonic`, and a thread for each stage."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def now(self) -> float:
        return time.monotonic()

    def submit(self, stage: str, work: Work) -> Job:
        if stage not in self._pools:
            self._pools[stage] = ThreadPoolExecutor(1, f"worldrt-{stage}")
        return _ThreadJob(self._pools[stage], work)

    def wait(self, until_s: float, jobs: Iterable[Job]) -> None:
        futures = [job.future for job in jobs if isinstance(job, _ThreadJob)]
        left_s = max(0.0, until_s - time.monotonic())
        if futures:
            wait(futures, left_s, FIRST_COMPLETED)
        else:
            time.sleep(left_s)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools = {}


class _SimulatedJob:
    def __init__(self, clock: SimulatedClock, begun_s: float, ended_s: float, work: Work) -> None:
        self._clock, self.begun_s, self.ended_s = clock, begun_s, ended_s
        self._value: Any = None
        self._error: Exception | None = None
        try:
            self._value = work()
        except Exception as error:
            self._error = error

    def done(self) -> bool:
        return self._clock.now() >= self.ended_s

    def result(self) -> Any:
        self._clock.advance_to(self.ended_s)
        if self._error is not None:
            raise self._error
        return self._value


class SimulatedClock:
    """Time that passes in `wait` alone. `duration_s(stage)` is how long the next job of a stage takes."""

    def __init__(self, duration_s: Callable[[str], float]) -> None:
        self._duration_s, self._now_s = duration_s, 0.0
        self._free_s: dict[str, float] = {}

    def now(self) -> float:
        return self._now_s

    def advance_to(self, at_s: float) -> None:
        """Let time pass; it never goes back."""
        self._now_s = max(self._now_s, at_s)

    def submit(self, stage: str, work: Work) -> Job:
        begun_s = max(self._now_s, self._free_s.get(stage, 0.0))
        self._free_s[stage] = begun_s + self._duration_s(stage)
        return _SimulatedJob(self, begun_s, self._free_s[stage], work)

    def wait(self, until_s: float, jobs: Iterable[Job]) -> None:
        self.advance_to(min([until_s, *(job.ended_s for job in jobs)]))

    def close(self) -> None:
        """Nothing to let go."""
