"""What `trt-bench stream` looks at in each frame of a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldrt.engine.errors import BackendError
from worldrt.runtime.live.latency import Histogram
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.schedule.cost import latency_s
from worldrt.runtime.schedule.plan import Plan

FPS, PICTURES = 16, 4
COLUMNS = (
    *("case", "frames", "p50_ms", "p95_ms", "p99_ms", "bound_ms", "p95_over_ms"),
    *("jitter_p95_ms", "late", "dropped", "first_ms"),
)
BOUND = "bound_ms: the mean of what the schedule costs, where rows come with the pictures of a latent, and a decode."


class Watch:
    """Looks at each frame that comes. Raises `BackendError` for one that is out of order, early, or from the future."""

    def __init__(self, row_s: float, began_s: float = 0.0, decode_s: float = 0.0) -> None:
        self.frames, self.row_s, self.decode_s, self.first_s, self._began_s = 0, row_s, decode_s, 0.0, began_s
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
        """A row of `COLUMNS`."""
        bound_ms = round((latency_s(plan, self.row_s, FPS / PICTURES) + self.decode_s) * 1e3, 1)
        photon = [round(self._photon.quantile_s(q) * 1e3, 1) for q in (0.5, 0.95, 0.99)]
        jitter_ms = round(self._jitter.quantile_s(0.95) * 1e3, 2)
        late, first_ms = session.pacer.late, round(self.first_s * 1e3, 1)
        over_ms = round(photon[1] - bound_ms, 1)
        return case, self.frames, *photon, bound_ms, over_ms, jitter_ms, late, session.dropped, first_ms


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
