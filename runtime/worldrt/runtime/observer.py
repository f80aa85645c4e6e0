"""How a run tells what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from worldrt.runtime.timing import Timings

O = TypeVar("O", bound="Observer")


class Cancelled(Exception):  # noqa: N818  # it is none
    """What an observer raises to end a run within one step. No mistake and no defect: nothing half-written is kept."""


class Observer:
    """Keeps the timings of a run. A subclass may show progress; an exception that it raises, as `Cancelled`,
    ends the run. It is a context manager, so that a subclass may show something while a run lasts.

    `before_step` is called at the end of each step before its time is taken; a device that runs ahead of the host
    is waited for there, where steps are measured.
    """

    def __init__(self) -> None:
        self.timings = Timings()
        self.before_step: Callable[[], None] = _nothing

    def __enter__(self: O) -> O:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a `with` block."""
        with self.timings.stage(name):
            yield

    def progress(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` steps of a stage are done; the first call of a stage has `done` 0."""
        self.before_step()
        self.timings.count(stage, done)

    def warn(self, text: str) -> None:
        """Something that the user should know, in one line."""


def _nothing() -> None:
    pass
