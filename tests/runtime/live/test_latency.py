"""Histograms of latency against numpy's quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worldrt.runtime.live.latency import Histogram, Latencies
from worldrt.runtime.live.stamps import Stamps


@pytest.mark.parametrize("scale", (1e-5, 1e-2, 30.0))
@pytest.mark.parametrize("q", (0.5, 0.95, 0.99))
def test_quantiles_are_those_of_the_samples_within_a_step(scale, q):
    samples = np.random.default_rng(0).lognormal(size=2000) * scale
    histogram = Histogram()
    for value in samples:
        histogram.add(float(value))
    assert histogram.quantile_s(q) == pytest.approx(np.quantile(samples, q), rel=0.025)
    assert histogram.most_s == samples.max() and histogram.count == 2000


def test_an_empty_histogram_and_odd_values_do_no_harm():
    histogram = Histogram()
    assert math.isnan(histogram.quantile_s(0.5))
    for value in (-1.0, 0.0, 1e9):
        histogram.add(value)
    assert histogram.count == 3


def test_spans_are_counted_where_both_stamps_are_there():
    latencies = Latencies()
    latencies.add(Stamps(bound=1.0, denoise_begin=1.0, denoise_end=1.5, decoded=2.0))
    latencies.passed("null:", Stamps(control=0.5, decoded=2.0, encoded=2.1, sent=2.2))
    found = latencies.summary()
    assert found["queue"]["p50"] == pytest.approx(500, rel=0.02)
    assert found["control to sent"]["most"] == pytest.approx(1700, rel=0.02)
    assert found["hand-over and decode"]["count"] == 1 and "control to bound" not in found
