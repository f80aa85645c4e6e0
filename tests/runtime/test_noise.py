"""Noise equals the official code's, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from worldrt.engine.errors import InputError
from worldrt.runtime.noise import initial_noise

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "cosmos" / "noise_numpy.safetensors")


@pytest.mark.parametrize("name", sorted({key.rpartition(".")[0] for key in GOLDEN}))
def test_official_noise(name):
    seed, shape = re.fullmatch(r"seed(\d+)_([\dx]+)", name).groups()
    noise = initial_noise(tuple(map(int, shape.split("x"))), int(seed), 1.0)
    assert noise.dtype == np.float32
    assert np.array_equal(noise.ravel()[:64], GOLDEN[f"{name}.first64"])
    assert np.array_equal(noise.ravel()[-64:], GOLDEN[f"{name}.last64"])
    assert noise.astype(np.float64).sum() == pytest.approx(GOLDEN[f"{name}.sum_f64"][0], rel=1e-12)


def test_scaled_in_float32():
    assert np.array_equal(initial_noise((2, 3), 7, 80.0), initial_noise((2, 3), 7, 1.0) * np.float32(80))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seed(seed):
    with pytest.raises(InputError, match="seed"):
        initial_noise((1,), seed, 1.0)
