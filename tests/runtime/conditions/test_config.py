"""Configuration files: our own, OpenDWM's, and those that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.condition_config import OWN, read
from worldrt.runtime.conditions._settings import READ, settings_of

PAGE = (Path(__file__).parents[3] / "docs" / "drive.md").read_text(encoding="utf-8")
STREAMING = {
    "device": "cuda",
    "generator_seed": 7,
    "global_state": {"carla_client": {"_class_name": "carla.Client", "host": "sim", "port": 2002, "worker_threads": 1}},
    "preview_condition": True,
    "pipeline": {
        "_class_name": "dwm.pipelines.ctsd.StreamingCrossviewTemporalSD",
        "inference_config": {"guidance_scale": 4, "inference_steps": 24},
    },
    "latent_size": [22, 38],
    "data_adapter": {
        "_class_name": "dwm.datasets.carla_streaming.StreamingDataAdapter",
        "client": {"_class_name": "dwm.common.get_state", "key": "carla_client"},
        "sensor_channels": ["CAM_FRONT_RIGHT", "CAM_FRONT"],
        "transform_list": [],
        "environment_description": "A town by the sea.",
        "rear_vehicle_center": [[1, 0, 0, -1.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        "_3dbox_image_settings": {"max_distance": 60},
        "fps": 10,
    },
    "stream_options": {"crf": "20"},
}  # fmt: skip
SENSOR = {"image_size_x": "320", "image_size_y": "180", "fov": "64.5"}
SIMULATION = {
    "world_settings": {"synchronous_mode": True, "fixed_delta_seconds": 0.05},
    "total_steps": 65536,
    "seed": 3,
    "actor_configs": [
        {
            "id": "vehicle.tesla.model3",
            "attributes": {"role_name": "hero"},
            "spawn_index": 1,
            "state_machine": "dwm.utils.carla_actor_state_machines.BevSpectator",
            "child_configs": [
                {
                    "id": f"sensor.camera.{kind}",
                    "attributes": SENSOR | {"role_name": name},
                    "spawn_transform": {"location": [0.1, side, 1.5], "rotation": [0, 50 * side, 0]},
                }
                for name, side in (("CAM_FRONT", 0), ("CAM_FRONT_RIGHT", 1))
                for kind in ("rgb", "semantic_segmentation")
            ],
        },
        {"pattern": "vehicle.audi.*", "spawn_index": 0},
        {
            "pattern": "walker.pedestrian.*",
            "attributes": {"speed": "1.7"},
            "spawn_transform": {"location": [-69, 36, 1]},
        },
    ],
}


def write(folder, data, name="a.json"):
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_the_official_files_are_mapped(tmp_path):
    config = read([write(tmp_path, SIMULATION, "s.json"), write(tmp_path, STREAMING, "t.json")])
    assert (config.seed, config.overlay, config.guidance_scale) == (7, True, 4)
    assert set(config.unused) == {"total_steps", "device", "latent_size", "stream_options", "pipeline",
                                  "data_adapter.client", "data_adapter.transform_list"}  # fmt: skip
    settings = settings_of(config.settings)
    assert (settings.host, settings.port, settings.fps) == ("sim", 2002, 10)
    assert [camera.name for camera in settings.cameras] == ["CAM_FRONT_RIGHT", "CAM_FRONT"]
    right = settings.cameras[0]
    assert (right.width_px, right.height_px, right.fov_deg) == (320, 180, 64.5)
    assert (right.location_m, right.rotation_deg) == ((0.1, 1, 1.5), (0, 50, 0))
    assert settings.surroundings == "A town by the sea."
    assert settings.rear_axle_m == 1.4 and settings.boxes.reach_m == 60
    assert (settings.hero, settings.hero_spawn) == ("vehicle.tesla.model3", 1)
    assert (settings.vehicles, settings.walkers) == (1, 1)
    assert settings.actors[1] == {
        "pattern": "walker.pedestrian.*", "attributes": {"speed": "1.7"}, "location": (-69, 36, 1)
    }  # fmt: skip


def test_the_later_file_wins_and_a_simulation_gives_its_rate(tmp_path):
    own = write(tmp_path, {"fps": 4, "overlay": False, "seed": 11})
    streaming, simulation = write(tmp_path, STREAMING, "t.json"), write(tmp_path, SIMULATION, "s.json")
    config = read([streaming, own])
    assert (config.settings["fps"], config.overlay, config.seed) == (4, False, 11)
    assert settings_of(read([simulation]).settings).fps == 20
    assert settings_of(config.settings, fps=2.5).fps == 2.5


def test_views_are_chosen_of_the_standard_cameras(tmp_path):
    config = read([write(tmp_path, {"views": ["CAM_FRONT"], "map": "roads/a.xodr"})])
    settings = settings_of(config.settings)
    assert [camera.fov_deg for camera in settings.cameras] == [65.105]
    assert settings.roads == str(tmp_path / "roads" / "a.xodr")  # beside the file that names it


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object, got list"),
        ("[" * 100_000, "not JSON"),
        ({"views": ["CAM_ROOF"]}, "no camera 'CAM_ROOF'; there are: CAM_FRONT_LEFT, CAM_FRONT"),
        ({"views": "CAM_FRONT"}, "views: expected a list of names"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"overlay": 1}, "overlay: expected true or false"),
        (STREAMING | {"optimizer": {}}, "'optimizer' is not known here"),
        (STREAMING | {"data_adapter": {"_class_name": "os.system"}}, "data_adapter: expected dwm.datasets"),
        (STREAMING | {"data_adapter": {"surprise": 1}}, "'surprise' is not known here"),
        (
            STREAMING | {"data_adapter": {"rear_vehicle_center": [[0]]}},
            "it is not built as it should be|a step along x",
        ),
        (STREAMING | {"global_state": 3}, "it is not built as it should be"),
        (SIMULATION | {"actor_configs": [3]}, "it is not built as it should be"),
        (SIMULATION | {"world_settings": {"fixed_delta_seconds": "soon"}}, "it is not built as it should be"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, data, why):
    path = write(tmp_path, data)
    with pytest.raises(InputError, match=why):
        read([path])


def test_a_file_that_is_not_there_or_too_large_is_named(tmp_path):
    with pytest.raises(InputError, match="none.json: cannot be read: No such file"):
        read([tmp_path / "none.json"])
    with pytest.raises(InputError, match="more than 4194304 bytes"):
        read([write(tmp_path, " " * (4 * 2**20 + 1))])


def test_the_page_names_every_setting_and_its_examples_run(tmp_path):
    part = PAGE.split("## Configuration")[1].split("## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == READ.keys() | set(OWN)
    (example,) = re.findall(r"```json\n(.*?)```", part, re.DOTALL)
    settings = settings_of(read([write(tmp_path, example)]).settings)
    assert (settings.vehicles, settings.fps, len(settings.cameras)) == (40, 10, 3)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space = {}
    exec(code, space)
    assert space["frame"].images["box"].shape == (3, 360, 640, 3)
