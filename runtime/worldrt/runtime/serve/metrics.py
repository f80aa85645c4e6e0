"""What is counted, in the text format of Prometheus."""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from worldrt.runtime.live.stamps import Stamps

BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
RATE_FRAMES = 64


class Metrics:
    """Counters of one server. `frame` is called by the world's thread, the rest by the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        library: Any = importlib.import_module("prometheus_client")
        self._library, self._clock = library, clock
        self._registry = library.CollectorRegistry()
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)
        self._spans: deque[float] = deque(maxlen=RATE_FRAMES)
        self._seen: dict[str, float | None] = {}
        make: dict[str, Any] = {"registry": self._registry}
        self.frames = library.Counter("worldrt_frames", "Frames that the world made", **make)
        self.sent = library.Counter("worldrt_sent_frames", "Frames sent to viewers", **make)
        self.dropped = library.Counter("worldrt_dropped_frames", "Frames not sent to viewers that were slow", **make)
        self.controls = library.Counter("worldrt_controls", "Controls that came in", **make)
        self.coalesced = library.Counter("worldrt_controls_coalesced", "Controls that newer ones replaced", **make)
        self.flooded = library.Counter("worldrt_flood_messages", "Messages beyond what one viewer may send", **make)
        self.commands = library.Counter(
            "worldrt_commands", "What was asked of the world", ["command", "result"], **make
        )
        self.garbage = library.Counter("worldrt_bad_messages", "Messages that could not be understood", **make)
        self.refused = library.Counter("worldrt_refused_connections", "Connections refused", ["reason"], **make)
        self.viewers = library.Gauge("worldrt_viewers", "Who looks on", **make)
        self.state = library.Enum(
            "worldrt_state", "Of the world", states=["loading", "running", "paused", "failed", "ended"], **make
        )
        spans = "From the arrival of a control to this stage of the first frame that shows it"
        self.latency = library.Histogram("worldrt_control_seconds", spans, ["stage"], buckets=BUCKETS_S, **make)
        library.Gauge("worldrt_fps", "Frames per second lately", **make).set_function(self.fps)

    def frame(self, stamps: Stamps) -> None:
        """A frame was made."""
        self.frames.inc()
        self._times.append(self._clock())
        self._since_control(stamps, "decoded")

    def was_sent(self, stamps: Stamps) -> None:
        """A frame was handed to a socket."""
        self.sent.inc()
        self._since_control(stamps, "encoded")
        self._since_control(stamps.at(sent=self._clock()), "sent")

    def latency_ms(self) -> dict[str, float] | None:
        """Quantiles of the latest spans from a control to the sending of its first frame."""
        spans = sorted(self._spans)
        if not spans:
            return None
        return {f"p{q}": round(1000 * spans[min(len(spans) - 1, len(spans) * q // 100)], 1) for q in (50, 95)}

    def fps(self) -> float:
        """Frames per second over the last few dozen; 0 where none came for two seconds."""
        times = tuple(self._times)
        if len(times) < 2 or self._clock() - times[-1] > 2:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-9)

    def text(self) -> bytes:
        """Everything, as /metrics gives it."""
        made: bytes = self._library.generate_latest(self._registry)
        return made

    def _since_control(self, stamps: Stamps, stage: str) -> None:
        """Observe the first frame that answers a control, at each stage; those after it only look older."""
        passed = stamps.between("control", stage)
        if passed is None or self._seen.get(stage) == stamps.control:
            return
        self._seen[stage] = stamps.control
        self.latency.labels(stage).observe(passed)
        if stage == "sent":
            self._spans.append(passed)
