"""A world that is a square on a coloured ground: it moves as it is steered, and answers at the next frame."""

from __future__ import annotations

import threading
import time

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

STEPS = {"D": (0, -8), "B": (0, 8), "DL": (-8, 0), "DR": (8, 0), None: (0, 0)}
GROUNDS = {"D": (40, 160, 40), "B": (160, 40, 40), "DL": (40, 40, 160), "DR": (160, 160, 40), None: (60, 60, 60)}


class ToyWorld:
    """Has the interface of `worldrt.runtime.serve.world.World`. `broken` makes its next step fail."""

    def __init__(self, width: int = 256, height: int = 144, fps: int = 16) -> None:
        self.video = VideoFormat(width, height, fps)
        self.controls = ("D", "DL", "DR", "B")
        self.prompts: list[str] = []
        self.asked: list[str | None] = []
        self.broken: Exception | None = None
        self.stopped = self.done = False
        self._lock = threading.Lock()
        self._control: str | None = None
        self._control_s: float | None = None

    def start(self, prompt: str) -> None:
        self.prompts.append(prompt)
        self.reset()

    def step(self) -> list[LiveFrame]:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._due = max(self._due + 1 / self.video.fps, time.monotonic())
        with self._lock:
            control, control_s = self._control, self._control_s
        bound = time.monotonic()
        self.x, self.y = self.x + STEPS[control][0], self.y + STEPS[control][1]
        picture = np.empty(self.video.shape, np.uint8)
        picture[:] = GROUNDS[control]
        top, left = self.y % (self.video.height - 32), self.x % (self.video.width - 32)
        picture[top : top + 32, left : left + 32] = 255
        picture[:4, : (self.index * 4) % self.video.width] = 255
        frame = LiveFrame(self.index, picture, Stamps(control=control_s, bound=bound, decoded=time.monotonic()))
        self.index += 1
        return [frame]

    def control(self, name: str | None) -> None:
        with self._lock:
            self._control, self._control_s = name, time.monotonic()
            self.asked.append(name)

    def check(self, prompt: str) -> None:
        if "refuse" in prompt:
            raise InputError("prompt: the toy does not like it")

    def prompt(self, text: str) -> None:
        self.check(text)
        self.prompts.append(text)

    def reset(self) -> None:
        self.x, self.y, self.index, self._due = 64, 64, 0, time.monotonic()

    def snapshot(self) -> tuple[int, int]:
        return self.x, self.y

    def restore(self, state: tuple[int, int]) -> None:
        self.x, self.y = state

    def recording(self) -> bytes:
        return b'{"worldrt_world": 1, "model": {}}\n'

    def stop(self) -> None:
        self.stopped = True
