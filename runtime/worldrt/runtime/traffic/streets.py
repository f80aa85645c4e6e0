"""What all road users share of a road network: speeds, ways that cross, and who stands where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from worldrt.runtime.roads.curves import Float64
from worldrt.runtime.roads.network import LaneKey, Network, Path

SIDEWAYS_MPS2 = 2.0
"""What people find comfortable in a bend."""
SPEED_MPS = 50 / 3.6
CROSSING_M = 3.0
"""Ways of a junction that come as near as this cannot be used at once."""


class Place(NamedTuple):
    """A point of a lane: how far along it, and how far to the left of its middle."""

    lane: LaneKey
    along_m: float
    left_m: float


class Streets:
    """The lanes of a map, read once; nothing here changes."""

    def __init__(self, paths: Network) -> None:
        self.paths = paths
        self.lanes = tuple(paths)
        self.open_lanes = tuple(key for key, path in paths.items() if path.junction is None) or self.lanes
        self.limits_mps = {key: self._limit(path) for key, path in paths.items()}
        self.crossing = self._crossing()
        self._points: Float64 = np.concatenate([paths[key].points for key in self.lanes])
        self._headings: Float64 = np.concatenate([paths[key].headings_rad for key in self.lanes])
        counts = [len(paths[key].points) for key in self.lanes]
        self._owner = np.repeat(np.arange(len(self.lanes)), counts)
        self._first = np.concatenate(((0,), np.cumsum(counts)[:-1]))

    def nearest(self, x_m: float, y_m: float, heading_rad: float | None = None, turn_rad: float = 1.2) -> Place:
        """The nearest point of a lane; one whose direction differs by less than `turn_rad` from a heading that is
        given, where there is one within 10 m."""
        away = self._away(x_m, y_m)
        index = int(np.argmin(away))
        if heading_rad is not None:
            turned = np.abs(np.mod(self._headings - heading_rad + np.pi, 2 * np.pi) - np.pi)
            fitting = np.where(turned < turn_rad, away, np.inf)
            best = int(np.argmin(fitting))
            index = best if fitting[best] < 100.0 else index
        return self._place(index, x_m, y_m)

    def around(self, x_m: float, y_m: float, reach_m: float) -> list[Place]:
        """The point of each lane that comes within a distance, that is nearest."""
        away = self._away(x_m, y_m)
        found = []
        for lane in np.unique(self._owner[away < reach_m * reach_m]):
            start = self._first[lane]
            stop = start + len(self.paths[self.lanes[lane]].points)
            found.append(self._place(int(start + np.argmin(away[start:stop])), x_m, y_m))
        return found

    def ground(self, x_m: float, y_m: float, heading_rad: float) -> tuple[float, float]:
        """The height of the road there or nearby, and its slope along a heading."""
        place = self.nearest(x_m, y_m)
        point, heading, slope = self.paths[place.lane].at(place.along_m)
        return float(point[2]), slope * float(np.cos(heading - heading_rad))

    def _away(self, x_m: float, y_m: float) -> Float64:
        """Squared distances of all points."""
        steps = self._points[:, :2] - (x_m, y_m)
        return np.asarray((steps * steps).sum(1), np.float64)

    def _place(self, index: int, x_m: float, y_m: float) -> Place:
        key = self.lanes[self._owner[index]]
        step, heading = np.array((x_m, y_m)) - self._points[index, :2], self._headings[index]
        c, s = float(np.cos(heading)), float(np.sin(heading))
        path = self.paths[key]
        along = float(path.along_m[index - self._first[self._owner[index]]] + c * step[0] + s * step[1])
        return Place(key, min(max(along, 0.0), path.length_m), float(c * step[1] - s * step[0]))

    def _limit(self, path: Path) -> float:
        turn = np.abs(np.diff(path.headings_rad)) / np.maximum(np.diff(path.along_m), 1e-6)
        bend = float(np.sqrt(SIDEWAYS_MPS2 / max(float(turn.max(initial=0.0)), 1e-6)))
        return max(2.0, min(path.speed_mps or SPEED_MPS, bend))

    def _crossing(self) -> dict[LaneKey, frozenset[LaneKey]]:
        """For each way through a junction, those that cannot be used at the same time."""
        ways: dict[str, list[LaneKey]] = defaultdict(list)
        for key, path in self.paths.items():
            if path.junction is not None:
                ways[path.junction].append(key)
        found: dict[LaneKey, set[LaneKey]] = defaultdict(set)
        for together in ways.values():
            for number, one in enumerate(together):
                for other in together[:number]:
                    if not (self.origins[one] & self.origins[other]) and self._touch(one, other):
                        found[one].add(other)
                        found[other].add(one)
        return {key: frozenset(others) for key, others in found.items()}

    @cached_property
    def origins(self) -> dict[LaneKey, frozenset[LaneKey]]:
        """The lanes that lead to each lane."""
        found: dict[LaneKey, set[LaneKey]] = defaultdict(set)
        for key, path in self.paths.items():
            for follower in path.successors:
                found[follower].add(key)
        return {key: frozenset(found[key]) for key in self.paths}

    def _touch(self, one: LaneKey, other: LaneKey) -> bool:
        a, b = (self.paths[key].points[::2, :2] for key in (one, other))
        return bool(np.linalg.norm(a[:, None] - b[None], axis=2).min() < CROSSING_M)


class Occupied:
    """Who is on which lane: (along, half length, speed, number) by lane, ascending."""

    def __init__(self, entries: Iterable[tuple[LaneKey, float, float, float, int]]) -> None:
        self._lanes: dict[LaneKey, list[tuple[float, float, float, int]]] = defaultdict(list)
        for lane, *who in entries:
            self._lanes[lane].append(_entry(who))
        for entry in self._lanes.values():
            entry.sort()

    def on(self, lane: LaneKey) -> list[tuple[float, float, float, int]]:
        """All on a lane."""
        return self._lanes.get(lane, [])

    def ahead(self, lane: LaneKey, along_m: float, number: int) -> tuple[float, float, float] | None:
        """Along, half length and speed of the first on a lane that is farther than `along_m`, other than `number`."""
        for place, half, speed, other in self.on(lane):
            if place > along_m and other != number:
                return place, half, speed
        return None


def _entry(values: list[Any]) -> tuple[float, float, float, int]:
    along, half, speed, number = values
    return float(along), float(half), float(speed), int(number)
