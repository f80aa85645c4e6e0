"""Noise by counter: against the formula in float64, and the same bits of every implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from worldrt.kernels import _library, _numpy, counter_normal, cuda

COUNTERS = np.array([(0, 1, 0, 0), (1, 999, 10**12, 5), (2, 2**40, -3, 2**31)], np.int64)
SEED = 2**32 - 1


def formula(words: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.float64]:
    """By the mathematical library."""
    radius = np.array([math.sqrt(-2 * math.log(((int(w) >> 32) + 0.5) / 2**32)) for w in words])
    angle = np.array([2 * math.pi * ((int(w) % 2**32) + 0.5) / 2**32 for w in words])
    values: npt.NDArray[np.float64] = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
    return values[:count]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 1023, 4096])
def test_values_are_those_of_numpys_words(implementation: Any, count: int) -> None:
    made = counter_normal(np.full((3, count), 7, np.float32), COUNTERS, seed=SEED)
    for row, (use, *counter) in zip(made, COUNTERS.tolist(), strict=True):
        start = np.array([0, *(part % 2**64 for part in counter)], np.uint64)
        words = np.random.Philox(counter=start, key=np.array([SEED, use], np.uint64)).random_raw(-(-count // 2))
        expected = formula(words, len(words) * 2)
        kept = np.concatenate((expected[: len(words)], expected[len(words) : count]))
        np.testing.assert_allclose(row, kept, rtol=1e-7)


def extremes() -> npt.NDArray[np.uint64]:
    """The ends of the range, the borders of powers of two and of eighths of a turn, and their neighbours."""
    borders = [k << shift for shift in range(33) for k in range(1, 9) if k << shift <= 2**32]
    near = {n + d for n in [0, *borders] for d in (-2, -1, 0, 1, 2)}
    near |= {round(2**k * math.sqrt(0.5)) + d for k in range(1, 33) for d in (-1, 0, 1)}
    return np.array(sorted(n for n in near if 0 <= n < 2**32), np.uint64)


def test_logarithm_and_circle_are_right_to_the_ends() -> None:
    n = extremes()
    exact = [-2 * math.log((int(i) + 0.5) / 2**32) if i < 2**31 else -2 * math.log1p(-(2**32 - int(i) - 0.5) / 2**32)
             for i in n]  # fmt: skip
    np.testing.assert_allclose(_numpy._squared_radius(n), exact, rtol=1e-11)
    cosine, sine = _numpy._on_circle(n)
    angle = 2 * math.pi * (n.astype(np.float64) + 0.5) / 2**32
    assert np.abs(cosine - np.cos(angle)).max() < 1e-11 and np.abs(sine - np.sin(angle)).max() < 1e-11


def test_compiled_and_numpy_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    if _library.load("cpu")[0] is None:
        pytest.skip(f"CPU kernels: {_library.load('cpu')[1]}")
    shape, scales = (3, 2, 5, 1001), np.array([1.0, 0.3, -14.6])
    native = counter_normal(np.empty(shape, np.float32), COUNTERS, seed=3, scales=scales)
    monkeypatch.setattr(_library, "load", lambda kind: (None, "the test took it away"))
    assert np.array_equal(native, counter_normal(np.empty(shape, np.float32), COUNTERS, seed=3, scales=scales))


def test_a_row_of_no_use_stays_and_scales_multiply(implementation: Any) -> None:
    counters = COUNTERS.copy()
    counters[1, 0] = -1
    plain = counter_normal(np.full((3, 10), 7, np.float32), counters, seed=1)
    scaled = counter_normal(np.full((3, 10), 7, np.float32), counters, seed=1, scales=np.array([0.1, 9.0, 2.0]))
    assert (plain[1] == 7).all() and (scaled[1] == 7).all()
    assert np.array_equal(scaled[0], plain[0] * np.float32(0.1)) and np.array_equal(scaled[2], plain[2] * 2)


def test_frames_are_counted_from_the_first(implementation: Any) -> None:
    moved = COUNTERS + np.array([0, 0, 5, 0])
    there = counter_normal(np.empty((3, 10), np.float32), moved, seed=1)
    here = counter_normal(np.empty((3, 10), np.float32), COUNTERS, seed=1, first=np.array([5]))
    assert np.array_equal(there, here)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": np.empty((3, 4))}, "out: expected contiguous float32"),
        ({"out": np.empty((4, 3), np.float32).T}, "out: expected contiguous float32"),
        ({"counters": COUNTERS[:2]}, r"counters: expected contiguous int64\[3, 4\]"),
        ({"counters": COUNTERS.astype(np.int32)}, "counters: expected contiguous int64"),
        ({"first": np.ones(2, np.int64)}, r"first: expected int64\[1\]"),
        ({"scales": np.ones(2)}, r"scales: expected contiguous float64\[3\]"),
        ({"seed": -1}, "seed: expected 0 to"),
    ],
)
def test_what_breaks_the_rules_is_refused(change: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"out": np.empty((3, 4), np.float32), "counters": COUNTERS, "seed": 0} | change
    with pytest.raises(ValueError, match=says):
        counter_normal(given.pop("out"), given.pop("counters"), **given)


def test_device_arguments_meet_the_same_checks() -> None:
    with pytest.raises(ValueError, match="counters: expected contiguous int64"):
        cuda.counter_normal((4096, (2, 8), "float32"), (8192, (2, 3), "int64"), seed=0)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits() -> None:
    torch = pytest.importorskip("torch")
    if cuda.missing() or not torch.cuda.is_available():
        pytest.skip(cuda.missing() or "no CUDA device")
    expected = counter_normal(np.empty((3, 86401), np.float32), COUNTERS, seed=5, scales=np.array([1.0, 0.3, 2.0]))
    out = torch.empty((3, 86401), device="cuda")
    counters, scales = torch.from_numpy(COUNTERS).cuda(), torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64).cuda()
    stream = torch.cuda.current_stream().cuda_stream
    cuda.counter_normal(out, counters, seed=5, scales=scales, stream=stream)
    assert np.array_equal(out.cpu().numpy(), expected)
