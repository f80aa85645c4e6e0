"""Noise by counter: the words of Philox 4x64-10 in plain integers, normal, and independent of everything else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.queue.noise import CounterNoise, Use

MASK = 2**64 - 1


def philox(counter, key):
    """Philox 4x64-10, from the paper."""
    for _ in range(10):
        first, second = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        counter = [
            (second >> 64) ^ counter[1] ^ key[0],
            second & MASK,
            (first >> 64) ^ counter[3] ^ key[1],
            first & MASK,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
    return counter


def test_the_words_are_those_of_the_paper():
    """The first known answer of Random123 for philox4x64, 10 rounds."""
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0] * 4, [0] * 2) == expected


@pytest.mark.parametrize(
    ("seed", "use", "frame", "level", "row"),
    [(0, Use.START, 0, 1, 0), (7, Use.STEP, 10**12, 999, 5), (2**32 - 1, Use.HISTORY, -3, 4, 10**9)],
)
def test_values_are_the_documented_function_of_the_counter(seed, use, frame, level, row):
    shape = (1, 3, 5)
    words = []
    for block in range(1, 3):
        words += philox([block, level, frame % 2**64, row if use == Use.HISTORY else 0], [seed, int(use)])
    radius = [math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32)) for word in words]
    angle = [2 * math.pi * ((word % 2**32) + 0.5) / 2**32 for word in words]
    values = [r * math.cos(a) for r, a in zip(radius, angle, strict=True)]
    values += [r * math.sin(a) for r, a in zip(radius, angle, strict=True)]
    (found,) = CounterNoise(seed, shape)(use, [frame], [level], row)
    assert found.dtype == np.float32 and found.shape == shape
    np.testing.assert_allclose(found.ravel(), values[:15], rtol=3e-7)


def test_a_frame_does_not_depend_on_what_is_drawn_with_it_or_before():
    noise, other = CounterNoise(5, (2, 4, 4)), CounterNoise(5, (2, 4, 4))
    together = noise(Use.STEP, range(8), [3] * 8, 0)
    alone = [other(Use.STEP, [frame], [3], frame)[0] for frame in reversed(range(8))]
    assert np.array_equal(together, alone[::-1])


def test_values_are_normal_and_unrelated():
    draws = {
        (use, frame, level, row): CounterNoise(11, (1, 200, 250))(use, [frame], [level], row).ravel().astype(np.float64)
        for use, frame, level, row in [
            (Use.START, 0, 4, 0), (Use.STEP, 0, 4, 0), (Use.STEP, 1, 4, 0), (Use.STEP, 0, 3, 0),
            (Use.HISTORY, 0, 4, 0), (Use.HISTORY, 0, 4, 1),
        ]
    }  # fmt: skip
    draws["another seed"] = CounterNoise(12, (1, 200, 250))(Use.START, [0], [4], 0).ravel().astype(np.float64)
    table = np.stack(list(draws.values()))
    count = table.shape[1]
    bound = 5 / math.sqrt(count)
    assert np.abs(table.mean(1)).max() < bound
    assert np.abs(table.var(1) - 1).max() < bound * math.sqrt(2)
    assert np.abs((table**4).mean(1) - 3).max() < bound * math.sqrt(96)
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < bound
    assert np.abs([np.corrcoef(row[1:], row[:-1])[0, 1] for row in table]).max() < bound
    quantiles = np.sort(table, axis=1)[:, [count // 40, count // 2, count - count // 40]]
    np.testing.assert_allclose(quantiles, [[-1.95996, 0, 1.95996]] * len(table), atol=0.05)


def test_a_seed_beyond_32_bits_is_refused():
    with pytest.raises(InputError, match="seed"):
        CounterNoise(2**32, (1,))
