"""Noise by counter against published values, and its statistics."""

from __future__ import annotations

import numpy as np

from worldrt.runtime import philox


def test_philox_gives_the_known_answers():
    """Of the Random123 distribution (kat_vectors)."""
    for counter, key, expected in (
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        assert tuple(philox.philox(np.array(counter, np.uint32)[:, None], key)[:, 0]) == expected


def test_noise_by_counter_is_that_of_torch_on_a_gpu():
    """The first values of torch.randn on CUDA with the seed 0, as they are published."""
    expected = (-0.92466259, -0.42534414, -2.64384580, 0.14518388, -0.12086648, -0.57972562)
    expected += (-0.62285119, -0.32838708, -1.07454228, -0.36314407, -1.67105067, 2.26550508)
    np.testing.assert_allclose(philox.normal((3, 4), 0, 0).ravel(), expected, rtol=1e-6)


def test_noise_by_counter_is_normal_and_its_draws_are_apart():
    draws = np.stack([philox.normal((1, 16, 1, 80, 80), seed, draw) for seed in (0, 2**32 - 1) for draw in range(3)])
    values = draws.reshape(6, -1).astype(np.float64)
    count = values.shape[1]
    assert np.abs(values.mean(1)).max() < 5 / np.sqrt(count)
    assert np.abs(values.var(1) - 1).max() < 5 * np.sqrt(2 / count)
    assert np.abs(np.corrcoef(values) - np.eye(6)).max() < 5 / np.sqrt(count)
