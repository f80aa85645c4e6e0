"""A world of a bundle in time, for as long as one likes: how late its pictures are, and what grows meanwhile."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.watch import BOUND, COLUMNS, Watch, resident_bytes
from worldrt.runtime.live.encode import AccessUnit
from worldrt.runtime.live.fanout import EndOfStream, Reader
from worldrt.runtime.live.latency import Latencies
from worldrt.runtime.live.pace import Late, PaceOptions
from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models

KEY_S = 0.5
WARM_S = 10.0
"""What grows is counted from then on, or from half of a run that is shorter."""
SAMPLES = 720


@dataclass
class _Course:
    """What is written down while it runs, evenly over the time."""

    every_s: float
    resident_mib: list[float] = field(default_factory=list)
    drift_ms: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)

    def take(self, elapsed_s: float, drift_s: float) -> None:
        if elapsed_s >= len(self.drift_ms) * self.every_s:
            self.resident_mib.append(resident_bytes() / 2**20)
            self.drift_ms.append(drift_s * 1e3)
            self.threads.append(threading.active_count())


def run(
    bundle: Path, scratch: Path, seconds: float, *, size: tuple[int, int] | None, fps: float | None, late: Late
) -> tuple[list[Table], dict[str, list[float]]]:
    """A key every half a second; the pictures go into a file, to a viewer, and nowhere. Drift is how far a picture is
    from the time that its number says, at the rate asked for."""
    world = World(Models.open([bundle]), size=size)
    world.load()
    session = WorldSession(world, pace=PaceOptions(fps or float(world.video.fps), late))
    session.start("a road")
    latencies, keys = Latencies(), random.Random(0)
    for _ in range(16):  # models are warm after that
        session.step()
    course = _Course(max(1.0, seconds / SAMPLES))
    with open_live([str(scratch / "soak.mp4"), "null:"], session.video, encode=True, passed=latencies.passed) as output:
        viewer = output.units.reader(capacity=4, name="viewer")
        looking = threading.Thread(target=_look, args=(viewer,))
        looking.start()
        began_s = time.monotonic()
        watch = Watch(0.0, began_s)
        session.reset()
        first_s, key_s = 0.0, 0.0
        while (now_s := time.monotonic()) < began_s + seconds:
            if now_s >= key_s:
                session.control(keys.choice(world.controls))
                key_s = now_s + KEY_S
            for frame in session.step():
                now_s = time.monotonic()
                first_s = first_s or now_s
                watch.take(frame, now_s, session.pacer.period_s)
                latencies.add(frame.stamps)
                output.put(frame)
                course.take(now_s - began_s, now_s - first_s - frame.index * (1 / session.video.fps))
    looking.join()
    session.stop()
    watch.row_s = latencies.quantile_s("last rows", 0.5)
    watch.decode_s = latencies.quantile_s("hand-over and decode", 0.5)
    spans = ", ".join(f"{name} p50 {span['p50']} p95 {span['p95']} ms" for name, span in latencies.summary().items())
    row = watch.row(bundle.name, session, world.recipe.plan)
    kept = _kept(course, session, viewer, time.monotonic() - began_s)
    return [Table("From a control to its picture, in time", COLUMNS, (row,), (BOUND, spans)), kept], {
        "resident_MiB": course.resident_mib,
        "drift_ms": course.drift_ms,
        "threads": course.threads,
    }


def _kept(course: _Course, session: WorldSession, viewer: Reader[AccessUnit], seconds: float) -> Table:
    warm = min(round(WARM_S / course.every_s) + 1, len(course.resident_mib) // 2)
    resident = course.resident_mib[warm:]
    columns = (
        "minutes",
        "fps",
        "drift_end_ms",
        "drift_most_ms",
        "jumps",
        "warm_MiB",
        "end_MiB",
        "most_MiB",
        "viewer_lost",
    )
    row = (
        round(seconds / 60, 2),
        session.video.fps,
        round(course.drift_ms[-1], 1),
        round(max(map(abs, course.drift_ms)), 1),
        session.pacer.jumps,
        round(resident[0], 1),
        round(resident[-1], 1),
        round(max(resident), 1),
        viewer.dropped,
    )
    note = f"threads: {course.threads[0]:.0f} at the beginning, {course.threads[-1]:.0f} at the end."
    return Table("What a long run keeps", columns, (row,), (note,))


def _look(viewer: Reader[AccessUnit]) -> None:
    with suppress(EndOfStream):
        while True:
            viewer.get()
