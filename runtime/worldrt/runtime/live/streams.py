"""What frames of a stream are conditioned on: a table of controls, or a world of its own that goes on with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from worldrt.runtime.live.controls import LATENTS_PER_SECOND
from worldrt.runtime.live.model import Array, LiveModel, Picture, Told


class Stream(Protocol):
    """The conditions of one stream. `condition`, or `asked`, is called by one stage and `shown` by another, each in the
    order of the frames; the others when neither runs."""

    def condition(self, control: str) -> Mapping[str, Array]:
        """What the next frame is conditioned on, under a control: `taken` of the model, of what is `asked`."""
        ...

    def asked(self, control: str) -> Any:
        """What the next frame is to show, as data that may go to another process; no model runs for it."""
        ...

    def shown(self, picture: Picture) -> Picture:
        """The next decoded picture as it is shown."""
        ...

    def state(self) -> Any:
        """All that the next conditions depend on."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


@runtime_checkable
class StreamModel(Protocol):
    """What a `LiveModel` has beyond others where conditions are no mere table of controls."""

    @property
    def latents_per_second(self) -> int:
        """Latent frames of a second of its world."""
        ...

    def stream(self, told: Told, seed: int) -> Stream:
        """The conditions of another stream, from its beginning."""
        ...

    def taken(self, asked: Any) -> Mapping[str, Array]:
        """What the denoiser takes of what is asked of a frame."""
        ...


class Controlled:
    """The conditions of a model that knows controls alone."""

    def __init__(self, model: LiveModel) -> None:
        self.condition = self.asked = model.condition

    def shown(self, picture: Picture) -> Picture:
        return picture

    def state(self) -> None:
        """There is none."""

    def restore(self, state: None) -> None:
        """There is none."""

    def close(self) -> None:
        """There is nothing to let go."""


def stream_of(model: LiveModel, told: Told, seed: int) -> Stream:
    """The conditions of a stream of any model."""
    return model.stream(told, seed) if isinstance(model, StreamModel) else Controlled(model)


def latents_per_second(model: LiveModel) -> int:
    """Latent frames of a second of any model's world."""
    return model.latents_per_second if isinstance(model, StreamModel) else LATENTS_PER_SECOND
