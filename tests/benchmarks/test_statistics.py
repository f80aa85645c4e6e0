"""Figures against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrt.benchmarks.statistics import order, quantile, ratios, summarize

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)


@given(times, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(samples, fraction):
    assert quantile(samples, fraction) == pytest.approx(float(np.quantile(samples, fraction)), rel=1e-9)


@given(times)
def test_a_summary_is_that_of_numpy(samples):
    s = summarize(samples)
    expected = (len(samples), np.min(samples), np.median(samples), np.quantile(samples, 0.9), np.max(samples))
    assert (s.count, s.minimum, s.median, s.p90, s.maximum) == pytest.approx(expected, rel=1e-9)


def test_ratios_are_taken_within_a_round():
    slow, fast = [2.0, 8.0, 9.0], [1.0, 2.0, 9.0]
    s = ratios(slow, fast)
    assert (s.minimum, s.median, s.maximum) == (1.0, 2.0, 4.0)
    with pytest.raises(ValueError):
        ratios([1.0, 2.0], [1.0])


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


def test_every_second_round_runs_backwards():
    assert [order("abc", i) for i in range(3)] == [list("abc"), list("cba"), list("abc")]
