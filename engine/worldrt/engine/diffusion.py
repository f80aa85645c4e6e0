"""The noise schedule of variance-preserving diffusion, x = sqrt(abar) x0 + sqrt(1 - abar) eps."""

from __future__ import annotations

from typing import Any

import numpy as np

TRAINING_STEPS = 1000


def alphas_cumprod(
    start: float = 0.00085, end: float = 0.012, snr_shift: float = 3.0, dtype: type[np.floating[Any]] = np.float64
) -> np.ndarray[Any, Any]:
    """abar of each training step, of CogVideoX unless other numbers are given, in the precision of `dtype`.

    Betas are linear in their square roots; then abar / (snr_shift + (1 - snr_shift) abar) divides the signal-to-noise
    ratio by `snr_shift`; then sqrt(abar) is moved and scaled so that the last one is 0 and the first one stays. Lin et
    al., Common diffusion noise schedules and sample steps are flawed (2023), algorithm 1.
    """
    betas = np.linspace(start**0.5, end**0.5, TRAINING_STEPS, dtype=dtype) ** 2
    abar = np.cumprod(1 - betas, dtype=np.float64).astype(dtype)  # torch accumulates in float64 too
    abar = abar / (dtype(snr_shift) + dtype(1 - snr_shift) * abar)
    root = np.sqrt(abar)
    scale = root[0] / (root[0] - root[-1])
    result: np.ndarray[Any, Any] = ((root - root[-1]) * scale) ** 2
    return result
