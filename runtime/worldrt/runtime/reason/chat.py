"""What a vision-language model is asked, and how. `local` and `endpoint` are the two ways to ask one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Frames = np.ndarray[Any, np.dtype[np.uint8]]
Progress = Callable[[int, int], None]
MAX_CHARACTERS = 100_000  # of an answer; 4096 tokens are about 20 000


@dataclass(frozen=True)
class Question:
    """Instruction and question, and what is shown before it: `frames` uint8 RGB (t, h, w, 3), `fps` of them a second.

    One frame is a picture, several are a video. `video` is the file that the frames are from, where there is one.
    """

    system: str
    text: str
    frames: Frames | None = None
    fps: float = 16.0
    video: Path | None = None


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 takes the likeliest; `ascii_only` draws no other characters, where the
    model is here (a server cannot be told so)."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    ascii_only: bool = False


class Chat(Protocol):
    """A model that answers."""

    @property
    def name(self) -> str:
        """Which model it is, for reports; holds no secret."""
        ...

    def ask(
        self, question: Question, sampling: Sampling, count: int = 1, progress: Progress | None = None
    ) -> list[str]:
        """`count` independent answers. `progress` is told of tokens or answers done, of how many; what it raises ends
        the asking. Raises `BackendError` where the model cannot be had or does not answer as it should."""
        ...

    def unload(self) -> None:
        """Free what the model holds; the next question loads it again."""
        ...


def plain(answer: str) -> str:
    """An answer as text that can be written: its last part where it is over-long, no control characters and no halves
    of characters."""
    kept = answer[-MAX_CHARACTERS:]
    return "".join(c if c in "\n\t" or (c.isprintable() and not "\ud800" <= c <= "\udfff") else " " for c in kept)
