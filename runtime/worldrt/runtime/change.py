"""How much what the denoiser sees has changed since it was last evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.engine.device import Buffer
from worldrt.runtime.bound import BoundDenoiser

Float32 = np.ndarray[Any, np.dtype[np.float32]]
SAMPLED = 1 << 21  # values of activations that are looked at


class Change:
    """The relative L1 change of a measure of the input, the largest of all clips.

    In block form the measure is what the first block adds to its input, for the prompt, as of first-block caching; in
    whole form, and where the first block has no weights of its own on the device, it is the network's input
    x / (1 + sigma). Activations are sampled: the same tokens of every frame each time, other ones in each frame. Where
    several processes share the clips, each measures its own part, and all find the change of the whole.
    """

    def __init__(self, bound: BoundDenoiser, levels: np.ndarray[Any, Any]) -> None:
        self._bound, self._levels = bound, levels
        self._kept: Float32 | None = None
        self._now: Float32 | None = None
        waits = bound.blocks is not None and not bound.blocks.resident
        self.wants_first_block = bound.hidden is not None and not waits

    def since_kept(self, index: int) -> float:
        """Of row i; the measure is remembered for `keep`. Infinite where nothing was kept."""
        self._now = self._measure(index)
        return np.inf if self._kept is None else self._relative(self._now, self._kept)

    def keep(self) -> None:
        """What was measured last is what later rows are compared with."""
        self._kept = self._now

    def _measure(self, index: int) -> Float32:
        """(clips, values)"""
        clips = self._bound.clips
        if not self.wants_first_block or self._bound.hidden is None:
            x: Float32 = self._bound.device.download(self._bound.x).reshape(clips, -1)
            x /= np.float32(1 + self._levels[index])
            return x
        before, after = (self._sampled(buffer) for buffer in self._bound.hidden)
        return after - before

    def _relative(self, now: Float32, before: Float32) -> float:
        """sum |now - before| / sum |before| of each clip; the largest."""
        sums = [np.abs(values).sum(1, dtype=np.float64) for values in (now - before, before)]
        change, size = self._bound.summed(np.stack(sums))
        with np.errstate(all="ignore"):
            return float((change / size).max())

    def _sampled(self, hidden: Buffer) -> Float32:
        """Some tokens of every frame of hidden[B, T, S, D], for the prompts of all clips."""
        clips, (_, frames, tokens, width) = self._bound.clips, hidden.shape
        total, of_frame, pieces = self._bound.pieces(frames, tokens)
        count = max(1, min(of_frame, SAMPLED // (clips * total * width)))
        rows = hidden.reshape((hidden.shape[0] * frames * tokens, width))
        parts = [np.zeros((0, width), np.float32)]
        for clip in range(clips):
            for index, (t, before) in enumerate(pieces):
                start = int((t * 0.618034) % 1 * (of_frame - count + 1)) - before
                first, last = (min(max(place, 0), tokens) for place in (start, start + count))
                at = (clip * frames + index) * tokens
                if first < last:
                    parts.append(_numbers(self._bound.device.download(rows[at + first : at + last]), hidden.dtype))
        return np.concatenate(parts).reshape(clips, -1)


def _numbers(array: np.ndarray[Any, Any], dtype: str) -> Float32:
    """float32 of what a device gave; bfloat16 comes as its bits."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)
