"""Adding up the convolutions of a causal VAE that works on a stream, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from worldrt.benchmarks.costs.work import Work, attention

PAST = 2
"""Frames that a temporal kernel of three looks back."""


@dataclass
class Tally:
    """What has been met so far. `item_bytes`: of a weight and of a cached value. Sizes are rows times columns."""

    batch: int
    item_bytes: int
    flops: float = 0.0
    attention: float = 0.0
    parameters: int = 0
    cached: list[float] = field(default_factory=list)

    def conv(self, frames: int, channels_in: int, channels_out: int, size: float, taps: int = 1, held: int = 0) -> None:
        """A convolution that gives so many `frames` of `size`. `taps`: kernel values that are multiplied for each
        channel; `held`: those that are stored, where some meet only zeros."""
        self.flops += 2.0 * self.batch * frames * channels_in * channels_out * size * taps
        self.parameters += channels_in * channels_out * (held or taps) + channels_out

    def causal(self, frames: int, channels_in: int, channels_out: int, size: float, past: int = PAST) -> None:
        """A 3x3x3 convolution of `frames` with `past` frames before them; the last ones are kept for the next step."""
        depth = min(PAST + 1, frames + past)
        self.conv(frames + past - depth + 1, channels_in, channels_out, size, 9 * depth, 27)
        self.keep(channels_in, size)

    def keep(self, channels: int, size: float, frames: int = PAST) -> None:
        """A cache that goes from step to step."""
        self.cached.append(float(self.batch * frames * channels * size * self.item_bytes))

    def attend(self, channels: int, size: float) -> None:
        """One head over the pixels of one frame."""
        self.attention += attention(self.batch, size, size, channels)

    def work(self, edge_bytes: float) -> Work:
        """`edge_bytes`: what goes in and out besides caches; those go in and come out in every step but the first."""
        return Work(0.0, self.attention, self.flops, float(self.parameters * self.item_bytes), edge_bytes)
