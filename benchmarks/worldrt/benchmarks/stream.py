"""`trt-bench stream` on a simulated clock: what stages take is given, and all that is left is the session itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.watch import BOUND, COLUMNS, FPS, PICTURES, Watch, resident_bytes
from worldrt.runtime.live.clock import Job, SimulatedClock
from worldrt.runtime.live.controls import VOCABULARY
from worldrt.runtime.live.latency import Histogram
from worldrt.runtime.live.model import Array, Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.samplers_vp import phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.sinks.base import VideoFormat

SHAPE = (1, 2, 2, 2)
STAGES = {
    "half the time": {"denoise": 0.08, "decode": 0.05, "text": 0.3},
    "just enough": {"denoise": 0.20, "decode": 0.18, "text": 0.3},
    "too slow": {"denoise": 0.40, "decode": 0.30, "text": 0.3},
}
CASES: dict[str, tuple[str, int | None]] = {name: (name, None) for name in STAGES} | {
    f"half the time, bound late to level {level}": ("half the time", level) for level in (3, 2, 1)
}
SPREAD = 0.1
"""What stages take varies by so much, evenly."""
KEYS_S = 1.25, 3.75
"""From a key to the next one."""
Samples = dict[str, list[float]]


def run(frames: int, say: Callable[[str], None], cases: Sequence[str] = ()) -> tuple[list[Table], Samples]:
    """`frames` on the simulated clock in each case. Raises `BackendError` where an invariant is broken."""
    rows, costs = [], []
    for case in cases or CASES:
        say(f"simulated, {case}")
        row, cost = _simulated(case, frames)
        rows.append(row)
        costs.append(cost)
    spread = f"A row of the queue and a decode take their given time, more or less by {SPREAD:.0%}."
    tables = [
        Table("From a control to its picture, on a simulated clock", COLUMNS, tuple(rows), (spread, BOUND)),
        Table(
            "What the session adds, of this machine's time",
            ("case", "p50_us", "p95_us", "p99_us", "grown_MiB"),
            tuple(costs),
            ("Per frame: rows of a model that does nothing, binding, decoding, pacing.",),
        ),
    ]
    return tables, {}


def _simulated(case: str, frames: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    name, level = CASES[case]
    stages, drawn = STAGES[name], random.Random(0)
    clock = _Pressing(lambda stage: stages[stage] * drawn.uniform(1 - SPREAD, 1 + SPREAD))
    model = _Idle(level)
    session = WorldSession(model, clock=clock, pace=PaceOptions(FPS))
    session.start("")
    clock.press = lambda: session.control(drawn.choice(VOCABULARY))
    watch, own = Watch(stages["denoise"], decode_s=stages["decode"]), Histogram()
    before = 0
    while watch.frames < frames:
        began = time.perf_counter()
        found = session.step()
        own.add(time.perf_counter() - began)
        for frame in found:
            watch.take(frame, clock.now(), session.pacer.period_s)
        if watch.frames == frames // 10:
            before = resident_bytes()
    grown = (resident_bytes() - before) / 2**20
    microseconds = [round(own.quantile_s(q) * 1e6, 1) for q in (0.5, 0.95, 0.99)]
    return watch.row(case, session, model.plan), (case, *microseconds, round(grown, 2))


class _Pressing(SimulatedClock):
    """A clock on which keys are pressed at any time, not when frames come."""

    def __init__(self, duration_s: Callable[[str], float]) -> None:
        super().__init__(duration_s)
        self.press: Callable[[], None] = lambda: None
        self._drawn, self._key_s = random.Random(1), KEYS_S[0]

    def wait(self, until_s: float, jobs: Iterable[Job]) -> None:
        until_s = min([until_s, *(job.ended_s for job in jobs)])
        while self._key_s <= until_s:
            self.advance_to(self._key_s)
            self.press()
            self._key_s += self._drawn.uniform(*KEYS_S)
        self.advance_to(until_s)


class _Idle(LiveModel):
    """A world whose model does nothing, under the schedule of The Matrix's fourth stage."""

    video = VideoFormat(2, 2, FPS)
    controls: Sequence[str] = VOCABULARY
    frames_at_once = PICTURES

    def __init__(self, commit_level: int | None = None) -> None:
        schedule = replace(methods.swin_dpm(4, 4, 1), commit_level=commit_level)
        self.plan, self._table = Plan(schedule), phased_ddim(4, 4)

    @property
    def schedule(self) -> Schedule:
        return self.plan.schedule

    def facts(self) -> Mapping[str, Any]:
        return {}

    def check(self, prompt: str) -> None:
        """Every prompt will do."""

    def encode(self, prompt: str) -> Any:
        return None

    def condition(self, control: str) -> Mapping[str, Array]:
        return {}

    def queue(self, told: Told, feed: Feed, seed: int) -> Queue:
        return Queue(self.plan, self._table, lambda x, level, conditions: x, SHAPE, feed=feed, seed=seed)

    def first(self, told: Told, seed: int, base: Sequence[str]) -> Float32 | None:
        return np.zeros((1, SHAPE[1], 5, *SHAPE[2:]), np.float32)

    def decoder(self) -> LatentDecoder:
        return _Pictures()


class _Pictures:
    """The same picture again and again."""

    def __init__(self) -> None:
        self._picture: Picture = np.zeros((2, 2, 3), np.uint8)

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Picture]:
        for _ in range(PICTURES * latents_BCTHW.shape[2]):
            yield self._picture

    def state(self) -> Any:
        return None

    def restore(self, state: Any) -> None:
        """There is nothing to go on from."""
