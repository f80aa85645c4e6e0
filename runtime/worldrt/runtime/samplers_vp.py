"""Samplers of variance-preserving diffusion, x = sqrt(abar) x0 + sqrt(1 - abar) eps, as level tables.

These are the two of The Matrix: DPM-Solver++ SDE of its third stage, and the phased DDIM steps of its fourth. Labels
are integer timesteps. The model is trained on v = sqrt(abar) eps - sqrt(1 - abar) x0, so x0 = sqrt(abar) x -
sqrt(1 - abar) v.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.engine.diffusion import TRAINING_STEPS, alphas_cumprod
from worldrt.engine.errors import InputError
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.samplers import Float64


def dpm_sde(steps: int, abar: Float64 | None = None) -> LevelTable:
    """DPM-Solver++(2M) SDE at evenly spaced timesteps that end at the last one ("trailing").

    With lambda = ln sqrt(abar / (1 - abar)), h = lambda' - lambda and r = (lambda - lambda of the step before) / h:
    x' = sqrt((1 - abar') / (1 - abar)) e^-h x + (1 - e^-2h) sqrt(abar') D + sqrt((1 - abar') (1 - e^-2h)) eps, where
    D = x0 in first order and (1 + 1 / 2r) x0 - 1 / 2r x0_prev in second. Lu et al., DPM-Solver++ (2022).
    A step goes to t - floor(1000 / steps), and below 0 to abar = 1. Reset rule: history is lost when frames leave,
    and all frames are first order on a row where one goes below 0.
    """
    _check_steps(steps)
    table = alphas_cumprod() if abar is None else abar
    labels = np.concatenate(([0], np.round(TRAINING_STEPS - np.arange(steps) * (TRAINING_STEPS / steps))[::-1] - 1))
    times = labels.astype(np.int64)
    here = table[times].astype(np.float64)
    after = times - TRAINING_STEPS // steps
    towards = np.where(after < 0, 1.0, table[np.maximum(after, 0)].astype(np.float64))
    first, steps_ = np.zeros((2, steps + 1, 4))
    with np.errstate(divide="ignore"):  # abar of 0 and 1 have lambda of -inf and inf
        now, then = (0.5 * (np.log(a) - np.log1p(-a)) for a in (here, towards))
    for level in range(1, steps + 1):
        h = then[level] - now[level]
        gain = -np.expm1(-2 * h)
        keep = np.sqrt((1 - towards[level]) / (1 - here[level])) * np.exp(-h)
        push, spread = gain * np.sqrt(towards[level]), np.sqrt((1 - towards[level]) * gain)
        half = h / (now[level] - now[level + 1]) / 2 if after[level] >= 0 and level < steps else 0.0  # 1 / 2r
        first[level] = keep, push, 0.0, spread
        steps_[level] = keep, push * (1 + half), -push * half, spread
    root, spread_of = np.sqrt(here), np.sqrt(1 - here)
    return LevelTable(labels.astype(np.float64), root, spread_of, steps_, first, True, bool(after[1] < 0))


def phased_ddim(steps: int, phases: int, original_steps: int = 40, abar: Float64 | None = None) -> LevelTable:
    """One deterministic DDIM step to the lower end of the timestep's phase, then noise up to the next timestep.

    With b the end of the phase, x_b = (sigma_b / sigma_t) x + (alpha_b - alpha_t sigma_b / sigma_t) x0, and with
    q = abar' / abar_b, x' = sqrt(q) x_b + sqrt(1 - q) eps; where the next timestep is b itself there is no noise, and
    in q, but not in x_b, abar_b is 1 for the last phase, as The Matrix has it.
    Wang et al., Phased consistency models (2024). Timesteps are every `original_steps` / `steps`-th of the
    original ones. abar is that of float32 unless given, as The Matrix has it. Raises `InputError`.
    """
    _check_steps(steps)
    if not steps <= original_steps <= TRAINING_STEPS or not 1 <= phases <= steps:
        raise InputError(
            f"phased DDIM: expected 1 <= phases <= steps <= original steps, got {phases}, {steps}, {original_steps}; "
            "with more phases than steps a step would end below the next timestep"
        )
    table = (alphas_cumprod(dtype=np.float32) if abar is None else abar).astype(np.float64)
    stride = TRAINING_STEPS // original_steps
    original = np.arange(original_steps, 0, -1) * stride - 1
    times = np.concatenate(([0], original[:: original_steps // steps][:steps][::-1]))
    here = table[times]
    ends = table[phase_end(times, phases)]
    ratio = np.ones(steps + 1)
    ratio[2:] = here[1:-1] / np.where(phase_end(times, phases) > 0, ends, 1.0)[2:]
    if (ratio > 1 + 1e-12).any():
        raise InputError(f"phased DDIM: {steps} steps do not meet the ends of {phases} phases; make steps a multiple")
    skip = np.sqrt((1 - ends) / (1 - here))
    out = np.sqrt(ends) - np.sqrt(here) * skip
    root = np.sqrt(ratio)
    spread = np.sqrt(np.maximum(0.0, 1 - ratio))
    rows = np.stack((root * skip, root * out, np.zeros_like(root), spread), axis=1)
    rows[0] = 0
    return LevelTable(times.astype(np.float64), np.sqrt(here), np.sqrt(1 - here), rows, rows)


def phase_end(times: np.ndarray[Any, Any], phases: int) -> np.ndarray[Any, Any]:
    """The timestep that a timestep's phase ends at: one below a multiple of 1000 / phases, at least 0."""
    length = TRAINING_STEPS / phases
    ends: np.ndarray[Any, Any] = np.maximum(np.floor(times / length) * length - 1, 0).astype(np.int64)
    return ends


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= TRAINING_STEPS:
        raise InputError(f"steps: expected 1 to {TRAINING_STEPS}, got {steps}")
