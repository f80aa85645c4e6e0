"""Small OpenDRIVE files: an oval, a crossing, a road of all five curves, and the town that is shipped.

Run as a script it writes the town: python tests/fakes/roads.py runtime/worldrt/runtime/roads/data/town.xodr
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

LANE_M, WALK_M, SPEED_KMH = 3.5, 2.0, 40
FINE = 20_000  # steps of the midpoint rule by which curves are followed: an oracle of its own
HEADER = (
    '<?xml version="1.0" standalone="yes"?>\n<OpenDRIVE><header revMajor="1" revMinor="6" name="" version="1">'
    "<geoReference><![CDATA[+proj=tmerc +lat_0=0 +lon_0=0]]></geoReference></header>\n"
)


class Pen:
    """Draws a reference line, piece after piece, and knows where it is."""

    def __init__(self, x=0.0, y=0.0, heading=0.0):
        self.x, self.y, self.heading, self.s, self.pieces, self.trace = x, y, heading, 0.0, [], []

    def line(self, length):
        return self._go(length, lambda s: 0 * s, "<line/>")

    def arc(self, length, curvature):
        return self._go(length, lambda s: 0 * s + curvature, f'<arc curvature="{curvature:.12g}"/>')

    def spiral(self, length, begin, end):
        shape = f'<spiral curvStart="{begin:.12g}" curvEnd="{end:.12g}"/>'
        return self._go(length, lambda s: begin + (end - begin) * s / length, shape)

    def shift(self, along, beside, element="paramPoly3"):
        """A smooth step to the side, as a cubic."""
        c, d = 3 * beside, -2 * beside
        p = (np.arange(FINE) + 0.5) / FINE
        length = float(np.hypot(along, 2 * c * p + 3 * d * p**2).mean())
        if element == "poly3":
            shape = f'<poly3 a="0" b="0" c="{c / along**2:.12g}" d="{d / along**3:.12g}"/>'
        else:
            shape = (
                f'<paramPoly3 pRange="normalized" aU="0" bU="{along:.12g}" cU="0" dU="0" '
                f'aV="0" bV="0" cV="{c:.12g}" dV="{d:.12g}"/>'
            )
        self._piece(length, shape)
        turn = complex(math.cos(self.heading), math.sin(self.heading))
        self.trace.append([complex(self.x, self.y) + turn * (along * q + 1j * (c * q**2 + d * q**3)) for q in p])
        end = complex(self.x, self.y) + turn * complex(along, beside)
        self.x, self.y, self.s = end.real, end.imag, self.s + length
        return self

    def _piece(self, length, shape):
        numbers = f's="{self.s:.9f}" x="{self.x:.9f}" y="{self.y:.9f}" hdg="{self.heading:.12f}" length="{length:.9f}"'
        self.pieces.append(f"<geometry {numbers}>{shape}</geometry>")

    def _go(self, length, curvature, shape):
        self._piece(length, shape)
        step = length / FINE
        k = curvature((np.arange(FINE) + 0.5) * step) * step
        heading = self.heading + np.cumsum(k) - k / 2
        places = complex(self.x, self.y) + np.cumsum(np.exp(1j * heading)) * step
        self.trace.append(places)
        self.x, self.y = float(places[-1].real), float(places[-1].imag)
        self.heading, self.s = self.heading + float(k.sum()), self.s + length
        return self


def lane(number, kind, width, mark, before=None, after=None):
    ends = (("predecessor", before), ("successor", after))
    links = "".join(f'<{name} id="{value}"/>' for name, value in ends if value is not None)
    widths = "" if number == 0 else f'<width sOffset="0" a="{width}" b="0" c="0" d="0"/>'
    return (
        f'<lane id="{number}" type="{kind}" level="false"><link>{links}</link>{widths}'
        f'<roadMark sOffset="0" type="{mark}" weight="standard" color="standard" width="0.13"/></lane>'
    )


def road(number, pen, *, links="", junction=-1, left=(), right=(), middle="broken", hills="", objects=""):
    """`left`, `right`: lanes from the inside out."""
    sides = "".join(
        f"<{name}>{''.join(lanes)}</{name}>"
        for name, lanes in (("left", tuple(left)[::-1]), ("center", [lane(0, "none", 0, middle)]), ("right", right))
        if lanes
    )
    return (
        f'<road name="" length="{pen.s:.9f}" id="{number}" junction="{junction}"><link>{links}</link>'
        f'<type s="0" type="town"><speed max="{SPEED_KMH}" unit="km/h"/></type>'
        f"<planView>{''.join(pen.pieces)}</planView><elevationProfile>{hills}</elevationProfile>"
        f'<lanes><laneSection s="0">{sides}</laneSection></lanes><objects>{objects}</objects></road>\n'
    )


def both_ways(**ends):
    """A lane in each direction and a walk beside it."""
    inner = {side: lane(n, "driving", LANE_M, "curb", *ends.get(side, ())) for side, n in (("left", 1), ("right", -1))}
    walks = {side: lane(n, "sidewalk", WALK_M, "none") for side, n in (("left", 2), ("right", -2))}
    return {side: (inner[side], walks[side]) for side in inner}


def link(name, kind, number, contact=None):
    at = "" if contact is None else f' contactPoint="{contact}"'
    return f'<{name} elementType="{kind}" elementId="{number}"{at}/>'


def file_of(*parts):
    return HEADER + "".join(parts) + "</OpenDRIVE>\n"


def oval():
    """Four roads that follow each other round and round, one lane in each direction."""
    pen, parts = Pen(), []
    for number in range(1, 5):
        pen = Pen(pen.x, pen.y, pen.heading)
        pen.arc(math.pi * 20, 1 / 20) if number % 2 == 0 else pen.line(60)
        before, after = (number + 2) % 4 + 1, number % 4 + 1
        links = link("predecessor", "road", before, "end") + link("successor", "road", after, "start")
        parts.append(road(number, pen, links=links, **both_ways(left=(1, 1), right=(-1, -1))))
    return file_of(*parts)


def curve():
    """One road of all five curves that climbs a hill, and its pen."""
    pen = Pen(10.0, -5.0, 0.3).line(20).spiral(25, 0.0, 0.04).arc(15, 0.04).spiral(25, 0.04, -0.02).arc(10, -0.02)
    pen.shift(40.0, 1.5).shift(30.0, -1.0, "poly3").line(5.5)
    hills = '<elevation s="0" a="0" b="0" c="0" d="0"/><elevation s="20" a="0" b="0" c="0.0006" d="-0.000004"/>'
    return file_of(road(7, pen, hills=hills, middle="solid solid", **both_ways())), pen


class Grid:
    """Streets between nodes of a grid, joined by junctions of straight ways and turns."""

    def __init__(self, streets, pitch, radius, shapes=None, hills=None):
        """`streets`: pairs of nodes (column, row), each to the right of the other or above it."""
        self.streets, self.pitch, self.radius = list(streets), pitch, radius
        self.shapes, self.hills, self.parts = shapes or {}, hills or {}, []
        self.arms = {}
        for number, (a, b) in enumerate(self.streets, 1):
            self.arms.setdefault(a, []).append((number, "start", b))
            self.arms.setdefault(b, []).append((number, "end", a))
        self.nodes = {node: 1000 + index for index, node in enumerate(sorted(self.arms))}

    def place(self, node):
        return complex(node[0] * self.pitch[0], node[1] * self.pitch[1])

    def text(self):
        for number, (a, b) in enumerate(self.streets, 1):
            self._street(number, a, b)
        junctions = []
        for node, number in self.nodes.items():
            ways = list(self._ways(node)) if len(self.arms[node]) > 1 else []
            for way in ways:
                self._way(number, *way)
            connections = "".join(
                f'<connection id="{i}" incomingRoad="{arm[0]}" connectingRoad="{way}" contactPoint="start">'
                f'<laneLink from="{1 if arm[1] == "start" else -1}" to="-1"/></connection>'
                for i, (way, arm, _) in enumerate(ways)
            )
            if connections:
                junctions.append(f'<junction id="{number}" name="">{connections}</junction>\n')
        return file_of(*self.parts, *junctions)

    def _direction(self, a, b):
        step = self.place(b) - self.place(a)
        return step / abs(step)

    def _street(self, number, a, b):
        towards, length = self._direction(a, b), abs(self.place(b) - self.place(a)) - 2 * self.radius
        begin = self.place(a) + self.radius * towards
        pen = self.shapes.get(number, Pen.line)(
            Pen(begin.real, begin.imag, math.atan2(towards.imag, towards.real)), length
        )
        joined = [len(self.arms[node]) > 1 for node in (a, b)]
        links = "".join(
            link(name, "junction", self.nodes[node])
            for name, node, there in (("predecessor", a, joined[0]), ("successor", b, joined[1]))
            if there
        )
        walks = "".join(self._crosswalk(2 * number + i, s) for i, s in enumerate((3.0, pen.s - 3.0)) if joined[i])
        middle = ("broken", "solid", "solid solid", "broken solid")[number % 4]
        hill = self.hills.get(number)
        self.parts.append(
            road(
                number, pen, links=links, middle=middle, objects=walks, hills=hill(pen.s) if hill else "", **both_ways()
            )
        )

    def _crosswalk(self, number, s):
        corners = "".join(
            f'<cornerLocal u="{u}" v="{v}" z="0"/>'
            for u, v in ((-1.5, -3.5), (1.5, -3.5), (1.5, 3.5), (-1.5, 3.5), (-1.5, -3.5))
        )
        return (
            f'<object id="w{number}" type="crosswalk" s="{s:.6f}" t="0" zOffset="0" hdg="0">'
            f"<outline>{corners}</outline></object>"
        )

    def _ways(self, node):
        number = self.nodes[node] * 100
        for arm in self.arms[node]:
            for other in self.arms[node]:
                if arm != other:
                    yield number, arm, other
                    number += 1

    def _way(self, junction, number, arm, other):
        node = next(node for node, value in self.nodes.items() if value == junction)
        into, out = self._direction(arm[2], node), self._direction(node, other[2])
        begin = self.place(node) - self.radius * into
        pen = Pen(begin.real, begin.imag, math.atan2(into.imag, into.real))
        turn = round((into.conjugate() * out).imag)  # 1 to the left, -1 to the right
        if turn:
            pen.arc(self.radius * math.pi / 2, turn / self.radius)
        else:
            pen.line(2 * self.radius)
        exits = [self._direction(node, far) for _, _, far in self.arms[node]]
        right_of = [direction for direction in exits if (into.conjugate() * direction).imag < -0.5]
        ahead = [direction for direction in exits if (into.conjugate() * direction).real > 0.5]
        closed = turn == -1 or (turn == 0 and not right_of) or (turn == 1 and not right_of and not ahead)
        links = link("predecessor", "road", arm[0], arm[1]) + link("successor", "road", other[0], other[1])
        own = lane(
            -1,
            "driving",
            LANE_M,
            "curb" if closed else "none",
            1 if arm[1] == "start" else -1,
            -1 if other[1] == "start" else 1,
        )
        self.parts.append(road(number, pen, links=links, junction=junction, right=[own], middle="none"))


def crossing():
    """Four streets of 40 m at one junction."""
    return Grid([((0, 1), (1, 1)), ((1, 1), (2, 1)), ((1, 0), (1, 1)), ((1, 1), (1, 2))], (52.0, 52.0), 12.0).text()


def winding(pen, length):
    """To the left and back in clothoids, as long in the direction of the street as it is."""

    def drawn(pen, piece):
        for sign in (1, -1, -1, 1):
            pen.spiral(piece, 0.0, sign * 0.02).spiral(piece, sign * 0.02, 0.0)
        return pen

    piece, step = length / 8, 1e-3
    for _ in range(5):  # Newton's method
        missing = length - drawn(Pen(), piece).x
        piece += missing * step / (drawn(Pen(), piece + step).x - length + missing)
    return drawn(pen, piece)


def stepping(pen, length):
    """To the side and back, in cubics."""
    return pen.shift(length / 2, 4.0).shift(length / 2, -4.0)


def hill(height):
    """Up to a height in the middle and down again, level at both ends."""

    def profile(length):
        half = length / 2
        c, d = 3 * height / half**2, -2 * height / half**3
        return (
            f'<elevation s="0" a="0" b="0" c="{c:.12g}" d="{d:.12g}"/>'
            f'<elevation s="{half:.9f}" a="{height}" b="0" c="{-c:.12g}" d="{-d:.12g}"/>'
        )

    return profile


def town():
    """Three by two blocks."""
    across = [((i, j), (i + 1, j)) for j in range(3) for i in range(3)]
    up = [((i, j), (i, j + 1)) for i in range(4) for j in range(2)]
    shapes = {1: winding, 5: stepping, 9: winding, 12: stepping}
    return Grid(across + up, (110.0, 90.0), 12.0, shapes, {4: hill(2.0), 15: hill(1.5)}).text()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(town(), encoding="utf-8")
