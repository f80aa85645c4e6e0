"""The prompt of a session: looked at before it is taken, encoded beside the world, and swapped in before a row."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Any

from worldrt.runtime.live.clock import Clock, Job
from worldrt.runtime.live.hooks import Prompts
from worldrt.runtime.live.model import LiveModel, Told
from worldrt.runtime.safety.base import Guard

CHECKED = 8
"""So many prompts are known to be allowed."""


class Prompting:
    """The prompt of now is `text`, and `told` is what the queue's model sees of it. `written`: prompts by row."""

    def __init__(self, model: LiveModel, clock: Clock, guard: Guard | None, written: Prompts | None) -> None:
        self.text, self.told = "", Told(None)
        self._model, self._clock, self._guard, self._written = model, clock, guard, written
        self._turn, self._checked = threading.Lock(), deque[str](maxlen=CHECKED)
        self._wanted: str | None = None
        self._encoding: tuple[str, Job] | None = None
        self._ready: deque[tuple[str, Any]] = deque(maxlen=1)  # to be taken before the next row

    @property
    def jobs(self) -> list[Job]:
        """What is under way."""
        return [self._encoding[1]] if self._encoding else []

    def check(self, text: str) -> None:
        """Raises `InputError` or `BlockedError`. From any thread."""
        with self._turn:
            if text in self._checked:
                return
            if self._guard is not None:
                self._guard.check_text(text)
            self._model.check(text)
            self._checked.append(text)

    def begin(self, text: str) -> None:
        """Take a prompt at once, in place of all before."""
        self.check(text)
        self._wanted = self._encoding = None
        self._ready.clear()
        self.restore(text, self._model.encode(text))

    def restore(self, text: str, encoded: Any) -> None:
        """Go on with a prompt that was encoded before; for a queue that is not made yet."""
        self.text, self.told = text, Told(encoded)

    def ask(self, text: str) -> None:
        """Have a prompt encoded and taken; the newest one wins."""
        self.check(text)
        self._wanted = text
        self.go_on()

    def go_on(self) -> None:
        """Keep what was encoded for the next row, and have the next one encoded. Raises what encoding raised."""
        if self._encoding is not None and self._encoding[1].done():
            (text, job), self._encoding = self._encoding, None
            self._ready.append((text, job.result()))
        if self._encoding is None and self._wanted is not None:
            text, self._wanted = self._wanted, None
            self._encoding = text, self._clock.submit("text", lambda: self._model.encode(text))

    def take_newest(self) -> None:
        """Wait for the newest prompt that was asked for, and take it; while no queue runs."""
        while self._encoding is not None or self._wanted is not None:
            if self._encoding is not None:
                self._encoding[1].result()
            self.go_on()
        with suppress(IndexError):
            self.text, self.told.text = self._ready.pop()

    def before_row(self, row: int) -> str | None:
        """In the denoising stage: swap in what is ready; the prompt, where it is another from this row on."""
        written = None if self._written is None else self._written.of(row)
        if written is not None:
            self.check(written)
            self._ready.append((written, self._model.encode(written)))
        with suppress(IndexError):
            self.text, self.told.text = self._ready.pop()
            return self.text
        return None
