"""Lanes as paths that vehicles follow: centre lines in the direction of driving, and what they lead to."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.roads.curves import Float64
from worldrt.runtime.roads.road import Lane, Link, Road, RoadMap, Section

STEP_M = 1.0
READERS = ("auto", "own", "carla")


class LaneKey(NamedTuple):
    """A lane of a section of a road."""

    road: str
    section: int
    lane: int


@dataclass(frozen=True, eq=False)
class Path:
    """A lane in the direction of driving: centres `points` (n, 3), a metre or less apart, and widths (n)."""

    key: LaneKey
    points: Float64
    widths_m: Float64
    successors: tuple[LaneKey, ...]
    junction: str | None
    speed_mps: float | None

    @cached_property
    def along_m(self) -> Float64:
        """The distance of each point from the beginning (n), level."""
        steps = np.hypot(*np.diff(self.points[:, :2], axis=0).T)
        return np.concatenate(((0.0,), np.cumsum(steps)))

    @cached_property
    def headings_rad(self) -> Float64:
        """The direction at each point (n), without jumps."""
        step = np.gradient(self.points[:, :2], axis=0)
        return np.unwrap(np.arctan2(step[:, 1], step[:, 0]))

    @property
    def length_m(self) -> float:
        return float(self.along_m[-1])

    def at(self, along_m: float, left_m: float = 0.0) -> tuple[Float64, float, float]:
        """The point (3) at a distance from the beginning and to the left, the heading there, and the slope."""
        places = self.along_m
        index = min(max(int(places.searchsorted(along_m)), 1), len(places) - 1)
        run = float(places[index] - places[index - 1])
        share = min(max((along_m - float(places[index - 1])) / run, 0.0), 1.0) if run else 0.0
        step = self.points[index] - self.points[index - 1]
        turned = float(self.headings_rad[index] - self.headings_rad[index - 1])
        heading = float(self.headings_rad[index - 1]) + share * turned
        point = self.points[index - 1] + share * step
        if left_m:
            point[0] -= left_m * math.sin(heading)
            point[1] += left_m * math.cos(heading)
        return point, heading, math.atan2(float(step[2]), run)


Network = Mapping[LaneKey, Path]


def network(roads: RoadMap, data: bytes, reader: str = "auto") -> Network:
    """The lanes of a map that are to be driven on. `own` samples them from `roads`; `carla` asks the map of the carla
    package for the same lanes, made of the file's bytes; `auto` does so where that is installed.

    Raises `InputError` where there are none, or the package is missing.
    """
    if reader not in READERS:
        raise InputError(f"map_reader: expected one of {', '.join(READERS)}, got '{reader[:20]}'")
    if reader == "carla" or (reader == "auto" and importlib.util.find_spec("carla") is not None):
        from worldrt.runtime.roads import offline

        paths = offline.paths(roads, data)
    else:
        paths = {key: own_path(roads, key) for key in keys(roads)}
    if not paths:
        raise InputError("roads: there is no lane to drive on; expected lanes of the type 'driving'")
    return paths


def reader_of(reader: str) -> str:
    """The reader that `network` takes."""
    if reader != "auto":
        return reader
    return "own" if importlib.util.find_spec("carla") is None else "carla"


def keys(roads: RoadMap) -> Iterator[LaneKey]:
    """The lanes that are to be driven on, and are wide enough for it somewhere."""
    for road in roads.roads.values():
        for number, section in enumerate(road.sections):
            for lane in section.lanes.values():
                if lane.id and lane.kind == "driving" and section.end_m - section.begin_m > 1e-3:
                    yield LaneKey(road.id, number, lane.id)


def stations(section: Section) -> Float64:
    """(n) along a section: both ends, and evenly between them with a metre at most."""
    return np.linspace(section.begin_m, section.end_m, max(2, int(np.ceil(section.end_m - section.begin_m) + 1)))


def own_path(roads: RoadMap, key: LaneKey) -> Path:
    """A lane sampled from its road."""
    road, section, lane = lane_of(roads, key)
    s_m = stations(section)
    side = 1 if key.lane > 0 else -1
    width = lane.width.at(s_m - section.begin_m)
    points, _ = road.at(s_m, road.border(section, key.lane, s_m) - side * width / 2)
    forward = runs_with_road(road, key.lane)
    ends = tuple(followers(roads, key, forward=forward))
    order = slice(None) if forward else slice(None, None, -1)
    return Path(key, points[order], width[order], ends, road.junction, road.speed_mps)


def lane_of(roads: RoadMap, key: LaneKey) -> tuple[Road, Section, Lane]:
    """What a key names."""
    road = roads.roads[key.road]
    section = road.sections[key.section]
    return road, section, section.lanes[key.lane]


def runs_with_road(road: Road, lane_id: int) -> bool:
    """Whether one drives along a lane in the direction of its road's stations."""
    return (lane_id < 0) == (road.hand > 0)


def followers(roads: RoadMap, key: LaneKey, *, forward: bool) -> Iterator[LaneKey]:
    """The lanes that a lane is linked to where its driving ends, as far as they are there and are driven on."""
    road, _, lane = lane_of(roads, key)
    to = lane.successor if forward else lane.predecessor
    beside = key.section + (1 if forward else -1)
    if 0 <= beside < len(road.sections):
        found = [] if to is None else [LaneKey(road.id, beside, to)]
    else:
        found = list(_beyond(roads, road, key, to, road.successor if forward else road.predecessor))
    for target in dict.fromkeys(found):
        if target.road in roads.roads and target.lane in roads.roads[target.road].sections[target.section].lanes:
            other = lane_of(roads, target)[2]
            if other.id and other.kind == "driving":
                yield target


def _beyond(roads: RoadMap, road: Road, key: LaneKey, to: int | None, link: Link | None) -> Iterator[LaneKey]:
    if link is None:
        return
    if link.kind == "road":
        if to is not None and link.id in roads.roads:
            yield LaneKey(link.id, _end(roads, link.id, link.contact), to)
        return
    for connection in roads.junctions.get(link.id, ()):
        if connection.incoming == road.id and connection.connecting in roads.roads:
            section = _end(roads, connection.connecting, connection.contact)
            yield from (LaneKey(connection.connecting, section, b) for a, b in connection.lanes if a == key.lane)


def _end(roads: RoadMap, road_id: str, contact: str | None) -> int:
    return len(roads.roads[road_id].sections) - 1 if contact == "end" else 0
