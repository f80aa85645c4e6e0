"""What a schedule costs, in calls and in delay."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from worldrt.runtime.schedule.plan import Plan


@dataclass(frozen=True)
class Cost:
    """Steady state. `calls_per_frame` = E and `frames_in_flight` = D = G W; where s divides T,

        E D = T n_w,      n_w = calls per row,

    so for fixed T, halving the delay doubles the work for a frame. `evaluations_per_frame` counts the branches of
    guidance too. Rows: until the first frames of the stream, and from the append of a frame to its emission, or from
    the last moment at which it takes a condition.
    """

    calls_per_frame: Fraction
    evaluations_per_frame: Fraction
    frames_in_flight: int
    calls_per_row: Fraction
    rows_to_first: int
    rows_in_flight: int
    rows_after_commit: int


def cost(plan: Plan) -> Cost:
    """E, D and what follows from them, in exact fractions."""
    s, steady = plan.schedule, plan.steady
    calls = sum(len(row.calls) for row in steady)
    evaluations = sum(len(call.branches) for row in steady for call in row.calls)
    return Cost(
        Fraction(calls, s.group),
        Fraction(evaluations, s.group),
        s.slots,
        Fraction(calls, s.shift),
        s.rows_to_first,
        s.rows_in_flight,
        s.rows_in_flight if s.commit_level is None else s.commit_level,
    )


def latency_s(plan: Plan, row_s: float, frames_per_s: float | None = None) -> float:
    """Mean seconds from a control to the frame that it is bound to leaving the queue: half a shift of waiting, then the
    rows after its commit. `frames_per_s`: latent frames at which a paced stream leaves, if that is slower."""
    s = plan.schedule
    pace = row_s if frames_per_s is None else max(row_s, s.group / s.shift / frames_per_s)
    return pace * (s.shift / 2 + cost(plan).rows_after_commit)
