"""The published methods as settings of the law. Each function only chooses numbers."""

from __future__ import annotations

from worldrt.engine.errors import InputError
from worldrt.runtime.schedule.law import Schedule, Window


def full_clip(steps: int, frames: int, history: int = 0) -> Schedule:
    """All frames of a clip at one level; the next clip follows, with `history` frames of this one."""
    return Schedule(steps, steps, frames, history)


def autoregressive(steps: int, chunk: int, history: int) -> Schedule:
    """A chunk after another, each after `history` clean frames; the first after frames that are given."""
    return Schedule(steps, steps, chunk, history, fill="prefill")


def pyramid(steps: int, slope: int, history: int = 0) -> Schedule:
    """Diffusion forcing's pyramid: each frame is `slope` levels above the one before it; the slope of `steps` is its
    autoregressive form. Chen et al., Diffusion forcing (2024)."""
    return Schedule(steps, slope, 1, history, fill="prefill" if history else "cold")


def fifo(frames: int, partitions: int, lookahead: bool = True) -> Schedule:
    """FIFO-Diffusion of a model of `frames` frames: T = partitions x frames, a frame leaves on each row.

    With lookahead there are twice as many windows, half a window apart, and each writes its later half; of an odd
    number of frames the halves take turns in being the larger one. The queue starts from one clip (`fifo_start`), and
    the first T - frames frames are discarded. Kim et al., FIFO-Diffusion (2024), sections 4.1 to 4.3.
    """
    if frames < 1 or partitions < 1 or (lookahead and frames < 2):
        raise InputError(
            f"FIFO: expected 1 frame and partition or more, 2 frames for lookahead, got {frames} and {partitions}"
        )
    steps, half = frames * partitions, frames // 2
    if not lookahead:
        windows = tuple(Window(i * frames, frames, i * frames, (i + 1) * frames) for i in range(partitions))
        return Schedule(steps, 1, windows=windows, fill="renoise", discard=steps - frames)
    halves = []
    for i in range(partitions):
        first = i * frames - half
        middle = first + frames  # of odd frames, the first window of a pair writes one slot more
        halves += [Window(first, frames, i * frames, middle)]
        halves += [Window(first + half, frames, middle, middle + half)]
    discard = steps - frames
    return Schedule(steps, 1, 1, half, tuple(halves), history_label=1, fill="renoise", discard=discard)


def fifo_start(schedule: Schedule, frames: int) -> tuple[int, ...]:
    """Which frame of a clip each place begins with, history first: its first one again and again, then all."""
    return (0,) * schedule.history + tuple(max(0, slot - (schedule.steps - frames)) for slot in range(schedule.slots))


def swin_dpm(steps: int, groups: int, group: int) -> Schedule:
    """Swin-DPM of The Matrix: the last frame that left is the one clean frame in front; it starts from a video."""
    if groups < 1 or steps % groups:
        raise InputError(f"Swin-DPM: expected steps that are a multiple of the groups, got {steps} and {groups}")
    return Schedule(steps, steps // groups, group, history=1, fill="renoise")


def opendwm(steps: int = 24, shift: int = 4) -> Schedule:
    """The streaming queue of OpenDWM: frame by frame, no clean history, started cold."""
    return Schedule(steps, shift)
