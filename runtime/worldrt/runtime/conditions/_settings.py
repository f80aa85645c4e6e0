"""Settings of sources: checked, with what they are by default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions.base import MOST_FPS
from worldrt.runtime.roads.network import READERS
from worldrt.runtime.scene import boxes, lines
from worldrt.runtime.scene.boxes import BoxStyle, Color
from worldrt.runtime.scene.cameras import FRONT_THREE, REAR_AXLE_M, Camera
from worldrt.runtime.scene.lines import LineStyle
from worldrt.runtime.scene.prompt import LEAST_SHARE, Weather

MOST_VIEWS, MOST_SIDE_PX, MOST_ACTORS, LONGEST_TEXT = 16, 4096, 500, 500


@dataclass(frozen=True)
class Settings:
    """Of all sources; each uses what is its own. `weather` is None where the simulator has it."""

    cameras: tuple[Camera, ...] = FRONT_THREE
    fps: float = 10.0
    surroundings: str = "A downtown urban environment with skyscrapers, residential buildings and an ocean promenade."
    weather: Weather | None = None
    boxes: BoxStyle = field(default_factory=BoxStyle)
    lines: LineStyle = field(default_factory=LineStyle)
    least_share: float = LEAST_SHARE
    rear_axle_m: float = REAR_AXLE_M
    roads: str | None = None
    map_reader: str = "auto"
    vehicles: int = 30
    walkers: int = 16
    host: str = "127.0.0.1"
    port: int = 2000
    timeout_s: float = 10.0
    patience_s: float = 60.0
    master: bool = True
    hero: str = "vehicle.lincoln.mkz_2017"
    hero_spawn: int | None = None
    actors: tuple[Mapping[str, Any], ...] = ()


def settings_of(config: Mapping[str, Any], fps: float | None = None) -> Settings:
    """The settings that a configuration gives, in the names of the table of the manual; the others are as they are by
    default. Raises `InputError` for a name that is not known, or a value that cannot be used."""
    made = Settings()
    for name, value in config.items():
        if name not in READ:
            raise InputError(f"configuration: no '{name[:40]}' here; there are: {', '.join(sorted(READ))}")
        made = replace(made, **READ[name](Value(name, value)))
    return made if fps is None else replace(made, fps=fps)


@dataclass(frozen=True)
class Value:
    """A value of a configuration and where it stands, for errors."""

    where: str
    value: Any

    def wrong(self, expected: str) -> InputError:
        return InputError(f"configuration: {self.where}: expected {expected}, got {str(self.value)[:60]!r}")

    def number(self, low: float, high: float) -> float:
        """Between two numbers; digits as text are taken, as simulators give them."""
        try:
            found = math.nan if isinstance(self.value, bool) else float(self.value)
        except (TypeError, ValueError):
            found = math.nan
        if not low <= found <= high:
            raise self.wrong(f"a number from {low:g} to {high:g}")
        return found

    def whole(self, low: int, high: int) -> int:
        found = self.number(low, high)
        if found != int(found):
            raise self.wrong(f"a whole number from {low} to {high}")
        return int(found)

    def text(self, longest: int = LONGEST_TEXT) -> str:
        if not isinstance(self.value, str) or not self.value or len(self.value) > longest:
            raise self.wrong(f"a text of at most {longest} characters")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def items(self, most: int) -> list[Value]:
        if not isinstance(self.value, (list, tuple)) or len(self.value) > most:
            raise self.wrong(f"a list of at most {most}")
        return [Value(f"{self.where}[{i}]", item) for i, item in enumerate(self.value)]

    def fields(self, *names: str) -> dict[str, Value]:
        """An object's; those that are named are known, any where none is."""
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        for name in self.value:
            if names and name not in names:
                raise InputError(
                    f"configuration: {self.where}: no '{str(name)[:40]}' here; there are: {', '.join(names)}"
                )
        return {name: Value(f"{self.where}.{name}", value) for name, value in self.value.items()}

    def triple(self, bound: float) -> tuple[float, float, float]:
        """Three numbers from -bound to bound."""
        found = [item.number(-bound, bound) for item in self.items(3)]
        if len(found) != 3:
            raise self.wrong("three numbers")
        return found[0], found[1], found[2]


def _camera(value: Value) -> Camera:
    given = value.fields("name", "size", "fov", "location", "rotation")
    if not {"name", "size", "fov"} <= given.keys():
        raise value.wrong("a camera with name, size and fov")
    sides = [item.whole(16, MOST_SIDE_PX) for item in given["size"].items(2)]
    if len(sides) != 2:
        raise given["size"].wrong("[width, height]")
    location, rotation = given.get("location"), given.get("rotation")
    return Camera(
        given["name"].text(80),
        sides[0],
        sides[1],
        given["fov"].number(1, 170),
        (0.0, 0.0, 1.5) if location is None else location.triple(50),
        (0.0, 0.0, 0.0) if rotation is None else rotation.triple(360),
    )


def _cameras(value: Value) -> dict[str, Any]:
    found = tuple(_camera(item) for item in value.items(MOST_VIEWS))
    if not found or len({camera.name for camera in found}) < len(found):
        raise value.wrong("cameras of different names")
    if len({(camera.width_px, camera.height_px) for camera in found}) > 1:
        raise value.wrong("cameras of one size")
    return {"cameras": found}


def _weather(value: Value) -> dict[str, Any]:
    names = {
        "sun_altitude_angle": "sun_altitude_deg",
        "precipitation": "precipitation",
        "fog_density": "fog_density",
        "cloudiness": "cloudiness",
    }
    given = value.fields(*names)
    low = {"sun_altitude_angle": -90.0}
    return {"weather": Weather(**{names[key]: item.number(low.get(key, 0.0), 100.0) for key, item in given.items()})}


def _style(value: Value, style: Any, labels: Sequence[str]) -> Any:
    given = value.fields("max_distance", "pen_width", "color_table", "corner_templates", "edge_indices")
    for name in ("corner_templates", "edge_indices"):
        if name in given:
            raise given[name].wrong("nothing: boxes have the corners and edges that the model knows")
    if "max_distance" in given:
        style = replace(style, reach_m=given["max_distance"].number(1, 1000))
    if "pen_width" in given:
        style = replace(style, pen_px=given["pen_width"].whole(1, 50))
    if "color_table" in given:
        table = given["color_table"].fields(*labels)
        style = replace(style, colors={label: _color(color) for label, color in table.items()})
    return style


def _color(value: Value) -> Color:
    channels = [item.whole(0, 255) for item in value.items(3)]
    if len(channels) != 3:
        raise value.wrong("[red, green, blue]")
    return channels[0], channels[1], channels[2]


def _reader(value: Value) -> dict[str, Any]:
    if value.value not in READERS:
        raise value.wrong(f"one of {', '.join(READERS)}")
    return {"map_reader": value.value}


def _actor(value: Value) -> Mapping[str, Any]:
    """A vehicle or walker to be put into a simulator."""
    given = value.fields("id", "pattern", "attributes", "spawn_index", "location", "rotation")
    if ("id" in given) == ("pattern" in given):
        raise value.wrong("an actor with id or pattern, and spawn_index or location")
    made: dict[str, Any] = {name: given[name].text(80) for name in ("id", "pattern") if name in given}
    if "attributes" in given:
        made["attributes"] = {name: item.text(80) for name, item in given["attributes"].fields().items()}
    if "spawn_index" in given:
        made["spawn_index"] = given["spawn_index"].whole(0, 10**6)
    for name, bound in (("location", 1e5), ("rotation", 360.0)):
        if name in given:
            made[name] = given[name].triple(bound)
    return made


READ: Mapping[str, Any] = {
    "cameras": _cameras,
    "fps": lambda v: {"fps": v.number(0.1, MOST_FPS)},
    "environment_description": lambda v: {"surroundings": v.text()},
    "weather": _weather,
    "boxes": lambda v: {"boxes": _style(v, BoxStyle(), tuple(boxes.COLORS))},
    "lines": lambda v: {"lines": _style(v, LineStyle(), lines.KINDS)},
    "min_pixel_ratio": lambda v: {"least_share": v.number(0, 1)},
    "rear_axle": lambda v: {"rear_axle_m": v.number(-20, 20)},
    "map": lambda v: {"roads": v.text(4096)},
    "map_reader": _reader,
    "vehicles": lambda v: {"vehicles": v.whole(0, MOST_ACTORS)},
    "walkers": lambda v: {"walkers": v.whole(0, MOST_ACTORS)},
    "host": lambda v: {"host": v.text(255)},
    "port": lambda v: {"port": v.whole(1, 65534)},
    "timeout_s": lambda v: {"timeout_s": v.number(0.1, 600)},
    "patience_s": lambda v: {"patience_s": v.number(0, 86400)},
    "master": lambda v: {"master": v.flag()},
    "hero": lambda v: {"hero": v.text(80)},
    "hero_spawn": lambda v: {"hero_spawn": v.whole(0, 10**6)},
    "actors": lambda v: {"actors": tuple(_actor(item) for item in v.items(MOST_ACTORS))},
}
"""What each name of a configuration sets."""
