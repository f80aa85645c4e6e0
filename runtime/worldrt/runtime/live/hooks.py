"""What a session asks, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worldrt.runtime.live.steering import Bound


class Prompts(Protocol):
    """Prompts that were written down, by row."""

    def of(self, row: int) -> str | None:
        """The prompt that is new before a row."""
        ...


class Log(Protocol):
    """What is told of everything that the frames depend on."""

    def begin(self, prompt: str, seed: int, base: Sequence[str]) -> None: ...

    def control(self, frame: int, control: str) -> None: ...

    def late(self, row: int, control: str) -> None:
        """Before a row, all frames that still took a control got this one."""
        ...

    def prompt(self, row: int, prompt: str) -> None: ...

    def end(self, frames: int) -> None:
        """The world ended before frame number `frames` was shown."""
        ...

    def mark(self) -> Any:
        """This place in what was told since the world began."""
        ...

    def resume(self, mark: Any) -> bool:
        """A world goes on from a place, of this log or of another; whether that can be told."""
        ...

    def latest(self, frames: int) -> bytes:
        """What was told of the world that runs, as a recording that ends before a frame."""
        ...


@dataclass(frozen=True)
class Heard:
    """Who hears what happens in the making of a stream. All but `made` are called in the denoising stage.

    `before_row(row)`; `bound(frame, control)`: a frame gets its control; `late(row, control)`: all frames that still
    take one get another; `made(frames, took_s, busy_s)`: frames, the seconds of work up to the first of them, without
    waiting, and those of the slowest stage.
    """

    before_row: Callable[[int], None] = lambda row: None
    bound: Callable[[int, Bound], None] = lambda frame, bound: None
    late: Callable[[int, Bound], None] = lambda row, bound: None
    made: Callable[[int, float, float], None] = lambda frames, took_s, busy_s: None
