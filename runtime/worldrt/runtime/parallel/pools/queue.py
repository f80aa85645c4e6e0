"""A queue that another process runs: here are its counters and what its frames get, there are its latents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.live.model import Float32, Told
from worldrt.runtime.parallel.pools.stage import Result, Stage
from worldrt.runtime.queue.conditions import Condition, Feed
from worldrt.runtime.queue.evaluation import Model
from worldrt.runtime.queue.queue import Latent, Queue
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.schedule.rows import Row

POINT = (1, 1, 1)
"""The shape of a latent frame here, where nothing is computed."""


@dataclass(frozen=True, eq=False)
class FarLatent:
    """A latent frame that lies in the cluster: the one at `place` of those that left with a row."""

    row: Result
    place: int

    def __getitem__(self, frames: Any) -> FarLatent:
        """As a clip of one frame, which is how decoders take it."""
        return self


class FarQueue(Queue):
    """A `Queue` that counts as the one in the worker does: conditions are asked for here, and travel with their row.
    `window` rows may be under way at a time: with 1, a row is waited for, so that controls are taken as late as can
    be; with more, `run` returns when the row is submitted."""

    def __init__(self, stage: Stage, schedule: Schedule, told: Told, feed: Feed, seed: int, *, window: int = 1) -> None:
        levels, rows = np.zeros(schedule.steps + 1), np.zeros((schedule.steps + 1, 4))
        table = LevelTable(levels, levels, levels, rows, rows)
        super().__init__(Plan(schedule), table, cast(Model, None), POINT, feed=self._asked)
        self._worker, self._told, self._given_by, self._seed, self._window = stage, told, feed, seed, window
        self._text: Any = None  # that the worker has
        self._entering: list[Condition | None] = []
        self._late: list[tuple[int, Condition]] = []
        self._last: Result | None = None
        self._under_way: deque[Result] = deque()

    def start(self, video: Float32 | None = None) -> None:
        """As `Queue.start`; a video of a wrong shape is found by the first row."""
        here = None if video is None else np.zeros((*POINT[:2], video.shape[2], *POINT[2:]), np.float32)
        super().start(here)
        self._text = self._told.text
        self._worker.begin()
        self._worker.submit("start", self._text, self._seed, video, self._taken())

    def rebind(self, frame: int, condition: Condition) -> None:
        super().rebind(frame, Condition(condition.sequence))
        self._late.append((frame, condition))

    def run(self, row: Row | None = None, each: Callable[..., Iterable[Any]] = map) -> list[Latent]:
        """Have the next row run; the latents that leave with it are `FarLatent`s."""
        leaving = super().run(row, each)
        row_of = self._last if leaving else None
        self._last = None  # who holds a result may ask for it
        return [
            Latent(latent.number, cast(Float32, FarLatent(row_of, i))) for i, latent in enumerate(leaving) if row_of
        ]

    def apply(self, row: Row, each: Callable[..., Iterable[Any]] = map) -> None:
        """Submit a row, and count what it does."""
        text, self._text = None if self._told.text is self._text else self._told.text, self._told.text
        late, self._late = self._late, []
        self._last = result = self._worker.submit("row", text, late, self._taken())
        self._under_way.append(result)
        while len(self._under_way) >= self._window:
            self._under_way.popleft().wait()
        for call in row.calls:
            self.levels[call.write_start : call.write_stop] = call.to_level[call.written]

    def _asked(self, frame: int) -> Condition | None:
        condition = self._given_by(frame)
        self._entering.append(condition)
        return None if condition is None else Condition(condition.sequence)  # its values are for the worker

    def _taken(self) -> list[Condition | None]:
        taken, self._entering = self._entering, []
        return taken
