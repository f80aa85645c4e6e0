"""The curves of reference lines against an integration of their curvature in small steps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worldrt.runtime.roads.curves import Arc, ParamPoly, Poly, Spiral, line
from worldrt.runtime.roads.reader import parse_map

from ...fakes import roads as made


def integrated(curvature, length, count=200_000):
    """x, y and heading at the end, by the midpoint rule."""
    s = (np.arange(count) + 0.5) * length / count
    k = curvature(s) * length / count
    heading = np.cumsum(k) - k / 2
    return np.cos(heading).sum() * length / count, np.sin(heading).sum() * length / count, k.sum()


@pytest.mark.parametrize(
    ("shape", "curvature", "length"),
    [
        (line, lambda s: 0 * s, 12.0),
        (Arc(-0.05), lambda s: 0 * s - 0.05, 80.0),
        (Spiral(0.0, 0.002), lambda s: 0.002 * s, 60.0),
        (Spiral(0.08, -0.003), lambda s: 0.08 - 0.003 * s, 50.0),
        (Spiral(0.0, 0.01), lambda s: 0.01 * s, 50.0),  # twice around
    ],
)
def test_curves_end_where_their_curvature_leads(shape, curvature, length):
    u, v, turn = shape(np.array([0.0, length]))
    assert (u[0], v[0], turn[0]) == (0, 0, 0)
    np.testing.assert_allclose((u[1], v[1], turn[1]), integrated(curvature, length), atol=1e-7)


def test_a_cubic_is_measured_along_itself():
    shape = Poly((0.0, 0.0, 0.01, -0.0001), 30.0)
    u, v, turn = shape(np.linspace(0, 30, 3001))
    steps = np.hypot(np.diff(u), np.diff(v))
    np.testing.assert_allclose(steps, 0.01, rtol=1e-4)
    np.testing.assert_allclose(v, 0.01 * u**2 - 0.0001 * u**3, atol=1e-12)
    np.testing.assert_allclose(np.tan(turn), 0.02 * u - 0.0003 * u**2, atol=1e-12)


def test_a_parametric_cubic_may_be_any_curve():
    """A circle's beginning to third order: its heading is that of the curve."""
    shape = ParamPoly((0.0, 10.0, 0.0, -10.0 / 6), (0.0, 0.0, 5.0, 0.0), rate=0.1)
    s = np.array([0.0, 1.0, 2.0])
    u, v, turn = shape(s)
    np.testing.assert_allclose(u, 10 * (s / 10 - (s / 10) ** 3 / 6))
    np.testing.assert_allclose(v, 5 * (s / 10) ** 2)
    np.testing.assert_allclose(turn, np.arctan2(s / 10, 1 - (s / 10) ** 2 / 2))


def test_a_road_of_all_curves_goes_where_its_pen_went():
    text, pen = made.curve()
    road = parse_map(text.encode()).roads["7"]
    assert len(road.curves) == 8
    lengths = [curve.length_m for curve in road.curves]
    for trace, curve in zip(pen.trace, road.curves, strict=True):
        middle = np.array([curve.s_m + curve.length_m / 2, curve.s_m + curve.length_m])
        points, _ = road.at(middle - 1e-9, np.zeros(2))
        half = trace[len(trace) // 2]
        assert abs(complex(*points[1, :2]) - trace[-1]) < 2e-3
        # halfway of a cubic is meant in its parameter
        assert abs(complex(*points[0, :2]) - half) < (0.05 if curve.s_m > sum(lengths[:5]) - 1 else 2e-3)
    points, _ = road.at(np.array([60.0]), np.array([2.0]))
    assert points[0, 2] == pytest.approx(0.0006 * 40**2 - 0.000004 * 40**3)


def test_what_lies_beside_a_line_lies_at_a_right_angle():
    road = parse_map(made.crossing().encode()).roads["3"]  # northwards from (52, 0), 12 m from the middle of its node
    points, heading = road.at(np.array([5.0, 5.0]), np.array([2.0, -2.0]))
    np.testing.assert_allclose(points[:, :2], [(50.0, 17.0), (54.0, 17.0)], atol=1e-8)
    np.testing.assert_allclose(heading, math.pi / 2)
