"""Frames that a caller gives to a pipeline."""

from __future__ import annotations

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Frame


def as_clip(name: str, frames: Frame) -> Frame:
    """(t, h, w, 3) of a picture or of frames. Raises `InputError` for another shape or dtype."""
    clip = frames[None] if frames.ndim == 3 else frames
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8 or not clip.size:
        raise InputError(f"{name}: expected uint8 RGB (t, h, w, 3), got {frames.dtype}{list(frames.shape)}")
    return clip


def of_length(clip: Frame, count: int, observer: Observer) -> Frame:
    """The first `count` frames; the last one again where there are fewer."""
    if len(clip) < count:
        observer.warn(f"the clip to edit has {len(clip)} of {count} frames; its last one is taken for those that lack")
    return clip[np.minimum(np.arange(count), len(clip) - 1)]


def check_edit(strength: float | None, edit: Frame | None) -> None:
    """Raises `InputError` where one of the two is given without the other."""
    if (strength is None) != (edit is None):
        raise InputError("edit_strength: expected together with what is edited, and not one without the other")
