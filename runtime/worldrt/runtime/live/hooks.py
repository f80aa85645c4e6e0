"""What a session asks, and whom it tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Prompts(Protocol):
    """Prompts that were written down, by row."""

    def of(self, row: int) -> str | None:
        """The prompt that is new before a row."""
        ...


class Log(Protocol):
    """What is told of everything that the frames depend on."""

    def begin(self, prompt: str, seed: int, base: Sequence[str]) -> None: ...

    def control(self, frame: int, control: str) -> None: ...

    def prompt(self, row: int, prompt: str) -> None: ...

    def end(self, frames: int) -> None:
        """So many frames were handed out since the world began."""
        ...


class Guard(Protocol):
    """What looks at prompts."""

    def check_text(self, text: str, what: str = "prompt") -> None: ...
