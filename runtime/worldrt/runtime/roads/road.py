"""A road network as OpenDRIVE has it: reference lines, lanes of sections, links, junctions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from worldrt.runtime.roads.curves import Curve, Float64

Contact = Literal["start", "end"]


class Profile:
    """A number along a road, in cubic pieces that begin at stations; 0 where there are none."""

    def __init__(self, pieces: Sequence[tuple[float, float, float, float, float]]) -> None:
        """`pieces`: (s, a, b, c, d) each, ascending: a + b ds + c ds^2 + d ds^3."""
        self._pieces = np.array(pieces, np.float64).reshape(-1, 5)

    def __len__(self) -> int:
        return len(self._pieces)

    def at(self, s_m: Float64) -> Float64:
        """At stations (n). Before the first piece, that piece counts."""
        if not len(self._pieces):
            return np.zeros_like(s_m)
        index = np.maximum(np.searchsorted(self._pieces[:, 0], s_m, side="right") - 1, 0)
        s, a, b, c, d = self._pieces[index].T
        ds = s_m - s
        return np.asarray(a + b * ds + c * ds**2 + d * ds**3, np.float64)


@dataclass(frozen=True)
class Mark:
    """A road mark, from a distance within its section on."""

    offset_m: float
    kind: str


@dataclass(frozen=True, eq=False)
class Lane:
    """A lane of a section: 0 is the reference line, positive ones lie to its left, negative ones to its right."""

    id: int
    kind: str
    width: Profile
    marks: tuple[Mark, ...] = ()
    predecessor: int | None = None
    successor: int | None = None


@dataclass(frozen=True, eq=False)
class Section:
    """Stretch of a road with the same lanes, in the order of the file."""

    begin_m: float
    end_m: float
    lanes: Mapping[int, Lane]


@dataclass(frozen=True)
class Link:
    """What a road is joined to at one end."""

    kind: Literal["road", "junction"]
    id: str
    contact: Contact | None = None


@dataclass(frozen=True, eq=False)
class Crosswalk:
    """An area on a road, by its corners (n, 3)."""

    id: str
    corners: Float64


@dataclass(frozen=True, eq=False)
class Road:
    """A road. `hand` is 1 where one drives on the right, -1 on the left."""

    id: str
    length_m: float
    junction: str | None
    curves: tuple[Curve, ...]
    elevation: Profile
    offset: Profile
    sections: tuple[Section, ...]
    predecessor: Link | None
    successor: Link | None
    speed_mps: float | None
    hand: int = 1

    @cached_property
    def _starts_m(self) -> Float64:
        return np.array([curve.s_m for curve in self.curves])

    def at(self, s_m: Float64, t_m: Float64) -> tuple[Float64, Float64]:
        """Points (n, 3) at stations and distances to the left of the reference line, and headings (n) there."""
        index = np.maximum(np.searchsorted(self._starts_m, s_m, side="right") - 1, 0)
        x, y, heading = (np.empty_like(s_m) for _ in range(3))
        for number in np.unique(index):
            here = index == number
            x[here], y[here], heading[here] = self.curves[number].at(s_m[here])
        points = np.stack((x - t_m * np.sin(heading), y + t_m * np.cos(heading), self.elevation.at(s_m)), axis=1)
        return points, heading

    def border(self, section: Section, lane_id: int, s_m: Float64) -> Float64:
        """The distance to the left of the outer border of a lane, at stations (n)."""
        side = 1 if lane_id >= 0 else -1
        t = self.offset.at(s_m)
        for number in range(side, lane_id + side, side) if lane_id else ():
            t = t + side * section.lanes[number].width.at(s_m - section.begin_m)
        return t


@dataclass(frozen=True)
class Connection:
    """A way through a junction: which lanes of a road lead to which of a connecting one."""

    incoming: str
    connecting: str
    contact: Contact
    lanes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class RoadMap:
    """All roads by id, and the connections of junctions."""

    roads: Mapping[str, Road]
    junctions: Mapping[str, tuple[Connection, ...]]
    crosswalks: tuple[Crosswalk, ...] = ()
