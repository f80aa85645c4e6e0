"""Times to figures: order statistics, and ratios taken round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Of some samples; all in the unit of the samples."""

    count: int
    minimum: float
    median: float
    p90: float
    maximum: float


def summarize(samples: Sequence[float]) -> Summary:
    """Raises `ValueError` where there is no sample."""
    median = quantile(samples, 0.5)
    return Summary(len(samples), min(samples), median, quantile(samples, 0.9), max(samples))


def quantile(samples: Sequence[float], fraction: float) -> float:
    """Linear between the two nearest ranks (Hyndman and Fan, Sample quantiles, 1996, definition 7)."""
    if not samples:
        raise ValueError("a quantile needs at least one sample")
    ordered = sorted(samples)
    rank = fraction * (len(ordered) - 1)
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return below + (above - below) * (rank - math.floor(rank))


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Summary:
    """slow / fast of each round: what drifts over minutes falls out, as both sides of a round ran close in time.

    Raises `ValueError` where the sides have not the same number of rounds.
    """
    return summarize([a / b for a, b in zip(slow, fast, strict=True)])


def order(names: Sequence[str], index: int) -> list[str]:
    """Who runs when in round `index`: forwards, then backwards, so that nobody always runs after the same one."""
    return list(names) if index % 2 == 0 else list(reversed(names))
