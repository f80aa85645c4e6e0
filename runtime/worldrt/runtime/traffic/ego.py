"""The car that is driven: a kinematic bicycle whose state is that of the middle of its rear axle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from worldrt.runtime.roads.network import LaneKey
from worldrt.runtime.traffic.streets import Streets

WHEELBASE_M = 2.7
FASTEST_MPS, BACKWARDS_MPS = 15.0, -4.0
SPEED_UP_MPS2, BRAKE_MPS2, ROLL_MPS2 = 3.0, 6.0, 2.5
STEER_RAD, STEER_RATE = 0.6, 1.2
SIDEWAYS_MPS2 = 4.0
"""No control asks for a sharper turn at a speed than this."""


@dataclass
class Ego:
    """`route` is that of the lane keeping, which drives while no key is pressed."""

    x_m: float
    y_m: float
    heading_rad: float
    speed_mps: float = 0.0
    steer_rad: float = 0.0
    route: list[LaneKey] = field(default_factory=list)

    def middle(self, before_axle_m: float) -> tuple[float, float]:
        """The point so far ahead of the rear axle."""
        return (
            self.x_m + before_axle_m * float(np.cos(self.heading_rad)),
            self.y_m + before_axle_m * float(np.sin(self.heading_rad)),
        )


def pedals(ego: Ego, control: str) -> float:
    """The acceleration in m/s2 that a control asks for: D ahead, B brake and then back, N let it roll out."""
    if control.startswith("D"):
        return SPEED_UP_MPS2 if ego.speed_mps >= 0 else BRAKE_MPS2
    if control.startswith("B"):
        return -BRAKE_MPS2 if ego.speed_mps > 0 else -SPEED_UP_MPS2 / 1.5
    return -ROLL_MPS2 * float(np.sign(ego.speed_mps))


def wheel(ego: Ego, control: str) -> float:
    """The steering angle that a control asks for, in radians, positive to the left."""
    side = {"L": 1.0, "R": -1.0}.get(control[-1] if len(control) > 1 else "", 0.0)
    return side * sharpest(ego.speed_mps)


def sharpest(speed_mps: float) -> float:
    """The largest steering angle at a speed."""
    return min(STEER_RAD, float(np.arctan(SIDEWAYS_MPS2 * WHEELBASE_M / max(speed_mps**2, 1e-6))))


def keep_lane(ego: Ego, streets: Streets, along_m: float) -> float:
    """The steering angle towards a point ahead on the route (pure pursuit: Coulter, 1992), seen from the axle's place
    along its first lane."""
    reach = min(max(4.0, 0.8 * abs(ego.speed_mps)), 15.0)
    target = along_m + reach
    lane = ego.route[0]
    for lane in ego.route:
        if target <= streets.paths[lane].length_m or lane == ego.route[-1]:
            break
        target -= streets.paths[lane].length_m
    point, _, _ = streets.paths[lane].at(target)
    step = point[:2] - (ego.x_m, ego.y_m)
    angle = float(np.arctan2(step[1], step[0])) - ego.heading_rad
    away = max(float(np.hypot(*step)), 1.0)
    steer = float(np.arctan(2 * WHEELBASE_M * np.sin(angle) / away))
    return min(max(steer, -STEER_RAD), STEER_RAD)


def move(
    ego: Ego, acceleration_mps2: float, steer_rad: float, seconds: float, *, fastest_mps: float = FASTEST_MPS
) -> None:
    """One step of the bicycle: x' = v cos h, y' = v sin h, h' = v tan(steer) / wheelbase, on the arc of a circle. The
    wheel turns at a limited rate, and a car that brakes or rolls out stops, and does not turn back."""
    turn = STEER_RATE * seconds
    ego.steer_rad += min(max(steer_rad - ego.steer_rad, -turn), turn)
    before = ego.speed_mps
    after = before + acceleration_mps2 * seconds
    if before * after < 0:
        after = 0.0
    ego.speed_mps = min(max(after, BACKWARDS_MPS), fastest_mps)
    way = (before + ego.speed_mps) / 2 * seconds
    bend = way * float(np.tan(ego.steer_rad)) / WHEELBASE_M
    middle = ego.heading_rad + bend / 2
    chord = way * float(np.sinc(bend / 2 / np.pi))
    ego.x_m += chord * float(np.cos(middle))
    ego.y_m += chord * float(np.sin(middle))
    ego.heading_rad += bend
