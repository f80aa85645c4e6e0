"""Times to figures: order statistics, and ratios taken round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
"""Of the bootstrap."""


@dataclass(frozen=True)
class Summary:
    """Of some samples; all in the unit of the samples."""

    count: int
    minimum: float
    median: float
    p90: float
    maximum: float
    p95: float
    p99: float


def summarize(samples: Sequence[float]) -> Summary:
    """Raises `ValueError` where there is no sample."""
    median, p90, p95, p99 = (quantile(samples, fraction) for fraction in (0.5, 0.9, 0.95, 0.99))
    return Summary(len(samples), min(samples), median, p90, max(samples), p95, p99)


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


@dataclass(frozen=True)
class Interval:
    """A figure, and the interval that holds 95 of 100 that would have been found in its place."""

    value: float
    low: float
    high: float


def ratio_interval(above: Sequence[float], below: Sequence[float], *, paired: bool = False) -> Interval:
    """The ratio of two medians, by the bootstrap (Efron, Bootstrap methods, 1979; percentiles of the ratios of samples
    drawn with replacement). `paired`: the median of the ratios of rounds, which are drawn as pairs.

    Raises `ValueError` where a side has no sample, or a paired one another number of them.
    """
    if not above or not below or (paired and len(above) != len(below)):
        raise ValueError("a ratio needs samples on both sides, and pairs need as many")
    a, b, draw = np.asarray(above, float), np.asarray(below, float), np.random.default_rng(0)
    if paired:
        each = a / b
        found = np.median(each[draw.integers(len(each), size=(RESAMPLES, len(each)))], axis=1)
        value = float(np.median(each))
    else:
        tops, bottoms = (np.median(x[draw.integers(len(x), size=(RESAMPLES, len(x)))], axis=1) for x in (a, b))
        found, value = tops / bottoms, float(np.median(a) / np.median(b))
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def order(names: Sequence[str], index: int) -> list[str]:
    """Who runs when in round `index`: forwards, then backwards, so that nobody always runs after the same one."""
    return list(names) if index % 2 == 0 else list(reversed(names))
