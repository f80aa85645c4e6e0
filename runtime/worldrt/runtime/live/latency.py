"""How long frames are on their way: histograms of what the stamps say, in constant memory."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from worldrt.runtime.live.stamps import Stamps

STAGES = {
    "control to bound": ("control", "bound"),
    "queue": ("bound", "denoise_end"),
    "last rows": ("denoise_begin", "denoise_end"),
    "hand-over and decode": ("denoise_end", "decoded"),
    "bound to decoded": ("bound", "decoded"),
    "control to decoded": ("control", "decoded"),
    "guard": ("decoded", "checked"),
    "encode": ("decoded", "encoded"),
    "send": ("encoded", "sent"),
    "control to sent": ("control", "sent"),
}
"""Name of each span, from one stamp to another."""
_LEAST_S, _PER_DECADE, _DECADES = 1e-6, 200, 10


class Histogram:
    """Seconds from 1 us to some hours in steps of 1.2 %; what is less counts as 1 us."""

    def __init__(self) -> None:
        self.counts = np.zeros(_PER_DECADE * _DECADES, np.int64)
        self.most_s = 0.0

    def add(self, seconds: float) -> None:
        place = int(math.log10(max(seconds, _LEAST_S) / _LEAST_S) * _PER_DECADE)
        self.counts[min(place, len(self.counts) - 1)] += 1
        self.most_s = max(self.most_s, seconds)

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def quantile_s(self, q: float) -> float:
        """The upper end of the step in which a quantile lies; nan where there is nothing."""
        if not self.count:
            return math.nan
        place = int(np.searchsorted(self.counts.cumsum(), q * self.count))
        upper_s: float = _LEAST_S * 10.0 ** ((place + 1) / _PER_DECADE)
        return min(upper_s, max(self.most_s, _LEAST_S))


class Latencies:
    """The spans of many frames; may be told from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans = {name: Histogram() for name in STAGES}

    def add(self, stamps: Stamps, names: tuple[str, ...] | None = None) -> None:
        """Count the spans that a frame has passed; of these names alone, where they are given."""
        with self._lock:
            for name in names or STAGES:
                seconds = stamps.between(*STAGES[name])
                if seconds is not None:
                    self._spans[name].add(seconds)

    def passed(self, place: str, stamps: Stamps) -> None:
        """A place has sent a frame: what `open_live` takes as `passed`."""
        self.add(stamps, ("encode", "send", "control to sent"))

    def quantile_s(self, name: str, q: float) -> float:
        """Of one span."""
        with self._lock:
            return self._spans[name].quantile_s(q)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Milliseconds p50, p95, p99 and the most of each span that was passed, and how often."""
        with self._lock:
            return {
                name: {
                    "count": span.count,
                    **{f"p{q}": round(span.quantile_s(q / 100) * 1e3, 3) for q in (50, 95, 99)},
                    "most": round(span.most_s * 1e3, 3),
                }
                for name, span in self._spans.items()
                if span.count
            }
