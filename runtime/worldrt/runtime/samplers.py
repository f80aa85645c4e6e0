"""Samplers as tables: every solver here is linear, so one step is one row (level, a, b, c, d) of

    x' = a x + b x0 + c x0_prev + d noise

in float64, where x0 is the guided prediction at this row's level and x0_prev that of the row before. A sampler is a
function that returns such rows; nothing else in the runtime knows a solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError

Float64 = np.ndarray[Any, np.dtype[np.float64]]
MAX_STEPS = 10_000
SMALLEST_SIGMA, LARGEST_SIGMA = 1e-6, 1e6  # beyond, float32 latents say nothing
MAX_ORDER = 1e3
CLEAN = (0.0, 1.0, 0.0, 0.0)  # x' = x0
DISTILLED = "distilled"  # the name of the sampler below
DISTILLED_SIGMAS = (3.6, 1.5574, 0.684)  # after the first, of timestep-distilled Cosmos-Predict2


@dataclass(frozen=True)
class SamplerTable:
    """`levels` float64 (rows,): sigma of each evaluation; `coefficients` float64 (rows, 4): a, b, c, d of its step.

    The state after the last row is the result. `fresh_noise`: of the kind whose rows add noise, all but the last.
    """

    levels: Float64
    coefficients: Float64
    fresh_noise: bool = False

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def needs_previous(self) -> bool:
        """Whether a step uses the x0 of the step before."""
        return bool(self.coefficients[:, 2].any())

    @property
    def needs_noise(self) -> bool:
        """Whether a row adds noise."""
        return bool(self.coefficients[:, 3].any())


def rectified_flow_ab2(steps: int, sigma_max: float, sigma_min: float, order: float = 7.0) -> SamplerTable:
    """Two-step exponential Adams-Bashforth in log sigma, then one clean evaluation at `sigma_min`: steps + 1 rows.

    With t, s the sigma before and after a step, h = ln(t / s), z = -h and c2 = ln(t / t_prev) / h:
    x' = exp(z) x + h [(phi1(z) - phi2(z) / c2) x0 + phi2(z) / c2 x0_prev], phi1(z) = expm1(z) / z,
    phi2(z) = (phi1(z) - 1) / z. The first step is first order: x' = s/t x + (1 - s/t) x0. This is the sampler of
    Cosmos-Predict2, a variable-step form of Hochbruck and Ostermann, Exponential integrators (2010), section 2.
    """
    sigmas = karras_sigmas(steps + 1, sigma_max, sigma_min, order)
    rows = [_euler_row(sigmas[0], sigmas[1])]
    for before, here, after in zip(sigmas[:-2], sigmas[1:-1], sigmas[2:], strict=True):
        h, c2 = np.log(here / after), np.log(here / before) / np.log(here / after)
        phi1 = np.expm1(-h) / -h
        phi2 = (phi1 - 1) / -h
        rows.append((float(np.exp(-h)), float(h * (phi1 - phi2 / c2)), float(h * phi2 / c2), 0.0))
    return SamplerTable(sigmas, np.array([*rows, CLEAN]))


def rectified_flow_euler(steps: int, sigma_max: float, sigma_min: float, order: float = 7.0) -> SamplerTable:
    """First-order steps over `steps` sigmas; the last step goes from `sigma_min` to 0, so its x0 is the result."""
    sigmas = karras_sigmas(steps, sigma_max, sigma_min, order)
    rows = [_euler_row(here, after) for here, after in pairwise(sigmas)]
    return SamplerTable(sigmas, np.array([*rows, CLEAN]))


def distilled(steps: int, sigma_max: float, sigma_min: float, order: float = 7.0) -> SamplerTable:
    """Few steps of a timestep-distilled model: x' = x0 + sigma' noise, and x0 itself after the last one.

    The levels are the first `steps` of `sigma_max`, 3.6, 1.5574, 0.684, as in the text2image pipeline of
    Cosmos-Predict2; the form is the multistep sampling of Song et al., Consistency models (2023), algorithm 1.
    `sigma_min` and `order` have no part in it. Raises `InputError`.
    """
    most = 1 + len(DISTILLED_SIGMAS)
    if steps > most:
        raise InputError(f"distilled: expected 1 to {most} steps, got {steps}; leave --steps out")
    if sigma_max <= DISTILLED_SIGMAS[0]:
        raise InputError(f"distilled: expected a sigma_max above {DISTILLED_SIGMAS[0]}, got {sigma_max}")
    levels = np.array([sigma_max, *DISTILLED_SIGMAS[: steps - 1]], np.float64)
    rows = [(0.0, 1.0, 0.0, float(after)) for after in levels[1:]]
    return SamplerTable(levels, np.array([*rows, CLEAN]), fresh_noise=True)


def _euler_row(here: float, after: float) -> tuple[float, float, float, float]:
    return float(after / here), float(1 - after / here), 0.0, 0.0


def karras_sigmas(count: int, sigma_max: float, sigma_min: float, order: float) -> Float64:
    """`count` sigmas from `sigma_max` down to `sigma_min`, evenly spaced in sigma^(1 / order).

    Karras et al., Elucidating the design space of diffusion-based generative models (2022), equation 5. One sigma is
    `sigma_max`.
    """
    if count == 1:
        return np.array([sigma_max], np.float64)
    top, bottom = sigma_max ** (1 / order), sigma_min ** (1 / order)
    ramp = np.arange(count, dtype=np.float64) / (count - 1)
    sigmas: Float64 = (top + ramp * (bottom - top)) ** order
    return sigmas


def table(kind: str, steps: int, sigma_max: float, sigma_min: float, order: float = 7.0) -> SamplerTable:
    """The rows of the sampler named `kind`. Raises `InputError` for an unknown name or numbers that cannot be used."""
    found: Callable[..., object] | None = globals().get(kind) if kind in names() else None
    if found is None:
        raise InputError(f"sampler '{kind}': unknown; there are: {', '.join(names())}")
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"steps: expected 1 to {MAX_STEPS}, got {steps}")
    if not SMALLEST_SIGMA <= sigma_min < sigma_max <= LARGEST_SIGMA:
        raise InputError(
            f"sigma_min and sigma_max: expected 0 < sigma_min < sigma_max, from {SMALLEST_SIGMA:g} to "
            f"{LARGEST_SIGMA:g}, got {sigma_min}, {sigma_max}"
        )
    if not 0 < order <= MAX_ORDER:
        raise InputError(f"order of the sigmas: expected more than 0, at most {MAX_ORDER:g}, got {order}")
    result = found(steps, sigma_max, sigma_min, order)
    assert isinstance(result, SamplerTable)
    return result


def names() -> list[str]:
    """The samplers of this module: its public functions that return a `SamplerTable`, but `table` itself."""
    made = (n for n, f in globals().items() if getattr(f, "__annotations__", {}).get("return") == "SamplerTable")
    return sorted(name for name in made if name != "table")
