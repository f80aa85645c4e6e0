"""A car that is driven from the page in headless Chromium: keys turn its way and change its speed."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from worldrt.runtime.conditions import open_source
from worldrt.runtime.conditions_world import ConditionsWorld
from worldrt.runtime.live.layout_world import LayoutWorld
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Wheel
from worldrt.runtime.models import Models
from worldrt.runtime.schedule import methods

from ..test_conditions_world import CAMERAS
from .client import served_in_thread
from .test_page import chromium, numbers, pages  # noqa: F401  # fixtures

PIXELS = """() => {
  const canvas = document.getElementById('picture');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.width, canvas.height, data.reduce((sum, value, i) => (sum * 31 + value) % 1000003, 7)];
}"""
LIMIT_S = 300.0


class Driven:
    """The source `drive`, watched: where the car was in each frame, under which control."""

    def __init__(self, seed, views):
        cameras = [CAMERAS[i % 2] | {"name": f"CAMERA {i}"} for i in range(views)]
        self._source = open_source("drive", {"cameras": cameras, "vehicles": 1, "map_reader": "own"}, seed=seed)
        self.rides, self._lock = [], threading.Lock()

    def __getattr__(self, name):
        return getattr(self._source, name)

    def next(self, control):
        frame = self._source.next(control)
        with self._lock:
            self.rides.append((control, frame.ego.copy(), frame.fps))
        return frame

    def last(self, control):
        """Metres a second and direction in radians of the last frames under a control; of fewer than five, none."""
        with self._lock:
            rides = list(self.rides)
        run = [ego for name, ego, _ in rides if name == control][-5:]
        if len(run) < 5 or rides[-1][0] != control:
            return None
        step = run[-1][:2, 3] - run[-2][:2, 3]
        turned = [math.atan2(ego[1, 0], ego[0, 0]) for ego in (run[0], run[-1])]
        return float(np.hypot(*step) * rides[-1][2]), math.remainder(turned[1] - turned[0], math.tau)


@pytest.fixture(params=["conditions", pytest.param("model", marks=pytest.mark.slow)])
def driven(request):
    """A live session and its cars: the pictures are the conditions, or what `nano-opendwm` makes of them."""
    sources = []

    def open_car(seed):
        sources.append(Driven(seed, 1 if request.param == "conditions" else 3))
        return sources[-1]

    def session(world):
        pace = PaceOptions(float(world.video.fps))
        return WorldSession(world, seed=4, pace=pace, steering=Wheel(world.controls, "neutral", 4))

    if request.param == "conditions":
        yield session(ConditionsWorld(open_car, 4)), sources
        return
    models = Models.open([request.getfixturevalue("opendwm_bundle")], options={"threads": 1})
    yield session(LayoutWorld(models, open_car, seed=4, schedule=methods.opendwm(6, 1))), sources
    models.close()


def until_drawn(page, more=3):
    """As that of the other tests of the page, for a world that takes its time."""
    before, end = numbers(page)["drawn"], time.monotonic() + LIMIT_S
    while numbers(page)["drawn"] <= before + more:
        assert time.monotonic() < end, numbers(page)
        time.sleep(0.02)


def test_keys_on_the_page_drive_the_car(driven, pages, tmp_path):  # noqa: F811
    session, sources = driven

    def reached(control, wanted):
        end = time.monotonic() + LIMIT_S
        while (state := sources[-1].last(control)) is None or not wanted(*state):
            assert time.monotonic() < end, (control, state)
            time.sleep(0.02)

    with served_in_thread(tmp_path, session) as (url, _):
        page = pages(url)
        until_drawn(page)
        before = page.evaluate(PIXELS)
        page.keyboard.down("w")
        reached("D", lambda speed, turned: speed > 4)
        page.keyboard.down("a")
        reached("DL", lambda speed, turned: turned > 0.05)
        page.keyboard.up("a")
        page.keyboard.down("d")
        reached("DR", lambda speed, turned: turned < -0.05)
        page.keyboard.up("d")
        page.keyboard.up("w")
        page.keyboard.down("s")
        reached("B", lambda speed, turned: speed < 2)
        page.keyboard.up("s")
        until_drawn(page)
        after = page.evaluate(PIXELS)
        assert after[:2] == before[:2] == [session.video.width, session.video.height]
        assert after[2] != before[2], "the page shows another place"
