"""The drain of OpenDWM's official code, for parity: a plan's own drain is the right one.

Each round takes one more frame to level 0, but puts it and all before it back to what they were before the round: in
the next one they are denoised again from there, under the labels of a last group. So a frame is seen too noisy by those
after it, and the first one, which is clean, is labelled as noisy.
"""

from __future__ import annotations

from collections.abc import Iterator

from worldrt.engine.errors import InputError
from worldrt.runtime.queue.queue import Latent, Queue
from worldrt.runtime.schedule.guidance import branches
from worldrt.runtime.schedule.rows import Call, Row


def drain_replaying(queue: Queue) -> Iterator[Latent]:
    """The frames that are still in flight; the queue is done after the last one. Raises `InputError` where the
    schedule is not frame by frame without history, or frames have not just left."""
    s = queue.schedule
    if s.group != 1 or s.history or len(s.windows) != 1 or queue.leaving != 1 or queue.end is not None:
        raise InputError("replaying drain: expected groups of 1, one window, no history, and a frame that just left")
    for done in range(1, s.slots):
        before = [queue.slots.take(slot) for slot in range(done + 1)]
        for inner in range(s.shift):
            levels = tuple(min((max(slot - done, 0) + 1) * s.shift - inner, s.steps) for slot in range(s.slots))
            active = sum((slot - done + 1) * s.shift - inner <= s.steps for slot in range(s.slots))
            to_level = tuple(level - (slot < active) for slot, level in enumerate(levels))
            queue.levels[:] = levels
            queue.apply(Row(levels, (Call(0, s.slots, 0, active, to_level, branches(s, 0, levels)),), 0))
        yield Latent(queue.first + done, queue.slots.take(done))
        for slot, latent in enumerate(before):
            queue.slots.put(slot, latent)
    queue.first += s.slots
    queue.end, queue.leaving, queue.filled = queue.first, 0, 0
