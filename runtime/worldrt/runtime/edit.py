"""Video to video and picture to picture by SDEdit: sampling begins in the middle, at what is edited and some noise.

Meng et al., SDEdit: guided image synthesis and editing with stochastic differential equations (2022), algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace

from worldrt.engine.errors import InputError
from worldrt.runtime.samplers import SamplerTable


def check_strength(strength: float | None) -> None:
    """Raises `InputError` for a strength that cannot be used; None is no edit."""
    if strength is not None and not 0 < strength <= 1:
        raise InputError(
            f"edit_strength: expected more than 0 (next to nothing changes) and at most 1 (all may), got {strength}"
        )


def first_row(steps: int, strength: float) -> int:
    """How many of `steps` steps are left out: int(steps (1 - strength)) in float64, as the official code counts, so
    that 0.8 of 35 leaves out 6 (35 times 0.2 comes out a little below 7)."""
    return int(steps * (1 - strength))


def edited(table: SamplerTable, steps: int, strength: float) -> SamplerTable:
    """The rows of a table of `steps` steps from `first_row` on. The first of them has no row before it, so where it
    would use that row's x0 it becomes the step of first order to the same sigma.

    Sampling begins at x = latents + sigma noise, sigma being the level of the first row.
    """
    start = min(first_row(steps, strength), len(table) - 1)
    levels, coefficients = table.levels[start:], table.coefficients[start:].copy()
    if coefficients[0, 2]:
        ratio = levels[1] / levels[0]
        coefficients[0] = ratio, 1 - ratio, 0, 0
    return replace(table, levels=levels, coefficients=coefficients)
