"""All road users together, step by step, the same for the same seed and controls."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldrt.runtime.roads.curves import Float64
from worldrt.runtime.roads.network import LaneKey
from worldrt.runtime.scene.boxes import Box
from worldrt.runtime.scene.cameras import REAR_AXLE_M
from worldrt.runtime.scene.poses import upright
from worldrt.runtime.traffic import ego as driving
from worldrt.runtime.traffic.ego import Ego
from worldrt.runtime.traffic.followers import Follower, acceleration, advance, claim, extend
from worldrt.runtime.traffic.kinds import EGO, VEHICLES, WALKER
from worldrt.runtime.traffic.streets import Occupied, Streets

STEP_S = 0.05
"""The longest step."""
SPACE_M = 14.0
"""Between vehicles when they are put on the road."""
KERB_M = 1.2
WALK_MPS = 1.4
WAIT_S = 8.0
"""A vehicle that stands so long where its road ends is put elsewhere."""
EGO_NUMBER = -1


@dataclass
class Walker:
    """Someone on the walk beside a lane, going with it (`step` 1) or against it."""

    lane: LaneKey
    along_m: float
    step: int
    speed_mps: float


@dataclass
class State:
    """All that changes."""

    generator: np.random.Generator
    ego: Ego
    vehicles: list[Follower] = field(default_factory=list)
    walkers: list[Walker] = field(default_factory=list)
    claims: dict[int, LaneKey] = field(default_factory=dict)


class Traffic:
    """Vehicles and walkers on streets, and the car that is driven."""

    def __init__(self, streets: Streets, *, vehicles: int, walkers: int, seed: int) -> None:
        self.streets = streets
        generator = np.random.default_rng(seed)
        lane, along = self._start(generator)
        point, heading, _ = streets.paths[lane].at(along)
        self.now = State(generator, Ego(float(point[0]), float(point[1]), heading, route=[lane]))
        for _ in range(vehicles):
            self._put_vehicle()
        for _ in range(walkers):
            self._put_walker()

    def state(self) -> Any:
        """A copy of all that the next steps depend on."""
        return deepcopy(self.now)

    def restore(self, state: Any) -> None:
        """Go on from a copy."""
        self.now = deepcopy(state)

    def tick(self, control: str | None, seconds: float) -> None:
        """Go on under a control; None: the car keeps its lane by itself."""
        steps = max(1, int(np.ceil(seconds / STEP_S - 1e-9)))
        for _ in range(steps):
            self._step(control, seconds / steps)

    @property
    def ego_pose(self) -> Float64:
        """(4, 4) from the rear axle to the world."""
        ego = self.now.ego
        height, slope = self.streets.ground(ego.x_m, ego.y_m, ego.heading_rad)
        return upright(ego.x_m, ego.y_m, height, ego.heading_rad, slope)

    def boxes(self) -> list[Box]:
        """Everybody but the car that is driven."""
        made = []
        for vehicle in self.now.vehicles:
            point, heading, slope = self.streets.paths[vehicle.lane].at(vehicle.along_m)
            pose = upright(point[0], point[1], point[2], heading, slope)
            made.append(Box(vehicle.kind.label, pose, vehicle.kind.half_m, vehicle.kind.offset_m))
        for walker in self.now.walkers:
            path = self.streets.paths[walker.lane]
            beside = float(np.interp(walker.along_m, path.along_m, path.widths_m)) / 2 + KERB_M
            point, heading, _ = path.at(walker.along_m, -beside)
            pose = upright(point[0], point[1], point[2], heading + (0.0 if walker.step > 0 else np.pi))
            made.append(Box(WALKER.label, pose, WALKER.half_m, WALKER.offset_m))
        return made

    def _step(self, control: str | None, seconds: float) -> None:
        now, streets = self.now, self.streets
        occupied = self._occupied()
        for number, vehicle in enumerate(now.vehicles):
            extend(vehicle, streets, now.generator)
            claim(vehicle, number, streets, occupied, now.claims)
        wishes = [acceleration(v, n, streets, occupied, now.claims) for n, v in enumerate(now.vehicles)]
        self._drive(control, occupied, seconds)
        for number, (vehicle, wish) in enumerate(zip(now.vehicles, wishes, strict=True)):
            advance(vehicle, wish, seconds, streets)
            if vehicle.still_s > WAIT_S and not streets.paths[vehicle.lane].successors:
                now.claims.pop(number, None)
                with suppress(_FullError):
                    vehicle.route, vehicle.along_m = self._free_place()
        for walker in now.walkers:
            walker.along_m += walker.step * walker.speed_mps * seconds
            if not 0 <= walker.along_m <= streets.paths[walker.lane].length_m:
                walker.along_m = min(max(walker.along_m, 0.0), streets.paths[walker.lane].length_m)
                walker.step = -walker.step

    def _drive(self, control: str | None, occupied: Occupied, seconds: float) -> None:
        """Move the car, unless it would run into someone."""
        now = self.now
        ego, before = now.ego, deepcopy(now.ego)
        if control is None:
            self._keep_lane(occupied, seconds)
        else:
            ego.route = []
            now.claims.pop(EGO_NUMBER, None)
            rolls = control.startswith("N") and abs(ego.speed_mps) < driving.ROLL_MPS2 * seconds
            wish = -ego.speed_mps / seconds if rolls else driving.pedals(ego, control)
            driving.move(ego, wish, driving.wheel(ego, control), seconds)
        if self._hits(before) < self._hits(ego) and self._hits(ego) > 0:
            now.ego = before
            now.ego.speed_mps = 0.0

    def _keep_lane(self, occupied: Occupied, seconds: float) -> None:
        """As the others drive, on the lane that is nearest."""
        now, streets, ego = self.now, self.streets, self.now.ego
        if not ego.route:
            ego.route = [streets.nearest(ego.x_m, ego.y_m, ego.heading_rad).lane]
        while len(ego.route) > 1 and self._along(ego, ego.route[0]) >= streets.paths[ego.route[0]].length_m - 0.05:
            ego.route.pop(0)
        axle = self._along(ego, ego.route[0])
        follower = Follower(EGO, ego.route, axle + REAR_AXLE_M, max(0.0, ego.speed_mps))
        extend(follower, streets, now.generator)
        claim(follower, EGO_NUMBER, streets, occupied, now.claims)
        wish = acceleration(follower, EGO_NUMBER, streets, occupied, now.claims)
        if ego.speed_mps <= 0 and wish < 0:
            wish = -ego.speed_mps / seconds
        driving.move(ego, wish, driving.keep_lane(ego, streets, axle), seconds)

    def _along(self, ego: Ego, lane: LaneKey) -> float:
        """How far along a lane the axle is, by its nearest point."""
        path = self.streets.paths[lane]
        step = path.points[:, :2] - (ego.x_m, ego.y_m)
        index = int(np.argmin((step * step).sum(1)))
        heading = path.headings_rad[index]
        along = path.along_m[index] - (np.cos(heading) * step[index, 0] + np.sin(heading) * step[index, 1])
        return float(min(max(along, 0.0), path.length_m))

    def _occupied(self) -> Occupied:
        """Everybody on the lanes; the car that is driven on all lanes that it touches."""
        now, ego = self.now, self.now.ego
        entries = [
            (vehicle.lane, vehicle.along_m, vehicle.kind.length_m / 2, vehicle.speed_mps, number)
            for number, vehicle in enumerate(now.vehicles)
        ]
        half, speed = EGO.length_m / 2, max(0.0, ego.speed_mps)
        for place in self.streets.around(*ego.middle(REAR_AXLE_M), 3.0):
            if abs(place.left_m) < 2.0:
                entries.append((place.lane, place.along_m, half, speed, EGO_NUMBER))
        return Occupied(entries)

    def _hits(self, ego: Ego) -> float:
        """By how many metres the car reaches into someone: circles of half a width, three along each vehicle."""
        vehicles = self.now.vehicles
        if not vehicles:
            return 0.0
        own = circles(*ego.middle(REAR_AXLE_M), ego.heading_rad, EGO.length_m, EGO.width_m)
        worst = 0.0
        for vehicle in vehicles:
            point, heading, _ = self.streets.paths[vehicle.lane].at(vehicle.along_m)
            kind = vehicle.kind
            if np.hypot(point[0] - ego.x_m, point[1] - ego.y_m) < 12.0:
                other = circles(float(point[0]), float(point[1]), heading, kind.length_m, kind.width_m)
                near = np.linalg.norm(own[:, None] - other[None], axis=2).min()
                worst = max(worst, (EGO.width_m + kind.width_m) / 2 - float(near))
        return worst

    def _start(self, generator: np.random.Generator) -> tuple[LaneKey, float]:
        """Where the car begins: on an open road, with some of it ahead."""
        lanes = [key for key in self.streets.open_lanes if self.streets.paths[key].length_m > 20.0]
        lane = (lanes or self.streets.open_lanes)[int(generator.integers(len(lanes or self.streets.open_lanes)))]
        return lane, min(5.0, self.streets.paths[lane].length_m / 2)

    def _put_vehicle(self) -> None:
        generator = self.now.generator
        kind = VEHICLES[int(generator.choice(len(VEHICLES), p=[kind.share for kind in VEHICLES]))]
        try:
            route, along = self._free_place()
        except _FullError:
            return
        self.now.vehicles.append(Follower(kind, route, along, speed_mps=float(generator.uniform(0, 8))))

    def _put_walker(self) -> None:
        generator, lanes = self.now.generator, self.streets.open_lanes
        lane = lanes[int(generator.integers(len(lanes)))]
        along = float(generator.uniform(0, self.streets.paths[lane].length_m))
        speed = WALK_MPS * float(generator.uniform(0.7, 1.2))
        self.now.walkers.append(Walker(lane, along, int(generator.choice((-1, 1))), speed))

    def _free_place(self) -> tuple[list[LaneKey], float]:
        """A lane and a place on it that are away from everybody. Raises `_FullError`."""
        now = self.now
        taken = [now.ego.middle(REAR_AXLE_M)]
        taken += [tuple(self.streets.paths[v.lane].at(v.along_m)[0][:2]) for v in now.vehicles]
        for _ in range(200):
            lane = self.streets.open_lanes[int(now.generator.integers(len(self.streets.open_lanes)))]
            length = self.streets.paths[lane].length_m
            along = float(now.generator.uniform(0.1, 0.9)) * length
            point = self.streets.paths[lane].at(along)[0]
            if all(np.hypot(point[0] - x, point[1] - y) > SPACE_M for x, y in taken):
                return [lane], along
        raise _FullError


class _FullError(Exception):
    """There is no room for one more."""


def circles(x_m: float, y_m: float, heading_rad: float, length_m: float, width_m: float) -> Float64:
    """The middles (3, 2) of circles, as wide as a vehicle, that cover it."""
    reach = max(0.0, (length_m - width_m) / 2)
    steps = np.array((-reach, 0.0, reach))
    return np.stack((x_m + steps * np.cos(heading_rad), y_m + steps * np.sin(heading_rad)), axis=1)
