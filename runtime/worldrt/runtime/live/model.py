"""What a session runs: a queue of latents that answers controls, and a decoder that makes them pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.sinks.base import VideoFormat

Array = np.ndarray[Any, Any]
Float32 = np.ndarray[Any, np.dtype[np.float32]]
Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class Told:
    """The encoded prompt that a queue's model sees at its next call; a session puts another in its place."""

    text: Any


class LatentDecoder(Protocol):
    """Makes pictures of the latents of one stream, (1, C, t, h, w), in their order."""

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Picture]: ...

    def state(self) -> Any:
        """A copy of all that the next pictures depend on."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state."""
        ...


class LiveModel(Protocol):
    """A world model, loaded. Several sessions may use one, from threads of their own."""

    @property
    def video(self) -> VideoFormat:
        """What its pictures are."""
        ...

    @property
    def controls(self) -> Sequence[str]:
        """The controls that it knows."""
        ...

    @property
    def schedule(self) -> Schedule:
        """How latents are denoised."""
        ...

    @property
    def frames_at_once(self) -> int:
        """Pictures that come of the latents that leave the queue together."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What must be the same for a recording to give the same pictures, as JSON values."""
        ...

    def check(self, prompt: str) -> None:
        """Raises `InputError` for a prompt that cannot be encoded."""
        ...

    def encode(self, prompt: str) -> Any:
        """A prompt as `Told` has it."""
        ...

    def condition(self, control: str) -> Mapping[str, Array]:
        """What a control is to the denoiser, for one frame."""
        ...

    def queue(self, told: Told, feed: Feed, seed: int) -> Queue:
        """A queue that is not started yet."""
        ...

    def first(self, told: Told, seed: int, base: Sequence[str]) -> Float32 | None:
        """What that queue starts from, None where that is noise. `base`: the controls of a video that is made for it,
        of which the last one stays."""
        ...

    def decoder(self) -> LatentDecoder:
        """A decoder for another stream."""
        ...
