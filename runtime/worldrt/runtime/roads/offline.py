"""Lanes by the map of the carla package, which needs no simulator."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.roads.network import LaneKey, Path, followers, keys, lane_of, runs_with_road, stations
from worldrt.runtime.roads.road import RoadMap

BEYOND_M = 0.05  # the end of a lane, from where the next one is asked for
INSIDE_M = 1e-3  # a station on the border of two sections belongs to either


def paths(roads: RoadMap, data: bytes) -> dict[LaneKey, Path]:
    """The lanes that `network` names, as that map has them. Raises `InputError` for a map that it refuses."""
    made = offline_map(data)
    wanted = [key for key in keys(roads) if key.road.lstrip("-").isdecimal()]
    return {key: path for key in wanted if (path := _path(roads, made, key)) is not None}


def offline_map(data: bytes) -> Any:
    """A `carla.Map`. Raises `InputError`."""
    try:
        carla = importlib.import_module("carla")
    except ImportError as error:
        raise InputError("map_reader: the carla package is not installed: pip install 'worldrt[carla]'") from error
    try:
        return carla.Map("roads", data.decode("utf-8", "replace"))
    except RuntimeError as error:
        raise InputError(f"roads: the carla package cannot read them ({error}); give map_reader own") from error


def _path(roads: RoadMap, made: Any, key: LaneKey) -> Path | None:
    road, section, _ = lane_of(roads, key)
    s_m = stations(section)
    s_m[0], s_m[-1] = s_m[0] + INSIDE_M, s_m[-1] - INSIDE_M
    points = [made.get_waypoint_xodr(int(key.road), key.lane, float(s)) for s in s_m]
    if any(point is None for point in points):
        return None
    if not runs_with_road(road, key.lane):
        points.reverse()
    places = [point.transform.location for point in points]
    centres = np.array([(place.x, -place.y, place.z) for place in places])
    widths = np.array([point.lane_width for point in points])
    return Path(key, centres, widths, _followers(roads, points[-1], key), road.junction, road.speed_mps)


def _followers(roads: RoadMap, last: Any, key: LaneKey) -> tuple[LaneKey, ...]:
    """As that map has them; where it has none, as the file does: it loses its way where two roads make a ring."""
    found = []
    for point in last.next(BEYOND_M):
        other = LaneKey(str(point.road_id), _section(roads, str(point.road_id), point.s), point.lane_id)
        if other != key:
            found.append(other)
    forward = runs_with_road(roads.roads[key.road], key.lane)
    return tuple(dict.fromkeys(found or followers(roads, key, forward=forward)))


def _section(roads: RoadMap, road_id: str, s_m: float) -> int:
    begins = [section.begin_m for section in roads.roads[road_id].sections]
    return max(0, int(np.searchsorted(begins, s_m, side="right")) - 1)
