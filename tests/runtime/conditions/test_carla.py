"""The source `carla` against a recording simulator with maps of the carla package, and its errors."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions import open_source
from worldrt.runtime.conditions._carla_link import Pictures, pedals
from worldrt.runtime.conditions._settings import settings_of
from worldrt.runtime.conditions.carla import CarlaSource
from worldrt.runtime.scene.boxes import BoxStyle, box_segments
from worldrt.runtime.scene.cameras import FRONT_THREE, image_from_world
from worldrt.runtime.scene.drawing import draw_lines
from worldrt.runtime.scene.poses import flipped

from ...fakes import roads

carla = pytest.importorskip("carla")

from ...fakes.carla_sim import Simulator  # noqa: E402

SMALL = {"cameras": [{"name": n, "size": [96, 54], "fov": 90, "rotation": [0, yaw, 0], "location": [0.5, 0, 1.5]}
         for n, yaw in (("LEFT", -50), ("FRONT", 0))], "patience_s": 3}  # fmt: skip


@pytest.fixture
def simulator():
    return Simulator(roads.crossing())


def opened(simulator, config=None, **options):
    told, waits = [], []
    source = CarlaSource(
        settings_of(SMALL | (config or {})), 0, simulator.api, warn=told.append, sleep=waits.append, **options
    )
    source.told, source.waits = told, waits
    return source


def hero(simulator):
    (found,) = [actor for actor in simulator.actors if actor.attributes.get("role_name") == "hero"]
    return found


def test_an_empty_simulator_gets_a_car_and_its_cameras(simulator):
    source = opened(simulator)
    frame = source.next("D")
    assert source.views == ("LEFT", "FRONT") == frame.cameras.names
    assert frame.images["map"].shape == frame.images["box"].shape == (2, 54, 96, 3)
    assert [call[0] for call in simulator.named("spawn")] == [
        "vehicle.lincoln.mkz_2017", "sensor.camera.semantic_segmentation", "sensor.camera.semantic_segmentation"
    ]  # fmt: skip
    assert simulator.named("apply_settings") == [(True, 0.1)]
    assert frame.text[0].startswith("daytime. clear sky. A downtown") and frame.text[0].endswith(" roads.")
    np.testing.assert_allclose(frame.cameras.intrinsics[0], [[48, 0, 48], [0, 48, 27], [0, 0, 1]])
    np.testing.assert_allclose(frame.cameras.transforms[1][:3, 3], (2.0, 0, 1.5), atol=1e-6)


def test_each_frame_is_one_tick_and_the_pictures_of_that_tick(simulator):
    source = opened(simulator)
    before = len(simulator.named("tick"))
    frames = [source.next("D") for _ in range(5)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert len(simulator.named("tick")) == before + 5
    assert set(simulator.seen.values()) == {simulator.frame}
    moved = np.diff([frame.ego[:2, 3] for frame in frames], axis=0)
    assert (np.linalg.norm(moved, axis=1) > 0).all()


def test_the_car_is_where_the_simulator_has_it(simulator):
    source = opened(simulator)
    ego = source.next("D").ego
    place = hero(simulator).transform
    heading = -np.radians(place.rotation.yaw)
    axle = (place.location.x - 1.5 * np.cos(heading), -place.location.y - 1.5 * np.sin(heading))
    np.testing.assert_allclose(ego[:2, 3], axle, atol=1e-4)
    np.testing.assert_allclose(ego[:2, 0], (np.cos(heading), np.sin(heading)), atol=1e-5)


def test_others_are_drawn_where_they_stand(simulator):
    source = opened(simulator)
    source.next("N")
    ahead = hero(simulator).transform
    forward = ahead.get_forward_vector()
    place = carla.Location(ahead.location.x + 12 * forward.x, ahead.location.y + 12 * forward.y, ahead.location.z)
    simulator.put("vehicle.volkswagen.t2", carla.Transform(place, ahead.rotation))
    simulator.put("static.prop.barrel", carla.Transform(place, ahead.rotation))
    frame = source.next("N")
    assert not frame.images["box"][0].any() or (frame.images["box"][0].max(0).max(0) == (0, 0, 255)).all()
    # the same box, by hand, from the car's pose: its middle is 12 m ahead of the car's
    from worldrt.runtime.scene.boxes import Box

    middle = frame.ego.copy()
    middle[:3, 3] += 1.5 * frame.ego[:3, 0]
    pose = middle.copy()
    pose[:3, 3] += 12 * middle[:3, 0]
    camera = (
        frame.ego @ frame.cameras.transforms[1] @ np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    )
    box = Box("van", pose, (2.3, 1.0, 0.75), (0.1, -0.2, 0.75))
    projection = image_from_world(frame.cameras.intrinsics[1], np.linalg.inv(camera))
    lines, colors = box_segments([box], projection, camera[:3, 3], BoxStyle())
    expected = draw_lines((96, 54), lines, colors, 3)
    assert expected.any()
    assert (np.abs(frame.images["box"][1].astype(int) - expected) > 0).mean() < 0.02


def test_controls_become_pedals_and_wheel(simulator):
    source = opened(simulator)
    for control in ("D", "DL", "DR", "N", "B"):
        source.next(control)
    given = [tuple(round(value, 3) for value in call) for call in simulator.named("apply_control")]
    assert given[:4] == [(0.8, 0, 0, False), (0.8, -0.8, 0, False), (0.8, 0.8, 0, False), (0, 0, 0.3, False)]
    assert given[4] == (0.8, 0, 0, True)  # it stands, so it goes back
    assert pedals("B", 5.0) == {"steer": 0.0, "brake": 1.0}
    assert pedals("DL", -2.0) == {"steer": -0.8, "brake": 1.0}
    with pytest.raises(InputError, match="expected one of D, DL"):
        source.next("UP")


def test_without_a_control_the_traffic_manager_drives_until_there_is_one(simulator):
    source = opened(simulator)
    for control in ("AUTO", None, "D", None):
        source.next(control)
    assert simulator.named("set_autopilot") == [(True,), (False,), (True,)]
    assert simulator.named("traffic_synchronous") == [(True,), (True,)]


def test_a_hero_and_cameras_that_are_there_are_taken_and_left(simulator):
    place = carla.Transform(carla.Location(25, -50, 0.1), carla.Rotation())
    car = simulator.put("vehicle.audi.tt", place, role_name="hero")
    size = {"image_size_x": "96", "image_size_y": "54", "fov": "80"}
    mount = carla.Transform(carla.Location(1.0, 0, 1.4), carla.Rotation())
    simulator.put("sensor.camera.semantic_segmentation", mount, car, role_name="FRONT", **size)
    source = opened(simulator)
    frame = source.next("N")
    assert len(simulator.named("spawn")) == 1  # the other camera
    np.testing.assert_allclose(frame.cameras.intrinsics[1][0, 0], 48 / np.tan(np.radians(40)))
    np.testing.assert_allclose(frame.cameras.transforms[1][:3, 3], (2.5, 0, 1.4), atol=1e-6)
    source.close()
    source.close()
    assert simulator.named("destroy") == [("sensor.camera.semantic_segmentation",)]
    assert hero(simulator) is car
    assert (simulator.settings.synchronous_mode, simulator.settings.fixed_delta_seconds) == (False, None)


def test_who_is_not_the_master_waits_for_its_ticks(simulator):
    source = opened(simulator, {"master": False, "timeout_s": 7})
    source.next("D")
    assert not simulator.named("tick") and not simulator.named("apply_settings")
    assert set(simulator.named("wait_for_tick")) == {(7.0,)}


def test_a_simulator_that_comes_back_is_gone_on_with(simulator):
    source = opened(simulator)
    source.next("D")
    simulator.alive = False
    asked = iter([None, None, simulator.restart])

    def sleep(seconds):
        source.waits.append(seconds)
        back = next(asked)
        if back:
            back()

    source._sleep = sleep
    frame = source.next("D")
    assert frame.index == 1
    assert source.waits == [0.5, 1.0, 2.0]
    assert [text.split(": ")[1].split(" ")[0] for text in source.told] == [
        "connected",
        "waiting",
        "waiting",
        "waiting",
        "connected",
    ]
    assert hero(simulator) and simulator.settings.synchronous_mode  # it was given again what it had


def test_a_simulator_that_stays_away_is_an_error_after_a_while_and_can_be_asked_again(simulator):
    source = opened(simulator)
    source.next("D")
    simulator.alive = False
    with pytest.raises(
        InputError, match=r"127.0.0.1:2000 is gone \(time-out of 2000ms .*\), and was not back in 3.5 s"
    ):
        source.next("D")
    simulator.restart()
    assert source.next("D").index == 1


def test_pictures_that_do_not_come_are_a_lost_connection(simulator):
    source = opened(simulator, {"timeout_s": 0.1, "patience_s": 0})
    simulator.dumb_cameras = True
    with pytest.raises(InputError, match="no picture of LEFT, FRONT within 0.1 s"):
        source.next("D")


def test_no_simulator_is_said_at_once(simulator):
    simulator.alive = False
    with pytest.raises(InputError, match=r"no simulator answers at 127.0.0.1:2000 \(time-out .* -RenderOffScreen"):
        opened(simulator)


def test_another_version_is_said_and_is_no_matter_of_waiting(simulator):
    simulator.version = "0.9.15-dirty"
    with pytest.raises(InputError, match="the simulator is of version 0.9.15-dirty, the package of 0.9.16"):
        opened(simulator)
    simulator.version = "0.9.16"
    source = opened(simulator)
    source.next("D")
    simulator.alive = False
    source._sleep = lambda seconds: simulator.restart("0.9.14")
    with pytest.raises(InputError, match="version 0.9.14"):
        source.next("D")


def test_what_the_simulator_cannot_do_leaves_it_as_it_was(simulator):
    for config, why in (
        ({"hero": "vehicle.flying.carpet"}, "has no 'vehicle.flying.carpet'"),
        (
            {"actors": [{"pattern": "walker.*", "attributes": {"mood": "good"}, "spawn_index": 0}]},
            "no attribute 'mood'",
        ),
    ):
        with pytest.raises(InputError, match=why):
            opened(simulator, config)
        assert simulator.actors == [] and simulator.settings.synchronous_mode is False


def test_cameras_of_another_size_are_refused(simulator):
    car = simulator.put("vehicle.audi.tt", carla.Transform(carla.Location(25, -50, 0)), role_name="hero")
    size = {"image_size_x": "640", "image_size_y": "360", "fov": "80"}
    simulator.put("sensor.camera.semantic_segmentation", carla.Transform(), car, role_name="FRONT", **size)
    with pytest.raises(InputError, match="FRONT has pictures of 640x360, the configuration has 96x54"):
        opened(simulator)


def test_actors_of_a_configuration_are_put_there_the_same_for_a_seed(simulator):
    actors = [{"pattern": "vehicle.*", "spawn_index": 3}, {"pattern": "walker.*", "location": [3, -40, 1]}]
    source = opened(simulator, {"actors": actors, "hero_spawn": 0})
    kinds = [actor.type_id for actor in simulator.actors if not actor.type_id.startswith("sensor")]
    assert len(kinds) == 3 and kinds[2] == "walker.pedestrian.0001"
    source.close()
    assert simulator.actors == []
    opened(simulator, {"actors": actors, "hero_spawn": 0})
    assert [actor.type_id for actor in simulator.actors if not actor.type_id.startswith("sensor")] == kinds


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    with pytest.raises(InputError, match=r"pip install 'worldrt\[carla\]'"):
        open_source("carla")


def test_the_real_package_finds_no_simulator_where_none_runs():
    config = {"host": "127.0.0.1", "port": 47921, "timeout_s": 0.2}
    with pytest.raises(InputError, match="no simulator answers at 127.0.0.1:47921"):
        open_source("carla", config)


def test_boxes_have_the_axes_of_the_simulator(simulator):
    from worldrt.runtime.conditions.carla import box_of

    turned = carla.Transform(carla.Location(10, 20, 1), carla.Rotation(yaw=90))
    actor = simulator.put("vehicle.audi.tt", turned)
    box = box_of(actor)
    front_left_top = box.corners[7]  # 2.3 + 0.1 ahead, 1.0 to the left of 0.2 to the right, 0.75 over 0.75
    # ahead is y there, which is -y here; left of it is x in both
    np.testing.assert_allclose(front_left_top, (10 + 0.8, -(20 + 2.4), 1 + 1.5), atol=1e-5)
    np.testing.assert_allclose(flipped(box.pose), turned.get_matrix(), atol=1e-6)
    assert len(FRONT_THREE) == 3 and box_of(simulator.put("static.prop.barrel", turned)) is None


def test_pictures_of_the_simulators_threads_are_waited_for():
    pictures = Pictures()
    takers = [pictures.taker(name) for name in ("a", "b")]

    def deliver():
        for frame in range(1, 300):
            for label, take in enumerate(takers):
                raw = np.full((2, 3, 4), 10 * label + frame % 10, np.uint8).tobytes()
                take(SimpleNamespace(raw_data=raw, width=3, height=2, frame=frame))

    thread = threading.Thread(target=deliver)
    thread.start()
    a, b = pictures.wait(["b", "a"], 299, timeout_s=60)
    thread.join()
    assert a.shape == (2, 3) and (a == 19).all() and (b == 9).all()
    with pytest.raises(RuntimeError, match="no picture of a within 0 s"):
        pictures.wait(["a"], 300, timeout_s=0)
