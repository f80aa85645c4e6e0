"""What sampling may leave out to be faster; everything is done by default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from worldrt.engine.errors import InputError


@dataclass(frozen=True)
class Shortcuts:
    """Ways to evaluate the denoiser less often, all off by default. They change the result.

    `step_cache`: an evaluation is left out while the change since the last one, added up over the rows, stays below
    this share; what the denoiser took for noise then serves again. 0 is off.
    `guidance_interval`: guidance only where sigma is from the first to the second (Kynkaanniemi et al., Applying
    guidance in a limited interval improves sample and distribution quality in diffusion models, 2024).
    `adaptive_guidance`: no guidance after the first row at which the predictions for both texts have at least this
    cosine similarity (Castillo et al., Adaptive guidance: training-free acceleration of conditional diffusion models,
    2023, who take it of predicted noise). Raises `InputError` for numbers that cannot be used.
    """

    step_cache: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    adaptive_guidance: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.step_cache <= 10:
            raise InputError(f"step_cache: expected 0 (off) to 10, such as 0.1, got {self.step_cache:g}")
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high < math.inf:
                raise InputError(f"guidance_interval: expected 0 <= LOW < HIGH, such as 0.3 30, got {low:g} {high:g}")
        if self.adaptive_guidance is not None and not -1 <= self.adaptive_guidance <= 1:
            raise InputError(
                f"adaptive_guidance: expected a cosine from -1 to 1, such as 0.99, got {self.adaptive_guidance:g}"
            )

    @property
    def drops_guidance(self) -> bool:
        """Whether some rows may be evaluated for one text alone."""
        return self.guidance_interval is not None or self.adaptive_guidance is not None

    def __bool__(self) -> bool:
        return bool(self.step_cache) or self.drops_guidance
