"""Noise that does not depend on the machine: NumPy's legacy generator, as Cosmos-Predict2 draws it."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape

MAX_SEED = 2**32 - 1


def initial_noise(shape: Shape, seed: int, sigma: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 noise of standard deviation `sigma`: drawn in float64 over the whole shape in C order, then rounded.

    Raises `InputError` as `check_seed`.
    """
    check_seed(seed)
    noise = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    noise *= np.float32(sigma)
    return noise


def check_seed(seed: int) -> None:
    """Raises `InputError` for a seed that the generator does not take."""
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed: expected 0 to {MAX_SEED}, got {seed}")
