"""How far a build is, from the nested phases that a library reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """The phases under way. A phase of n steps that is a step of another one is an n-th part of that step."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}
        self._furthest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, index: int) -> None:
        if name in self._open:
            self._open[name].done = index + 1

    def finish(self, name: str) -> None:
        self._open.pop(name, None)

    def fraction(self) -> float:
        """Of the whole, from 0 to 1; it never goes back."""
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        self._furthest = max([self._furthest, *(self._of(name) for name in roots)])
        return self._furthest

    def _of(self, name: str) -> float:
        phase = self._open[name]
        within = [self._of(child) for child, other in self._open.items() if other.parent == name and child != name]
        return min(1.0, (phase.done + max(within, default=0.0)) / phase.steps)


def make_monitor(trt: Any, progress: Callable[[str, float], bool]) -> Any:
    """A progress monitor of the library. `progress` gets the phase and the fraction of the whole that is done, and
    says whether to go on; it is called at every step, which may be thousands."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases, self._lock = Phases(), threading.Lock()
            self._going = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                done = self._phases.fraction()
                self._going = progress(phase_name, done) and self._going
                return self._going

    return Monitor()
