"""How the car moves: actions become speed, curvature and distance, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scene import action_of_frame

FPS = 16
CURVATURE_PER_M = {"D": 0.0, "DL": -0.011, "DR": 0.011, "N": 0.0}
"""Of the road ahead; negative bends to the left."""
SPEED_M_PER_S = {"D": 14.0, "DL": 11.0, "DR": 11.0, "N": 4.0}
LAG_S = 0.25
"""Time constant with which curvature and speed follow an action."""


@dataclass(frozen=True)
class State:
    """`distance_m` along the road, `heading_rad` (to the right positive), `curvature_per_m` of the road ahead."""

    frame: int = 0
    distance_m: float = 0.0
    heading_rad: float = 0.0
    curvature_per_m: float = 0.0
    speed_m_per_s: float = 14.0

    def after(self, action: str) -> State:
        """The state one frame later."""
        follow = 1 - math.exp(-1 / (FPS * LAG_S))
        curvature = self.curvature_per_m + follow * (CURVATURE_PER_M[action] - self.curvature_per_m)
        speed = self.speed_m_per_s + follow * (SPEED_M_PER_S[action] - self.speed_m_per_s)
        moved = speed / FPS
        return State(self.frame + 1, self.distance_m + moved, self.heading_rad + curvature * moved, curvature, speed)


def drive(actions: Sequence[str], frames: int, start: State | None = None) -> Iterator[State]:
    """One state for each frame. A clip starts in the middle of its first action, as if it had been held before."""
    first = actions[0]
    state = start or State(curvature_per_m=CURVATURE_PER_M[first], speed_m_per_s=SPEED_M_PER_S[first])
    for frame in range(frames):
        yield state
        state = state.after(action_of_frame(actions, frame + 1))
