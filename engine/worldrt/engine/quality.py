"""What quantisation does to a denoiser, measured against the same denoiser without it.

Errors are relative: the norm of the difference over the norm of the exact tensor, both in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from worldrt.engine.schema import SchemaError


@dataclass(frozen=True)
class StepError:
    """The error of x0 at one noise level (sigma), the worst over the recorded calls of that level."""

    level: float
    error: float


@dataclass(frozen=True)
class Quality:
    """`steps`: x0 on recorded inputs. `blocks`: the worst error of the output of each block, errors of the blocks
    before included. `psnr_db`: of the frames of a whole run, peak 255, 100 where they are equal, None where the bundle
    could not be run. Beyond `step_limit`, or below `psnr_limit_db`, a bundle is not written.

    `calibration` says in words what the ranges of activations were taken from.
    """

    calibration: str
    steps: tuple[StepError, ...]
    blocks: Mapping[str, float]
    step_limit: float
    psnr_limit_db: float
    psnr_db: float | None = None

    @property
    def worst_step(self) -> float:
        """The largest error of x0; infinite where there is none."""
        return max((step.error for step in self.steps), default=math.inf)


def check_quality(where: str, quality: Quality) -> None:
    """Raises `SchemaError` for numbers that no measurement gives."""
    errors = {f"steps[{i}]": step.error for i, step in enumerate(quality.steps)} | dict(quality.blocks)
    errors |= {"step_limit": quality.step_limit} | {
        f"level of steps[{i}]": s.level for i, s in enumerate(quality.steps)
    }
    for name, value in errors.items():
        if value < 0:
            raise SchemaError(f"{where}.{name}: expected a number from 0 up, got {value}")
    if not quality.steps:
        raise SchemaError(f"{where}.steps: expected at least one step, got none")
