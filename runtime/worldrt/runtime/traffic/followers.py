"""Vehicles that follow lanes: they keep a distance, slow down for bends, and wait where ways cross."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worldrt.runtime.roads.network import LaneKey
from worldrt.runtime.traffic.kinds import Kind
from worldrt.runtime.traffic.streets import Occupied, Streets

LOOK_M = 60.0
STILL_M = 2.5
HEADWAY_S = 1.5
SPEED_UP_MPS2, SLOW_DOWN_MPS2, BRAKE_MPS2 = 1.8, 2.5, 8.0
CLAIM_M = 18.0
"""How far from a junction a vehicle asks for its way through it."""


@dataclass
class Follower:
    """A vehicle on the first lane of `route`, its middle at `along_m`."""

    kind: Kind
    route: list[LaneKey]
    along_m: float
    speed_mps: float = 0.0
    still_s: float = 0.0

    @property
    def lane(self) -> LaneKey:
        return self.route[0]


def idm(speed_mps: float, wish_mps: float, gap_m: float, closing_mps: float) -> float:
    """The acceleration of the Intelligent Driver Model (Treiber, Hennecke and Helbing, 2000), in m/s2; `gap_m` may be
    infinite, `closing_mps` is how much faster one is than the one ahead."""
    brisk = 2 * np.sqrt(SPEED_UP_MPS2 * SLOW_DOWN_MPS2)
    room = STILL_M + max(0.0, speed_mps * HEADWAY_S + speed_mps * closing_mps / brisk)
    free = 1.0 - (speed_mps / max(wish_mps, 0.1)) ** 4
    return float(max(-BRAKE_MPS2, SPEED_UP_MPS2 * (free - (room / max(gap_m, 0.1)) ** 2)))


def extend(follower: Follower, streets: Streets, generator: np.random.Generator) -> None:
    """Choose lanes until the route is as long as one looks, or ends."""
    while sum(streets.paths[key].length_m for key in follower.route) < follower.along_m + LOOK_M + 20.0:
        ends = streets.paths[follower.route[-1]].successors
        if not ends:
            return
        follower.route.append(ends[int(generator.integers(len(ends)))])


def lanes_ahead(follower: Follower, streets: Streets) -> Iterator[tuple[LaneKey, float]]:
    """The lanes of a route within sight, and how far ahead of the middle of the vehicle each begins; the first begins
    behind it."""
    begin = -follower.along_m
    for key in follower.route:
        if begin > LOOK_M:
            return
        yield key, begin
        begin += streets.paths[key].length_m


def acceleration(
    follower: Follower, number: int, streets: Streets, occupied: Occupied, claims: dict[int, LaneKey]
) -> float:
    """In m/s2: from who is ahead, the limits of lanes to come, a junction that is not free, and where the road ends."""
    wish, half = np.inf, follower.kind.length_m / 2
    found = [idm(follower.speed_mps, 1e3, np.inf, 0.0)]
    end = 0.0
    for key, begin in lanes_ahead(follower, streets):
        limit = streets.limits_mps[key] * follower.kind.hurry
        wish = min(wish, float(np.sqrt(limit**2 + 2 * 1.5 * max(0.0, begin))))
        entry = occupied.ahead(key, follower.along_m if begin <= 0 else -1.0, number)
        if entry is not None:
            place, other_half, speed = entry
            gap = begin + place - other_half - half
            found.append(idm(follower.speed_mps, 1e3, gap, follower.speed_mps - speed))
            break
        if begin > 0 and streets.paths[key].junction is not None and claims.get(number) != key:
            found.append(idm(follower.speed_mps, 1e3, begin - half, follower.speed_mps))
            break
        end = begin + streets.paths[key].length_m
    else:
        if end < LOOK_M:
            found.append(idm(follower.speed_mps, 1e3, end - half, follower.speed_mps))
    return min(*found, idm(follower.speed_mps, wish, np.inf, 0.0))


def claim(follower: Follower, number: int, streets: Streets, occupied: Occupied, claims: dict[int, LaneKey]) -> None:
    """Ask for the next way through a junction, or give it back once it is left behind. `claims`: by the number of the
    vehicle."""
    held = claims.get(number)
    if held is not None:
        if held in follower.route:
            return
        del claims[number]
    for index, (key, begin) in enumerate(lanes_ahead(follower, streets)):
        if begin > CLAIM_M:
            return
        if streets.paths[key].junction is not None:
            crossing = streets.crossing.get(key, frozenset())
            taken = any(other in crossing for who, other in claims.items() if who != number)
            if begin <= 0 or not (taken or any(_others(occupied, lane, number) for lane in crossing)):
                beyond = follower.route[index + 1] if index + 1 < len(follower.route) else None
                if begin <= 0 or beyond is None or _has_room(occupied, beyond, follower.kind.length_m, number):
                    claims[number] = key
            return


def _others(occupied: Occupied, lane: LaneKey, number: int) -> bool:
    return any(who != number for _, _, _, who in occupied.on(lane))


def _has_room(occupied: Occupied, lane: LaneKey, length_m: float, number: int) -> bool:
    """Whether one does not have to stop in the junction for someone who stands behind it."""
    entry = occupied.ahead(lane, -1.0, number)
    return entry is None or entry[2] > 2.0 or entry[0] - entry[1] > length_m + STILL_M


def advance(follower: Follower, acceleration_mps2: float, seconds: float, streets: Streets) -> None:
    """Move on, over the ends of lanes."""
    follower.speed_mps = max(0.0, follower.speed_mps + acceleration_mps2 * seconds)
    follower.along_m += follower.speed_mps * seconds
    follower.still_s = follower.still_s + seconds if follower.speed_mps < 0.1 else 0.0
    while len(follower.route) > 1 and follower.along_m > streets.paths[follower.lane].length_m:
        follower.along_m -= streets.paths[follower.lane].length_m
        follower.route.pop(0)
    follower.along_m = min(follower.along_m, streets.paths[follower.lane].length_m)
