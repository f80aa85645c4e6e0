"""What a rank besides rank 0 does: its part of what rank 0 orders."""

from __future__ import annotations

from worldrt.runtime.clips import sample_clips
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.guest import Guest
from worldrt.runtime.parallel.orders import sampling_of
from worldrt.runtime.parallel.window import WINDOW, SharedWindow, conditions_in


def work(models: Models, control: Control) -> None:
    """Until the end of the run. Models are loaded when they are first needed, and kept. Raises `RankError`."""
    assert isinstance(control, Guest)
    windows: dict[str, SharedWindow] = {}
    while (order := control.next_order()) is not None:
        message, arrays = order
        if message["do"] != WINDOW:
            task, settings, clips = sampling_of(message, arrays)
            sample_clips(models, task, settings, clips, Observer())
            continue
        task, ranks = message["task"], models.execution.ranks
        assert ranks is not None
        if task not in windows:
            windows[task] = SharedWindow(models.denoiser(task), conditions_in(arrays), ranks, task)
        windows[task].follow(message, arrays)
