"""What a rank besides rank 0 does: its part of what rank 0 orders."""

from __future__ import annotations

from worldrt.runtime.clips import sample_clips
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.control import Control, Guest
from worldrt.runtime.parallel.orders import sampling_of


def work(models: Models, control: Control) -> None:
    """Until the end of the run. Models are loaded when they are first needed, and kept. Raises `RankError`."""
    assert isinstance(control, Guest)
    while (order := control.next_order()) is not None:
        task, settings, clips = sampling_of(*order)
        sample_clips(models, task, settings, clips, Observer())
