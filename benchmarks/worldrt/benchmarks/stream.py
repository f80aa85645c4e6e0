"""`trt-bench stream`: from a control to its picture. On a simulated clock, where what stages take is given and all that
is left is the session itself; and, with a bundle, in time on this machine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.engine.errors import BackendError
from worldrt.runtime.live.clock import SimulatedClock
from worldrt.runtime.live.controls import VOCABULARY
from worldrt.runtime.live.latency import Histogram, Latencies
from worldrt.runtime.live.model import Array, Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.samplers_vp import phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.cost import latency_s
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.sinks.base import VideoFormat

SHAPE = (1, 2, 2, 2)
FPS, PICTURES = 16, 4
STAGES = {
    "half the time": {"denoise": 0.08, "decode": 0.05, "text": 0.3},
    "just enough": {"denoise": 0.20, "decode": 0.18, "text": 0.3},
    "too slow": {"denoise": 0.40, "decode": 0.30, "text": 0.3},
}
SPREAD = 0.1
"""What stages take varies by so much, evenly."""
COLUMNS = ("case", "frames", "p50_ms", "p95_ms", "p99_ms", "bound_ms", "jitter_p95_ms", "late", "dropped", "first_ms")
Samples = dict[str, list[float]]


def run(frames: int, bundle: Path | None, seconds: float, say: Callable[[str], None]) -> tuple[list[Table], Samples]:
    """`frames` on the simulated clock in each case, and so many seconds of the bundle. Raises `BackendError` where an
    invariant is broken."""
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
    if bundle is not None:
        say("in time")
        tables.append(_real(bundle, seconds))
    return tables, {}


def _simulated(case: str, stages: Mapping[str, float], frames: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    drawn = random.Random(0)
    clock = SimulatedClock(lambda stage: stages[stage] * drawn.uniform(1 - SPREAD, 1 + SPREAD))
    model = _Idle()
    session = WorldSession(model, clock=clock, pace=PaceOptions(FPS))
    session.start("")
    watch, own = _Watch(stages["denoise"]), Histogram()
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
            before = _resident_bytes()
    grown = (_resident_bytes() - before) / 2**20
    microseconds = [round(own.quantile_s(q) * 1e6, 1) for q in (0.5, 0.95, 0.99)]
    return watch.row(case, session, model.plan), (case, *microseconds, round(grown, 2))


def _real(bundle: Path, seconds: float) -> Table:
    """A bundle in time, with a key every half a second and a sink that takes pictures and throws them away."""
    world = World(Models.open([bundle]))
    world.load()
    session = WorldSession(world)
    session.start("a road")
    rows = Latencies()
    keys = random.Random(0)
    with open_live(["null:"], session.video, passed=rows.passed) as output:
        for _ in range(16):  # models are warm after that
            session.step()
        watch = _Watch(0.0, time.monotonic())
        session.reset()
        until_s, key_s = time.monotonic() + seconds, 0.0
        while (now_s := time.monotonic()) < until_s:
            if now_s >= key_s:
                session.control(keys.choice(world.controls))
                key_s = now_s + 0.5
            for frame in session.step():
                watch.take(frame, time.monotonic(), session.pacer.period_s)
                rows.add(frame.stamps)
                output.put(frame)
    session.stop()
    watch.row_s = rows.quantile_s("last rows", 0.5)
    note = ", ".join(f"{name} p50 {span['p50']} p95 {span['p95']} ms" for name, span in rows.summary().items())
    row = watch.row(bundle.name, session, world.recipe.plan)
    return Table("From a control to its picture, in time", COLUMNS, (row,), (note,))


class _Watch:
    """Looks at each frame that comes. Raises `BackendError` for one that is out of order, early, or from the future."""

    def __init__(self, row_s: float, began_s: float = 0.0) -> None:
        self.frames, self.row_s, self.first_s, self._began_s = 0, row_s, 0.0, began_s
        self._photon, self._jitter = Histogram(), Histogram()
        self._index, self._last_s, self._seen_s = -1, 0.0, -1.0

    def take(self, frame: LiveFrame, now_s: float, period_s: float) -> None:
        order = frame.stamps.passed()
        if frame.index <= self._index or list(order.values()) != sorted(order.values()) or now_s < self._last_s:
            raise BackendError(f"frame {frame.index}: out of order after {self._index}, or its stamps are: {order}")
        if self.frames == 0:
            self.first_s = now_s - self._began_s
        else:
            self._jitter.add(abs(now_s - self._last_s - period_s))
        pressed_s = frame.stamps.control
        if pressed_s is not None and pressed_s != self._seen_s:
            self._seen_s = pressed_s  # the first picture that answers
            self._photon.add(now_s - pressed_s)
        self._index, self._last_s, self.frames = frame.index, now_s, self.frames + 1

    def row(self, case: str, session: WorldSession, plan: Plan) -> tuple[Any, ...]:
        bound_s = latency_s(plan, self.row_s, FPS / PICTURES)
        photon = [round(self._photon.quantile_s(q) * 1e3, 1) for q in (0.5, 0.95, 0.99)]
        jitter_ms = round(self._jitter.quantile_s(0.95) * 1e3, 2)
        late, first_ms = session.pacer.late, round(self.first_s * 1e3, 1)
        return case, self.frames, *photon, round(bound_s * 1e3, 1), jitter_ms, late, session.dropped, first_ms


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


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
