"""What is done on a row, as plain data. Slots count from the oldest frame in flight; history is negative."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """One evaluation of a model, and its weight in the prediction. `read_label`: the level that each slot of the window
    is said to have. `renoise`: levels that slots are noised to for this evaluation alone, or () for none."""

    weight: float
    model: str
    read_label: tuple[int, ...]
    renoise: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """`length` slots from `start` on. Slots `write_start` to before `write_stop` go to their `to_level`, the others
    keep their level, which `to_level` repeats. The branches are summed to one prediction."""

    start: int
    length: int
    write_start: int
    write_stop: int
    to_level: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def stop(self) -> int:
        return self.start + self.length

    @property
    def written(self) -> slice:
        """The written slots as places in the window."""
        return slice(self.write_start - self.start, self.write_stop - self.start)


@dataclass(frozen=True)
class Row:
    """Calls that all read the state before the row, so they may run in any order and at the same time. `levels` are
    those of the frames in flight before it; the first `advance` of them are clean after it, and leave."""

    levels: tuple[int, ...]
    calls: tuple[Call, ...]
    advance: int
