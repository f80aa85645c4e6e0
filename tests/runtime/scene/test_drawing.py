"""Boxes and lines are drawn as the official code draws them, and where a pinhole camera sees them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from worldrt.engine.errors import InputError
from worldrt.runtime import images
from worldrt.runtime.scene import drawing
from worldrt.runtime.scene.boxes import COLORS, EDGES, Box, BoxStyle, box_segments
from worldrt.runtime.scene.cameras import image_from_world, intrinsics
from worldrt.runtime.scene.drawing import draw_lines
from worldrt.runtime.scene.lines import LineStyle, MapLines
from worldrt.runtime.scene.poses import upright
from worldrt.runtime.scene.projection import project

EYE = np.array((0.0, 0.0, 1.5))  # looking along x


def front_camera():
    inverse = np.eye(4)
    inverse[:3, 3] = -EYE
    return image_from_world(intrinsics(640, 360, 90.0), inverse)


@pytest.fixture(params=["box", "map"])
def drawn(request, scene, camera_name):
    projection, eye = scene.projection(camera_name)
    if request.param == "box":
        segments, colors, pen = *box_segments(scene.boxes, projection, eye, BoxStyle()), BoxStyle().pen_px
    else:
        segments, colors, pen = *scene.lines.segments(projection, LineStyle()), LineStyle().pen_px
    return f"{request.param}.{camera_name}", segments, colors, pen


def test_every_line_is_the_official_one(scene, drawn, lines_are_the_same):
    name, segments, colors, pen = drawn
    expected = scene.arrays[f"segments.{name}"]
    lines_are_the_same(segments, expected[:, :4])
    assert np.array_equal(np.array(colors), expected[:, 4:7])
    assert (expected[:, 7] == pen).all()


def test_the_picture_is_the_official_one_and_so_is_the_small_one(scene, drawn):
    name, segments, colors, pen = drawn
    file = f"draw_{name.replace('.', '_').lower()}"
    picture = draw_lines((640, 360), segments, colors, pen)
    with Image.open(scene.folder / f"{file}.png") as expected:
        assert np.array_equal(picture, np.asarray(expected))
    small = images.resize(picture[None], 304, 176)[0]
    with Image.open(scene.folder / f"{file}_304x176.png") as expected:
        assert np.abs(small.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_a_box_ahead_stands_where_a_hand_computes_it():
    # 90 degrees over 640 pixels: 320 pixels of focal length; the faces of the box are 8 m and 12 m away
    box = Box("car", upright(10.0, 1.0, 0.0, 0.0), (2.0, 1.0, 0.75), (0.0, 0.0, 0.75))
    segments, colors = box_segments([box], front_camera(), EYE, BoxStyle())
    corners = np.unique(np.round(segments.reshape(-1, 2), 9), axis=0)
    expected = {
        (320 - 320 * y / x, 180 + 320 * (1.5 - z) / x) for x in (8.0, 12.0) for y in (0.0, 2.0) for z in (0.0, 1.5)
    }
    assert {tuple(corner) for corner in corners} == {(round(x, 9), round(y, 9)) for x, y in expected}
    assert len(segments) == len(EDGES) == 14
    assert set(colors) == {COLORS["car"]}


def test_a_turned_box_keeps_its_front_ahead():
    """The two diagonals meet at the lower corner of front and left: of a car that comes towards us, on the right."""
    box = Box("car", upright(10.0, 0.0, 0.0, math.pi), (2.0, 1.0, 0.75), (0.0, 0.0, 0.75))
    segments, _ = box_segments([box], front_camera(), EYE, BoxStyle())
    corner = (320 + 320 * 1.0 / 8.0, 180 + 320 * 1.5 / 8.0)
    np.testing.assert_allclose(segments[-2:, :2], [corner, corner])


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        ((4, 2, 2), (6, 3, 3), (2, 1, 2, 1)),  # both are seen
        ((4, 2, 2), (-8, -4, -4), (2, 1, 2, 1)),  # cut at the near plane, on a ray through the eye
        ((0, 0, 1), (1, 0, -1), None),  # half of it is behind: see below
        ((0, 0, 1), (0, 4, 9), (0, 0, 0, 2 / 5)),  # too far away: cut at a depth of 5, where it is half way
        ((0, 0, -3), (0, 0, 0.04), "nothing"),
        ((0, 0, 6), (0, 0, 5.5), "nothing"),
    ],
)
def test_lines_are_cut_at_both_planes(begin, end, expected):
    found, which = project(np.array([begin], float), np.array([end], float), near_m=0.05, far_m=5.0)
    if expected == "nothing":
        assert found.shape == (0, 4) and which.size == 0
        return
    if expected is None:  # z goes from 1 to -1 as x goes from 0 to 1: at z = 0.05, x is 0.475
        expected = (0, 0, 0.475 / 0.05, 0)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_a_line_from_behind_to_beyond_is_cut_twice():
    found, _ = project(np.array([(-1.0, 0, -1)]), np.array([(9.0, 0, 9)]), near_m=0.5, far_m=5.0)
    np.testing.assert_allclose(found, [(1, 0, 1, 0)])


def test_what_is_beyond_its_reach_or_has_no_colour_is_not_drawn():
    def count(label, x):
        return len(box_segments([Box(label, upright(x, 0, 0, 0), (2, 1, 1))], front_camera(), EYE, BoxStyle())[0])

    assert count("car", 79.9) == 14  # 79.9 m along, 1.5 m down: 79.91 m
    assert count("car", 80.0) == 0
    assert count("spaceship", 10.0) == 0
    lines = MapLines(
        {"rail": [np.array([(5.0, 0, 0), (9.0, 0, 0)])], "solid": [np.array([(60.0, 0, 0), (70.0, 0, 0)])]}
    )
    segments, colors = lines.segments(front_camera(), LineStyle())
    assert colors == [(0, 255, 0)]
    np.testing.assert_allclose(segments[0, 3], 180 + 320 * 1.5 / 65)


def test_a_map_without_lines_is_black():
    segments, colors = MapLines({}).segments(front_camera(), LineStyle())
    assert not draw_lines((64, 36), segments, colors, 3).any()


def test_lines_far_outside_cost_nothing_and_change_nothing():
    lines = np.array([(-1e7, -1e7, -9e6, -8e6), (10.0, 10, 20, 10), (2e6, 5, 3e6, 5)])
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    alone = draw_lines((64, 36), lines[1:2], colors[1:2], 3)
    assert alone.any() and np.array_equal(draw_lines((64, 36), lines, colors, 3), alone)


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(drawing.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'worldrt\[drive\]'"):
        draw_lines((64, 36), np.empty((0, 4)), [], 3)
