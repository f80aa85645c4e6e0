"""OpenDRIVE files (.xodr): read, checked, and nothing of them believed that would take memory or time without end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.roads import curves, xml
from worldrt.runtime.roads.curves import Curve
from worldrt.runtime.roads.road import (
    Connection,
    Contact,
    Crosswalk,
    Lane,
    Link,
    Mark,
    Profile,
    Road,
    RoadMap,
    Section,
)

FARTHEST_M = 1e7
LONGEST_M = 1e6
"""Of all lanes together."""
MOST_LANES = 100
SLACK_M = 1.0
SPEEDS = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704}


def read_map(path: Path) -> RoadMap:
    """Raises `InputError` for a file that cannot be read, or holds no roads."""
    return parse_map(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The file. Raises `InputError`."""
    try:
        if path.stat().st_size > xml.MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes; {xml.MOST_BYTES} is the most that is read of roads")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}; give an OpenDRIVE file (.xodr)") from None


def parse_map(data: bytes, name: str = "OpenDRIVE") -> RoadMap:
    """The roads of a file's bytes; `name` is for errors. Raises `InputError`."""
    root = xml.parse(data, name)
    if root.tag != "OpenDRIVE":
        raise InputError(f"{name}: expected OpenDRIVE, got <{root.tag[:40]}>")
    reader = _Reader(name)
    roads = {}
    for element in root.findall("road"):
        road = reader.road(element)
        if road.id in roads:
            raise InputError(f"{name}: two roads have the id '{road.id}'")
        roads[road.id] = road
    if not roads:
        raise InputError(f"{name}: it holds no roads")
    junctions = {j.get("id", ""): tuple(reader.connections(j)) for j in root.findall("junction")}
    crosswalks = [walk for e in root.findall("road") for walk in reader.crosswalks(e, roads[e.get("id", "")])]
    return RoadMap(roads, junctions, tuple(crosswalks))


class _Reader:
    """Reads elements of one file, whose name its errors bear."""

    def __init__(self, name: str) -> None:
        self.name, self.where, self.lanes_m = name, "", 0.0

    def road(self, element: xml.Element) -> Road:
        self.where = f"road '{element.get('id', '')[:40]}'"
        road_id, length = element.get("id"), self.number(element, "length")
        if road_id is None:
            raise self.wrong("it has no id")
        shapes = tuple(self.curve(e) for e in element.findall("planView/geometry"))
        if not shapes:
            raise self.wrong("it has no geometry")
        lanes = element.find("lanes")
        starts = [] if lanes is None else lanes.findall("laneSection")
        if lanes is None or not starts:
            raise self.wrong("it has no lanes")
        begins = [self.number(e, "s") for e in starts]
        self.ascending([shape.s_m for shape in shapes], "geometry")
        self.ascending([0.0, *begins, length], "lane sections and the length of the road")
        if shapes[-1].s_m + shapes[-1].length_m < length - SLACK_M:
            raise self.wrong(f"its geometry ends before its length of {length:g} m")
        sections = tuple(
            self.section(e, begin, end) for e, begin, end in zip(starts, begins, [*begins[1:], length], strict=True)
        )
        junction = element.get("junction", "-1")
        return Road(
            road_id,
            length,
            None if junction == "-1" else junction,
            shapes,
            self.profile(element.findall("elevationProfile/elevation"), "s"),
            self.profile(lanes.findall("laneOffset"), "s"),
            sections,
            self.link(element.find("link/predecessor")),
            self.link(element.find("link/successor")),
            self.speed(element),
            -1 if element.get("rule") == "LHT" else 1,
        )

    def curve(self, element: xml.Element) -> Curve:
        s, x, y, heading, length = (self.number(element, key) for key in ("s", "x", "y", "hdg", "length"))
        shape = next((e for e in element if e.tag != "userData"), None)
        kind = "none" if shape is None else shape.tag
        if shape is None or kind not in ("line", "arc", "spiral", "poly3", "paramPoly3"):
            raise self.wrong(f"expected line, arc, spiral, poly3 or paramPoly3 as geometry, got {kind[:40]}")
        if kind == "arc":
            curvature = self.number(shape, "curvature")
            return Curve(s, x, y, heading, length, curves.Arc(curvature) if curvature else curves.line)
        if kind == "spiral":
            begin, end = self.number(shape, "curvStart"), self.number(shape, "curvEnd")
            return Curve(s, x, y, heading, length, curves.Spiral(begin, (end - begin) / length if length else 0.0))
        if kind == "poly3":
            return Curve(s, x, y, heading, length, curves.Poly(self.cubic(shape), length))
        if kind == "paramPoly3":
            rate = 1.0 if shape.get("pRange") == "arcLength" else 1 / length if length else 0.0
            return Curve(
                s, x, y, heading, length, curves.ParamPoly(self.cubic(shape, "U"), self.cubic(shape, "V"), rate)
            )
        return Curve(s, x, y, heading, length, curves.line)

    def section(self, element: xml.Element, begin: float, end: float) -> Section:
        lanes = {}
        for e in element.findall("*/lane"):
            lane = self.lane(e)
            if lane.id in lanes:
                raise self.wrong(f"two lanes of a section have the id {lane.id}")
            lanes[lane.id] = lane
        present = sorted(lanes)
        if not present or present != list(range(present[0], present[-1] + 1)) or 0 not in lanes:
            raise self.wrong(f"the lanes of a section are to be numbered without a gap through 0, got {present[:20]}")
        self.lanes_m += (end - begin) * len(lanes)
        if len(lanes) > MOST_LANES or self.lanes_m > LONGEST_M:
            raise self.wrong(f"more than {MOST_LANES} lanes, or {LONGEST_M / 1000:g} km of lanes in all")
        return Section(begin, end, lanes)

    def lane(self, element: xml.Element) -> Lane:
        marks = [Mark(self.number(e, "sOffset"), e.get("type", "none")) for e in element.findall("roadMark")]
        self.ascending([0.0, *(mark.offset_m for mark in marks)], "road marks")
        before, after = element.find("link/predecessor"), element.find("link/successor")
        return Lane(
            self.whole(element, "id"),
            element.get("type", "none"),
            self.profile(element.findall("width"), "sOffset"),
            tuple(marks),
            None if before is None else self.whole(before, "id"),
            None if after is None else self.whole(after, "id"),
        )

    def link(self, element: xml.Element | None) -> Link | None:
        if element is None or element.get("elementType") not in ("road", "junction"):
            return None
        kind: object = element.get("elementType")
        contact = self.contact(element) if kind == "road" else None
        return Link("road" if kind == "road" else "junction", element.get("elementId", ""), contact)

    def connections(self, element: xml.Element) -> Iterator[Connection]:
        self.where = f"junction '{element.get('id', '')[:40]}'"
        for e in element.findall("connection"):
            if e.get("connectingRoad") is None:
                continue  # a virtual or direct one
            lanes = tuple((self.whole(link, "from"), self.whole(link, "to")) for link in e.findall("laneLink"))
            yield Connection(e.get("incomingRoad", ""), e.get("connectingRoad", ""), self.contact(e), lanes)

    def crosswalks(self, element: xml.Element, road: Road) -> Iterator[Crosswalk]:
        """Corners lie at (u, v) turned by `hdg`, in the road's own coordinates, as the official reader takes them."""
        self.where = f"road '{road.id[:40]}'"
        for e in element.findall("objects/object"):
            local = e.findall("outline/cornerLocal")
            if e.get("type") != "crosswalk" or not local:
                continue
            s, t, z, heading = (self.number(e, key) for key in ("s", "t", "zOffset", "hdg"))
            u, v, up = np.array([[self.number(corner, key) for key in ("u", "v", "z")] for corner in local]).T
            c, n = math.cos(heading), math.sin(heading)
            points, _ = road.at(s + u * c - v * n, t + u * n + v * c)
            points[:, 2] = up + z + points[:, 2]
            yield Crosswalk(e.get("id", ""), points)

    def speed(self, element: xml.Element) -> float | None:
        found = element.find("type/speed")
        if found is None or found.get("max") in (None, "no limit", "undefined"):
            return None
        return self.number(found, "max") * SPEEDS.get(found.get("unit", "m/s"), 1.0)

    def profile(self, elements: list[xml.Element], key: str) -> Profile:
        pieces = [(self.number(e, key), *self.cubic(e)) for e in elements]
        self.ascending([piece[0] for piece in pieces], elements[0].tag if elements else "")
        return Profile(pieces)

    def cubic(self, element: xml.Element, suffix: str = "") -> tuple[float, float, float, float]:
        a, b, c, d = (self.number(element, letter + suffix) for letter in "abcd")
        return a, b, c, d

    def contact(self, element: xml.Element) -> Contact:
        return "end" if element.get("contactPoint") == "end" else "start"

    def ascending(self, numbers: list[float], what: str) -> None:
        if any(a > b for a, b in pairwise(numbers)):
            raise self.wrong(f"{what}: expected ascending stations")

    def whole(self, element: xml.Element, key: str) -> int:
        value = self.number(element, key)
        if value != int(value):
            raise self.wrong(f"{key} of <{element.tag}>: expected a whole number, got {value:g}")
        return int(value)

    def number(self, element: xml.Element, key: str) -> float:
        text = element.get(key)
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not abs(value) <= FARTHEST_M:
            shown = "nothing" if text is None else f"'{text[:20]}'"
            raise self.wrong(f"{key} of <{element.tag}>: expected a number of at most {FARTHEST_M:g}, got {shown}")
        return value

    def wrong(self, why: str) -> InputError:
        return InputError(f"{self.name}: {self.where}: {why}")
