"""The law of all schedules, and its parameters.

A stream is denoised in rows. A frame takes `steps` = T writes, one level each, from T (noise) to 0 (clean). Frames come
in groups of `group` = W, and a new group starts every `shift` = s rows, so before row m group g is at

    level(g, m) = clip(T + g s - m, 0, T)

and G = ceil(T / s) groups are in flight. Full clips, autoregressive chunks, diffusion forcing, FIFO-Diffusion,
Swin-DPM and OpenDWM's queue are settings of these numbers (`worldrt.runtime.schedule.methods`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldrt.engine.errors import InputError

Fill = Literal["cold", "prefill", "renoise"]
Drain = Literal["pad", "shrink"]
MAX_STEPS = 10_000
MAX_SLOTS = 10_000


@dataclass(frozen=True)
class Window:
    """`length` slots from `start` on, evaluated together; those from `write_start` to before `write_stop` are written.
    Slot 0 is the oldest frame in flight, history has negative slots."""

    start: int
    length: int
    write_start: int
    write_stop: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Term:
    """A part of a guided prediction: `weight` times the x0 of one of the queue's models, which sees the history noised
    to the levels `noise` and labelled with the levels `label`, one for each history slot. No `noise` is none at all;
    no `label` is that of the noise, and the schedule's own for what is not noised."""

    weight: float = 1.0
    model: str = "cond"
    noise: tuple[int, ...] = ()
    label: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """The numbers of a schedule.

    `history`: clean frames before slot 0 that the model sees, labelled with the level `history_label`. `windows`: what
    is evaluated on a row, in any order; none is one window over everything. `terms` are summed to one prediction.

    `fill`: `cold` starts with noise alone, `prefill` with noise after a given history, `renoise` in the steady state,
    from a known video that is noised to the level of each slot. `drain`, when no frames follow: `pad` goes on with
    frames that are thrown away, so that calls keep their size and the frames are those of an endless stream; `shrink`
    makes calls smaller. The first `discard` frames are not handed out. Late conditions are taken while a frame is at
    `commit_level` or above; none is T, before its first write.
    """

    steps: int
    shift: int
    group: int = 1
    history: int = 0
    windows: tuple[Window, ...] = ()
    terms: tuple[Term, ...] = (Term(),)
    history_label: int = 0
    fill: Fill = "cold"
    drain: Drain = "pad"
    discard: int = 0
    commit_level: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        if len(self.windows) > 1 and self.steps % self.shift:
            raise InputError(
                f"schedule: expected a shift that divides the {self.steps} steps where a row has several windows, got "
                f"{self.shift}; else some windows would be empty on some rows. Choose a divisor of {self.steps}"
            )
        if not self.windows:
            whole = Window(-self.history, self.history + self.slots, 0, self.slots)
            object.__setattr__(self, "windows", (whole,))

    @property
    def groups(self) -> int:
        """G: groups in flight."""
        return -(-self.steps // self.shift)

    @property
    def slots(self) -> int:
        """D = G W: frames in flight."""
        return self.groups * self.group

    @property
    def rows_in_flight(self) -> int:
        """Rows from the append of a frame to its emission: T, and a wait before the first where s does not divide T."""
        return self.groups * self.shift

    @property
    def given(self) -> int:
        """Frames of history that the start brings."""
        return 0 if self.fill == "cold" else self.history

    @property
    def rows_to_first(self) -> int:
        """Rows until the first group is clean."""
        return self.shift if self.fill == "renoise" else self.steps

    @property
    def commits_at(self) -> int:
        """The lowest level at which a frame takes a late condition."""
        return self.steps if self.commit_level is None else self.commit_level

    def level(self, group: int, row: int) -> int:
        """The law: the level of a group before a row, where row 0 is the first of a cold start."""
        return min(max(self.steps + group * self.shift - row, 0), self.steps)

    def _check_numbers(self) -> None:
        ranges = {
            "steps": (1, MAX_STEPS),
            "shift": (1, self.steps),
            "group": (1, MAX_SLOTS),
            "history": (1 if self.fill == "prefill" else 0, MAX_SLOTS),
            "history_label": (0, self.steps),
            "discard": (0, 1_000_000),
            "commit_level": (1, self.steps),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                hint = "; a prefill needs history" if (name, value) == ("history", 0) else ""
                raise InputError(f"schedule: {name}: expected {least} to {most}, got {value}{hint}")
        if self.slots > MAX_SLOTS:
            raise InputError(
                f"schedule: expected at most {MAX_SLOTS} frames in flight, got {self.slots}; raise shift or lower group"
            )
