"""The measure of change that step caching decides by, against numpy in float64."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from worldrt.engine.device import HostDevice, host_buffer
from worldrt.runtime import change
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.change import Change

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def hidden(values, dtype):
    rounded = values.astype(TYPES[dtype])
    return host_buffer(rounded.view(np.uint16) if dtype == "bfloat16" else rounded, dtype), rounded.astype(np.float64)


def bound(first, second, clips=1):
    whole = {"pieces": partial(BoundDenoiser.pieces, None), "summed": partial(BoundDenoiser.summed, None)}
    return SimpleNamespace(device=HostDevice(), clips=clips, blocks=None, hidden=(first, second), **whole)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_change_is_that_of_what_the_first_block_adds(dtype):
    """For the prompts, the first half of the batch, and the largest of the clips."""
    rng = np.random.default_rng(0)
    made = [hidden(rng.standard_normal((4, 3, 10, 8)), dtype) for _ in range(4)]
    measure = Change(bound(made[0][0], made[1][0], clips=2), np.ones(2))
    assert measure.since_kept(0) == np.inf
    measure.keep()
    measure._bound = bound(made[2][0], made[3][0], clips=2)
    before, now = made[1][1] - made[0][1], made[3][1] - made[2][1]
    expected = max(np.abs(now[i] - before[i]).mean() / np.abs(before[i]).mean() for i in range(2))
    assert measure.since_kept(1) == pytest.approx(expected, rel=1e-5)


def test_a_sample_of_tokens_is_taken_of_every_frame(monkeypatch):
    """The same ones each time, and other places in other frames."""
    monkeypatch.setattr(change, "SAMPLED", 3 * 2 * 8)
    values = np.arange(3 * 10, dtype=np.float32)[:, None].repeat(8, 1).reshape(1, 3, 10, 8)
    measure = Change(bound(host_buffer(np.zeros_like(values)), host_buffer(values)), np.ones(2))
    taken = measure._measure(0)[0].reshape(3, 2, 8)[:, :, 0]
    assert np.array_equal(taken[:, 1] - taken[:, 0], np.ones(3)) and np.array_equal(taken[:, 0] // 10, [0, 1, 2])
    assert len(set(taken[:, 0] % 10)) == 3
    assert np.array_equal(measure._measure(1), measure._measure(0))


def test_nothing_kept_or_nothing_there_is_never_a_small_change():
    zeros, ones = host_buffer(np.zeros((1, 1, 2, 4), np.float32)), host_buffer(np.ones((1, 1, 2, 4), np.float32))
    measure = Change(bound(zeros, zeros), np.ones(2))
    measure.since_kept(0)
    measure.keep()
    assert not measure.since_kept(1) < 10
    measure._bound = bound(zeros, ones)
    assert measure.since_kept(1) == np.inf
