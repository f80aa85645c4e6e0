"""Configuration files of driving worlds: our own, and OpenDWM's for streaming and for its simulation.

Names of classes in OpenDWM's files are compared and never looked up. What a file says of things that lie elsewhere
here, such as the model, is named in `unused`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.scene.cameras import FRONT_THREE

MOST_BYTES = 4 * 2**20
ADAPTER = "dwm.datasets.carla_streaming.StreamingDataAdapter"
OWN = ("overlay", "seed", "views", "guidance_scale")
"""What a file of our own may have beside the settings of a source."""
Json = Mapping[str, Any]


@dataclass
class Config:
    """What files say: `settings` for `open_source`, and what concerns the world that is made, None where it is not
    said."""

    settings: dict[str, Any] = field(default_factory=dict)
    views: list[str] | None = None
    seed: int | None = None
    overlay: bool | None = None
    guidance_scale: float | None = None
    unused: list[str] = field(default_factory=list)


def read(paths: Iterable[Path]) -> Config:
    """Read files, of which the later ones win. Raises `InputError`."""
    made = Config()
    for path in paths:
        data = _load(path)
        kind = (
            _streaming
            if {"data_adapter", "pipeline"} & data.keys()
            else _simulation
            if "actor_configs" in data
            else _own
        )
        try:
            kind(made, data, path)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"{path}: it is not built as it should be: {type(error).__name__} {error}") from error
    if made.views is not None:
        made.settings["cameras"] = _chosen(made)
    return made


def _load(path: Path) -> Json:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: more than {MOST_BYTES} bytes; give a configuration")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object, got {type(data).__name__}")
    return data


def _own(made: Config, data: Json, path: Path) -> None:
    """A flat object."""
    for name, value in data.items():
        if name == "map":
            made.settings[name] = str(path.parent / value)
        elif name in OWN:
            _checked(path, name, value)
            setattr(made, name, value)
        else:
            made.settings[name] = value


def _streaming(made: Config, data: Json, path: Path) -> None:
    """That of the official `streaming.py`."""
    known = ("generator_seed", "preview_condition", "global_state", "data_adapter", "pipeline")
    made.unused += _others(data, known, ("device", "latent_size", "container_options", "stream_options"), path)
    for name, own in (("generator_seed", "seed"), ("preview_condition", "overlay")):
        if name in data:
            _checked(path, own, data[name])
            setattr(made, own, data[name])
    for state in data.get("global_state", {}).values():
        if state.get("_class_name") == "carla.Client":
            made.settings.update({name: state[name] for name in ("host", "port") if name in state})
    inference = data.get("pipeline", {}).get("inference_config", {})
    if "guidance_scale" in inference:
        _checked(path, "guidance_scale", inference["guidance_scale"])
        made.guidance_scale = inference["guidance_scale"]
    made.unused += ["pipeline"] if "pipeline" in data else []
    _adapter(made, data.get("data_adapter", {}), path)


def _adapter(made: Config, data: Json, path: Path) -> None:
    if data.get("_class_name", ADAPTER) != ADAPTER:
        raise InputError(f"{path}: data_adapter: expected {ADAPTER}, got '{str(data['_class_name'])[:80]}'")
    names = {
        "environment_description": "environment_description",
        "fps": "fps",
        "master": "master",
        "min_pixel_ratio": "min_pixel_ratio",
        "_3dbox_image_settings": "boxes",
        "hdmap_image_settings": "lines",
    }
    elsewhere = ("client", "transform_list", "pop_list", "collate_fn", "enable_images", "stub_key_data_dict")
    known = (*names, "_class_name", "sensor_channels", "rear_vehicle_center")
    made.unused += [f"data_adapter.{name}" for name in _others(data, known, elsewhere, path)]
    made.settings.update({own: data[name] for name, own in names.items() if data.get(name) is not None})
    if "sensor_channels" in data:
        _checked(path, "views", data["sensor_channels"])
        made.views = list(data["sensor_channels"])
    if data.get("rear_vehicle_center") is not None:
        centre = [[float(number) for number in row] for row in data["rear_vehicle_center"]]
        if [row[:3] + [0.0] * (i == 0) + row[3:] * (i > 0) for i, row in enumerate(centre)] != _IDENTITY:
            raise InputError(f"{path}: rear_vehicle_center: expected a step along x, got {str(centre)[:80]}")
        made.settings["rear_axle"] = -centre[0][3]


_IDENTITY = [[float(i == j) for j in range(4)] for i in range(4)]


def _simulation(made: Config, data: Json, path: Path) -> None:
    """That of the official `carla_simulation.py`."""
    known = ("seed", "actor_configs", "world_settings")
    made.unused += _others(data, known, ("total_steps", "traffic_manager_settings", "master"), path)
    if "seed" in data:
        _checked(path, "seed", data["seed"])
        made.seed = data["seed"]
    if data.get("world_settings", {}).get("fixed_delta_seconds"):
        made.settings["fps"] = 1 / float(data["world_settings"]["fixed_delta_seconds"])
    actors = [_actor(actor) for actor in data["actor_configs"]]
    heroes = [config for config, actor in zip(data["actor_configs"], actors, strict=True) if _role(actor) == "hero"]
    others = [actor for actor in actors if _role(actor) != "hero"]
    made.settings["actors"] = others
    for name, prefix in (("vehicles", "vehicle"), ("walkers", "walker")):
        made.settings[name] = sum(str(actor.get("id", actor.get("pattern", ""))).startswith(prefix) for actor in others)
    if heroes:
        made.settings["hero"] = heroes[0]["id"]
        if "spawn_index" in heroes[0]:
            made.settings["hero_spawn"] = heroes[0]["spawn_index"]
        children = [child for child in heroes[0].get("child_configs", ()) if child.get("id") == "sensor.camera.rgb"]
        if children:
            made.settings["cameras"] = [_camera(child) for child in children]


def _actor(data: Json) -> dict[str, Any]:
    """Those of its entries that say what is put where."""
    made = {name: data[name] for name in ("id", "pattern", "attributes", "spawn_index") if name in data}
    place = data.get("spawn_transform", {})
    return made | {name: place[name] for name in ("location", "rotation") if name in place}


def _role(actor: Json) -> str:
    return str(actor.get("attributes", {}).get("role_name", ""))


def _camera(data: Json) -> dict[str, Any]:
    attributes, place = data["attributes"], data.get("spawn_transform", {})
    made = {
        "name": attributes["role_name"],
        "size": [int(attributes["image_size_x"]), int(attributes["image_size_y"])],
        "fov": float(attributes["fov"]),
    }
    return made | {name: place[name] for name in ("location", "rotation") if name in place}


def _chosen(made: Config) -> list[Any]:
    """The cameras of the views, in their order."""
    standard = [
        {
            "name": camera.name,
            "size": [camera.width_px, camera.height_px],
            "fov": camera.fov_deg,
            "location": camera.location_m,
            "rotation": camera.rotation_deg,
        }
        for camera in FRONT_THREE
    ]
    there = {str(camera.get("name")): camera for camera in made.settings.get("cameras", standard)}
    missing = [name for name in made.views or () if name not in there]
    if missing:
        raise InputError(f"configuration: no camera '{missing[0][:40]}'; there are: {', '.join(there)}")
    return [there[name] for name in made.views or ()]


def _others(data: Json, known: Iterable[str], elsewhere: Iterable[str], path: Path) -> list[str]:
    """The names that are known, and not used. Raises `InputError` for the others."""
    strange = data.keys() - set(known) - set(elsewhere)
    if strange:
        raise InputError(f"{path}: '{min(strange)[:40]}' is not known here; remove it")
    return [name for name in elsewhere if name in data]


_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "overlay": ("true or false", lambda value: isinstance(value, bool)),
    "seed": ("a whole number from 0 to 4294967295", lambda value: type(value) is int and 0 <= value < 2**32),
    "guidance_scale": ("a number", lambda value: type(value) in (int, float) and -100 < value < 100),
    "views": (
        "a list of names of cameras",
        lambda value: isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value),
    ),
}


def _checked(path: Path, name: str, value: Any) -> None:
    expected, fits = _KINDS[name]
    if not fits(value):
        raise InputError(f"{path}: {name}: expected {expected}, got {str(value)[:60]!r}")
