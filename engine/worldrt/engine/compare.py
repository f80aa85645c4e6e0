"""How far two results are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Of one tensor: the largest absolute difference, that over the reference's largest value, and the cosine."""

    name: str
    max_abs: float
    relative: float
    cosine: float
    reference_max: float

    def within(self, relative: float) -> bool:
        """Whether the relative difference is finite and at most `relative`."""
        return self.relative <= relative


def difference(name: str, actual: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> Difference:
    """Compare in float64. Shapes must agree; anything that is not finite makes the result infinite."""
    if actual.shape != reference.shape:
        raise ValueError(f"'{name}': expected shape {reference.shape}, got {actual.shape}")
    a, r = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not a.size:
        return Difference(name, 0.0, 0.0, 1.0, 0.0)
    if not (np.isfinite(a).all() and np.isfinite(r).all()):
        return Difference(name, np.inf, np.inf, 0.0, float(np.abs(r).max()))
    worst, largest = float(np.abs(a - r).max()), float(np.abs(r).max())
    norms = float(np.linalg.norm(a) * np.linalg.norm(r))
    cosine = float(a @ r) / norms if norms else float(not worst)
    return Difference(name, worst, worst / largest if largest else worst, cosine, largest)


def compare(
    actual: Mapping[str, np.ndarray[Any, Any]], reference: Mapping[str, np.ndarray[Any, Any]]
) -> list[Difference]:
    """One row per tensor of the reference."""
    return [difference(name, actual[name], value) for name, value in reference.items()]
