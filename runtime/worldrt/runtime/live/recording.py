"""Recordings of sessions: JSON lines of all that the frames depend on.

    {"worldrt_world": 1, "model": {...}}
    {"begin": {"prompt": "a road", "seed": 0, "base": ["D"]}}      the world began; again after each reset
    {"frame": 0, "control": "D"}                                   this latent frame and those after it
    {"row": 12, "prompt": "rain"}                                  from this row on
    {"row": 14, "late": "DL"}                                      before this row, all frames that still took a control
    {"end": {"frames": 480}}                                       it ended before this frame was shown

Each line is written when it happens, so a recording that was cut short is good up to there. A world that goes on from a
snapshot is told as one of its own, which begins with what led to that.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldrt.engine.errors import InputError, OutputError

VERSION = 1
MARK = "worldrt_world"
MOST_BYTES = 256 * 2**20


class Mark(NamedTuple):
    """A place in a recording: that of the world's beginning, and what was told up to then."""

    recording: Recording
    begin: int
    end: int
    control: str | None


class Recording:
    """Writes a session into a file, which is not to exist; one without a name (None) is gone when it is closed. Raises
    `OutputError`. What cannot be written while the world runs ends the recording, not the world; `problem` says why."""

    def __init__(self, path: Path | None, facts: Mapping[str, Any], *, most_bytes: int = MOST_BYTES) -> None:
        try:
            self._file: Any = path.open("x+b", buffering=0) if path else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"{path}: cannot be recorded to: {error.strerror}; give another place") from error
        self.problem = ""
        self._most, self._size = most_bytes, 0
        self._begin = self._head = 0
        self._control: str | None = None
        self._begun = False
        self._write({MARK: VERSION, "model": dict(facts)})
        self._head = self._size

    def begin(self, prompt: str, seed: int, base: Sequence[str]) -> None:
        self._control, self._begun, self._begin = None, True, self._size
        self._write({"begin": {"prompt": prompt, "seed": seed, "base": list(base)}})

    def control(self, frame: int, control: str) -> None:
        if control != self._control:
            self._control = control
            self._write({"frame": frame, "control": control})

    def late(self, row: int, control: str) -> None:
        self._write({"row": row, "late": control})

    def prompt(self, row: int, prompt: str) -> None:
        self._write({"row": row, "prompt": prompt})

    def end(self, frames: int) -> None:
        if self._begun:
            self._begun = False
            self._write(_end(frames))

    def mark(self) -> Mark | None:
        """None where the recording has ended by then."""
        return Mark(self, self._begin, self._size, self._control) if self._begun and not self.problem else None

    def resume(self, mark: Any) -> bool:
        if not isinstance(mark, Mark):
            return False
        told = mark.recording._told(mark.begin, mark.end)
        if told is None:
            return False
        self._control, self._begun, self._begin = mark.control, True, self._size
        self._append(told)
        return True

    def latest(self, frames: int) -> bytes:
        """Raises `InputError` where that cannot be told."""
        head, told = self._told(0, self._head), self._told(self._begin, self._size)
        if head is None or told is None or self.problem:
            raise InputError(self.problem or "recording: it cannot be read any more")
        return head + told + (_line(_end(frames)) if self._begun else b"")

    def close(self) -> None:
        """After the session has stopped."""
        self._file.close()

    def _told(self, begin: int, end: int) -> bytes | None:
        """What was written; None where it cannot be read any more."""
        try:
            told = os.pread(self._file.fileno(), end - begin, begin)
        except (OSError, ValueError):  # ValueError: it was closed
            return None
        return told if len(told) == end - begin else None

    def _write(self, data: Mapping[str, Any]) -> None:
        self._append(_line(data))

    def _append(self, told: bytes) -> None:
        if self.problem:
            return
        if self._size + len(told) > self._most:
            self.problem = f"the recording ended: it has {self._most // 2**20} MiB"
            return
        try:
            if self._file.write(told) != len(told):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(told)
        except (OSError, ValueError) as error:
            self.problem = f"the recording ended: {getattr(error, 'strerror', None) or error}"


def _line(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data) + "\n").encode()


def _end(frames: int) -> dict[str, Any]:
    return {"end": {"frames": frames}}
