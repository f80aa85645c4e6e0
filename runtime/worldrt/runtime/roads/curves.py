"""The five curves that a road's reference line is made of (ASAM OpenDRIVE 1.7, section 9), by their arc length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Float64 = np.ndarray[Any, np.dtype[np.float64]]
Local = tuple[Float64, Float64, Float64]
"""Along and beside the direction in which a curve begins, in metres, and the turn of its heading, in radians."""
TURN_RAD = np.pi / 4
"""Of a clothoid, that one panel of a Gauss-Legendre rule of 16 points spans at most."""
MOST_PANELS, AT_ONCE = 64, 512  # no road turns so often; points that are computed at once, for memory
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
TABLE = 1000  # points of the length of a cubic


@dataclass(frozen=True, eq=False)
class Curve:
    """A piece of a reference line from `s_m` on. `local` gives its shape at distances from its beginning."""

    s_m: float
    x_m: float
    y_m: float
    heading_rad: float
    length_m: float
    local: Callable[[Float64], Local]

    def at(self, s_m: Float64) -> tuple[Float64, Float64, Float64]:
        """x, y and heading in the world at stations of the road (n)."""
        u, v, turn = self.local(s_m - self.s_m)
        c, s = np.cos(self.heading_rad), np.sin(self.heading_rad)
        return self.x_m + c * u - s * v, self.y_m + s * u + c * v, self.heading_rad + turn


def line(s_m: Float64) -> Local:
    """Straight on."""
    return s_m, np.zeros_like(s_m), np.zeros_like(s_m)


@dataclass(frozen=True)
class Arc:
    """A circle; a positive curvature turns left."""

    curvature: float

    def __call__(self, s_m: Float64) -> Local:
        turn = s_m * self.curvature
        return np.sin(turn) / self.curvature, (1 - np.cos(turn)) / self.curvature, turn


@dataclass(frozen=True)
class Spiral:
    """A clothoid: its curvature changes evenly, by `change` for each metre."""

    curvature: float
    change: float

    def __call__(self, s_m: Float64) -> Local:
        parts = [self._some(s_m[i : i + AT_ONCE]) for i in range(0, len(s_m), AT_ONCE)]
        u, v, turn = (np.concatenate(values) for values in zip(*parts, strict=True)) if parts else (s_m, s_m, s_m)
        return u, v, turn

    def _some(self, s_m: Float64) -> Local:
        turn = self._turn(s_m)
        most = float(np.max(np.abs(s_m) * (abs(self.curvature) + abs(self.change * s_m)), initial=0.0))
        panels = min(int(np.ceil(most / TURN_RAD)) or 1, MOST_PANELS)
        # along (n, panels * 16): the points of all panels between 0 and each s
        share = ((np.arange(panels)[:, None] + 0.5 + 0.5 * NODES) / panels).ravel()
        turns = self._turn(s_m[:, None] * share)
        each = s_m / (2 * panels)
        weights = np.tile(WEIGHTS, panels)
        return each * (np.cos(turns) @ weights), each * (np.sin(turns) @ weights), turn

    def _turn(self, s_m: Float64) -> Float64:
        return s_m * (self.curvature + 0.5 * self.change * s_m)


@dataclass(frozen=True)
class ParamPoly:
    """Cubics u(p) and v(p), coefficients from the constant on; p is the distance times `rate`."""

    u: tuple[float, float, float, float]
    v: tuple[float, float, float, float]
    rate: float = 1.0

    def __call__(self, s_m: Float64) -> Local:
        p = s_m * self.rate
        du, dv = _derived(self.u, p), _derived(self.v, p)
        return _cubic(self.u, p), _cubic(self.v, p), np.arctan2(dv, du)


@dataclass(frozen=True)
class Poly:
    """A cubic v(u) over the direction in which it begins; the distance is measured along the curve."""

    v: tuple[float, float, float, float]
    length_m: float

    def __call__(self, s_m: Float64) -> Local:
        u = np.interp(s_m, *self._table)
        slope = _derived(self.v, u)
        return u, _cubic(self.v, u), np.arctan(slope)

    @cached_property
    def _table(self) -> tuple[Float64, Float64]:
        """Distances and the u that lie there: du/ds = cos of the slope, by Simpson's rule between points of u."""
        u = np.linspace(0.0, self.length_m, TABLE + 1)  # never longer than the curve
        speed = np.hypot(1.0, _derived(self.v, np.linspace(0.0, self.length_m, 2 * TABLE + 1)))
        steps = (speed[:-2:2] + 4 * speed[1:-1:2] + speed[2::2]) * (self.length_m / TABLE / 6)
        return np.concatenate(((0.0,), np.cumsum(steps))), u


def _cubic(c: tuple[float, float, float, float], p: Float64) -> Float64:
    return np.asarray(c[0] + p * (c[1] + p * (c[2] + p * c[3])), np.float64)


def _derived(c: tuple[float, float, float, float], p: Float64) -> Float64:
    return np.asarray(c[1] + p * (2 * c[2] + p * 3 * c[3]), np.float64)
