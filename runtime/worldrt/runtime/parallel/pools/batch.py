"""A batch over workers that hold warm models: a worker that is lost costs no item."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worldrt.engine.errors import BackendError
from worldrt.engine.files import sweep
from worldrt.runtime.batch_file import Item
from worldrt.runtime.jobs import Job
from worldrt.runtime.parallel.pools.base import Cluster, Handle, Lost, Ref

MOST_LOSSES = 3
"""Workers that the same items may cost before they are given up."""
Made = list[dict[str, Any] | Exception]


class Maker(Protocol):
    """What a worker holds."""

    def make(self, jobs: Sequence[Job], again: bool) -> Made:
        """What becomes of each job. `again`: another worker may have left results of them, which are replaced."""
        ...


@dataclass(eq=False)
class _Task:
    group: list[Item]
    losses: int = 0
    begun_s: float = 0.0

    @property
    def jobs(self) -> list[Job]:
        return [item.job for item in self.group if item.job]

    def clean(self) -> None:
        """Remove what a worker that is gone had half written."""
        for job in self.jobs:
            for place in job.places:
                sweep(place, self.begun_s)


class Spread:
    """Groups of items over `count` workers, each made by `make`; yields each group, as it is done, with what became of
    its jobs. `told` hears of losses."""

    def __init__(
        self, cluster: Cluster, make: Callable[[], Maker], count: int, told: Callable[[str], None] = lambda text: None
    ) -> None:
        self._cluster, self._make, self._count, self._told = cluster, make, count, told
        self._busy: list[tuple[Handle, Ref, _Task]] = []

    def __call__(self, groups: Iterable[list[Item]]) -> Iterator[tuple[list[Item], Made]]:
        waiting = deque(_Task(group) for group in groups)
        idle = [self._cluster.start(self._make) for _ in range(min(self._count, len(waiting)))]
        try:
            while waiting or self._busy:
                while waiting and idle:
                    self._begin(idle.pop(), waiting.popleft())
                handle, ref, task = self._busy.pop(self._cluster.first([ref for _, ref, _ in self._busy]))
                try:
                    yield task.group, self._cluster.get(ref)
                    idle.append(handle)
                except Lost as error:
                    handle.end()
                    task.clean()
                    idle.append(self._cluster.start(self._make))
                    task.losses += 1
                    if task.losses < MOST_LOSSES:
                        places = ", ".join(job.place for job in task.jobs)
                        self._told(f"the worker that made {places} was lost; another one makes it again")
                        waiting.appendleft(task)
                    else:
                        why = f"{MOST_LOSSES} workers were lost over it ({error}); give them more memory"
                        yield task.group, [BackendError(why) for _ in task.group]
        finally:
            for handle, _, task in self._busy:
                handle.end()
                task.clean()

    def _begin(self, handle: Handle, task: _Task) -> None:
        task.begun_s = time.time()
        self._busy.append((handle, handle.call("make", task.jobs, task.losses > 0), task))
