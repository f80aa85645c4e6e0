"""`trt-bench stream` on a simulated clock: what stages take is given, and all that is left is the session itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.watch import COLUMNS, FPS, PICTURES, Watch, resident_bytes
from worldrt.runtime.live.clock import SimulatedClock
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
SPREAD = 0.1
"""What stages take varies by so much, evenly."""
Samples = dict[str, list[float]]


def run(frames: int, say: Callable[[str], None]) -> tuple[list[Table], Samples]:
    """`frames` on the simulated clock in each case. Raises `BackendError` where an invariant is broken."""
    rows, costs = [], []
    for case, stages in STAGES.items():
        say(f"simulated, {case}")
        row, cost = _simulated(case, stages, frames)
        rows.append(row)
        costs.append(cost)
    spread = f"A row of the queue and a decode take their given time, more or less by {SPREAD:.0%}."
    bound = "bound_ms: what the schedule itself costs, where rows come with the pictures of a latent."
    tables = [
        Table("From a control to its picture, on a simulated clock", COLUMNS, tuple(rows), (spread, bound)),
        Table(
            "What the session adds, of this machine's time",
            ("case", "p50_us", "p95_us", "p99_us", "grown_MiB"),
            tuple(costs),
            ("Per frame: rows of a model that does nothing, binding, decoding, pacing.",),
        ),
    ]
    return tables, {}


def _simulated(case: str, stages: Mapping[str, float], frames: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    drawn = random.Random(0)
    clock = SimulatedClock(lambda stage: stages[stage] * drawn.uniform(1 - SPREAD, 1 + SPREAD))
    model = _Idle()
    session = WorldSession(model, clock=clock, pace=PaceOptions(FPS))
    session.start("")
    watch, own = Watch(stages["denoise"]), Histogram()
    before = next_key = 0
    while watch.frames < frames:
        if watch.frames >= next_key:
            session.control(drawn.choice(VOCABULARY))
            next_key += drawn.randrange(20, 60)
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


class _Idle(LiveModel):
    """A world whose model does nothing, under the schedule of The Matrix's fourth stage."""

    video = VideoFormat(2, 2, FPS)
    controls: Sequence[str] = VOCABULARY
    frames_at_once = PICTURES
    schedule: Schedule = methods.swin_dpm(4, 4, 1)

    def __init__(self) -> None:
        self.plan, self._table = Plan(self.schedule), phased_ddim(4, 4)

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
