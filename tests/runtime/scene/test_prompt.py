"""Prompts are the official ones, word for word."""

from __future__ import annotations

import json

import numpy as np
import pytest

from worldrt.runtime.scene.boxes import Box
from worldrt.runtime.scene.cameras import image_from_world, intrinsics
from worldrt.runtime.scene.labels import label_picture
from worldrt.runtime.scene.poses import upright
from worldrt.runtime.scene.prompt import Weather, prompt_of, things_in


def test_prompts_are_the_official_ones(scene):
    golden = json.loads((scene.folder / "prompt.json").read_text())
    assert len(golden["cases"]) == 6
    for case in golden["cases"]:
        width, height = case["image_size"]
        labels = np.full((height, width), golden["background_label"], np.uint8)
        for label, row0, row1, column0, column1 in case["rectangles_label_row0_row1_col0_col1"]:
            labels[row0:row1, column0:column1] = label
        numbers = (case[name] for name in ("sun_altitude_angle", "precipitation", "fog_density", "cloudiness"))
        things = things_in(labels, golden["min_pixel_ratio"])
        assert prompt_of(Weather(*numbers), case["environment_description"], things) == case["prompt"]


@pytest.mark.parametrize(("count", "named"), [(1152, []), (1153, ["bus"])])
def test_a_thing_is_named_above_its_least_share_only(count, named):
    labels = np.zeros(640 * 360, np.uint8)
    labels[:count] = 16
    assert things_in(labels.reshape(360, 640)) == named


def test_a_near_car_hides_a_far_bus_and_stands_on_the_road():
    eye = np.array((0.0, 0, 1.5))
    inverse = np.eye(4)
    inverse[:3, 3] = -eye
    projection = image_from_world(intrinsics(640, 360, 90.0), inverse)
    road = np.array([[(x, 4, 0), (x + 5, 4, 0), (x + 5, -4, 0), (x, -4, 0)] for x in range(2, 60, 5)], float)
    car = Box("car", upright(8, 0, 0, 0), (2, 0.9, 0.8), (0, 0, 0.8))
    bus = Box("bus", upright(17, 0, 0, 0), (5, 1.2, 1.6), (0, 0, 1.6))
    labels = label_picture((640, 360), projection, eye, road, [car, bus])
    assert labels.shape == (90, 160)
    assert things_in(labels) == ["bus", "car", "roads"]  # the bus stands above the car, which covers its lower part
    # the car's face is 6 m away: 1.8 m of width are 24 of 160 columns, and its lower edge is at row 45 + 80 * 1.5 / 6
    row = np.flatnonzero(labels[55] == 14)
    assert abs(len(row) - 24) <= 2 and abs(row.mean() - 80) <= 1
    assert labels[64, 80] == 14 and labels[67, 80] == 1
