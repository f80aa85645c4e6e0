"""What a rank besides rank 0 does: its part of what rank 0 orders."""

from __future__ import annotations

import json

from worldrt.runtime.clips import sample_clips
from worldrt.runtime.live.device import bind_window
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.device_window import WholeWindow
from worldrt.runtime.parallel.guest import Guest
from worldrt.runtime.parallel.orders import SAMPLE, sampling_of
from worldrt.runtime.parallel.window import BASE, WINDOW, SharedWindow
from worldrt.runtime.parallel.wire import Message


def work(models: Models, control: Control, base: Models | None = None) -> None:
    """Until the end of the run. Models are loaded when they are first needed, and kept; `base` are those of the clips
    that worlds go on from, where they are others. Raises `RankError`."""
    assert isinstance(control, Guest)
    windows: dict[str, SharedWindow | WholeWindow] = {}
    while (order := control.next_order()) is not None:
        message, arrays = order
        if message["do"] == SAMPLE:
            task, settings, clips = sampling_of(message, arrays)
            sample_clips(models, task, settings, clips, Observer())
            continue
        key = json.dumps([message.get(name) for name in ("do", "of", "task", "latents", "guided", "rows")])
        if key not in windows:
            windows[key] = _opened(base if base and message["of"] == BASE else models, message)
        windows[key].follow(message, arrays)


def _opened(models: Models, message: Message) -> SharedWindow | WholeWindow:
    ranks, task = models.execution.ranks, message["task"]
    assert ranks is not None
    with ranks.loading():
        model = models.denoiser(task)
        if message["do"] == WINDOW:
            return SharedWindow(model, set(message["given"]), ranks, task, message["of"])
        window = bind_window(model, message, ranks)
        assert isinstance(window, WholeWindow)
        return window
