"""The keys of a terminal as controls: W, A, S, D or the arrows steer, the space bar lets go, q ends.

    with Keyboard(session.control) as keyboard:
        while not keyboard.ended:
            ...

A terminal tells of presses alone and repeats a key that is held down, the first time after a while. So a key counts as
held for `HOLD_S` after it was told of last.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.live.keys import control_of

HOLD_S = 0.7
HELP = "W A S D or the arrows steer, the space bar lets go, q ends"
ARROWS = {"A": "W", "B": "S", "C": "D", "D": "A"}
OPPOSITE = {"W": "S", "S": "W", "A": "D", "D": "A"}
ESCAPE, AT_ONCE = "\x1b", 1024


class Keyboard:
    """Reads a terminal in a `with` block, in a thread of its own, and gives it back as it was. Raises `InputError`
    where `fd` is none. `steer` gets each control that is new, None where no key is held; `ended` says that q was
    pressed, or that the terminal is gone."""

    def __init__(self, steer: Callable[[str | None], None], fd: int | None = None, hold_s: float = HOLD_S) -> None:
        self.ended = False
        self._steer, self._hold_s = steer, hold_s
        self._fd = _stdin() if fd is None else fd
        if self._fd < 0 or not os.isatty(self._fd):
            raise InputError("--keys: the standard input is no terminal; start it from one, or leave --keys out")
        try:
            self._termios: Any = importlib.import_module("termios")
            self._tty: Any = importlib.import_module("tty")
        except ImportError:
            raise InputError(
                "--keys: this system's terminals cannot be read by key; trt-run serve has a page"
            ) from None
        self._held: dict[str, float] = {}  # until when
        self._told: str | None = None

    def __enter__(self) -> Keyboard:
        self._before = self._termios.tcgetattr(self._fd)
        self._wake, self._waken = os.pipe()
        self._tty.setcbreak(self._fd, self._termios.TCSANOW)
        self._thread = threading.Thread(target=self._read, name="worldrt-keys", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._waken, b"x")
        self._thread.join()
        os.close(self._wake)
        os.close(self._waken)
        with suppress(self._termios.error):  # it is gone
            self._termios.tcsetattr(self._fd, self._termios.TCSANOW, self._before)

    def _read(self) -> None:
        while not self.ended:
            left_s = max(0.0, min(self._held.values()) - time.monotonic()) if self._held else None
            readable, _, _ = select.select([self._fd, self._wake], [], [], left_s)
            if self._wake in readable:
                return
            if readable:
                self._take()
            now_s = time.monotonic()
            self._held = {key: until_s for key, until_s in self._held.items() if until_s > now_s}
            self._tell()

    def _take(self) -> None:
        try:
            text = os.read(self._fd, AT_ONCE).decode("ascii", "replace")
        except OSError:
            text = ""
        self.ended = not text  # the terminal is gone
        for key in keys_in(text):
            if key == "Q":
                self.ended = True
            elif key == " ":
                self._held.clear()
            else:
                self._held.pop(OPPOSITE[key], None)
                self._held[key] = time.monotonic() + self._hold_s

    def _tell(self) -> None:
        control = control_of("".join(self._held))
        if control != self._told:
            self._told = control
            self._steer(control)


def keys_in(text: str) -> list[str]:
    """`W`, `A`, `S`, `D`, `Q` and the space bar in what a terminal sends; arrows are `ESC [ A` or `ESC O A`."""
    keys, place = [], 0
    while place < len(text):
        if text[place] == ESCAPE and text[place + 1 : place + 2] in ("[", "O"):
            end = place + 2
            while end < len(text) and not text[end].isalpha() and text[end] != "~":
                end += 1
            keys += [ARROWS[text[end]]] if end < len(text) and text[end] in ARROWS else []
            place = end + 1
        else:
            key = text[place].upper()
            keys += [key] if key in (*OPPOSITE, "Q", " ") else []
            place += 1
    return keys


def _stdin() -> int:
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return -1
