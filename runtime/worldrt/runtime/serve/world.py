"""What the server asks of a world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.sinks.base import VideoFormat


class World(Protocol):
    """A world that is stepped. One thread calls everything but `control` and `check`, which any thread may call.

    Errors that a user can mend are `WorldrtError`. After any error of `step`, `reset` brings the world back.
    """

    @property
    def video(self) -> VideoFormat:
        """What its pictures are."""
        ...

    @property
    def controls(self) -> Sequence[str]:
        """The names that `control` takes."""
        ...

    @property
    def done(self) -> bool:
        """Whether there are no more frames; `reset` and `restore` bring some back."""
        ...

    def start(self, prompt: str) -> None:
        """Load what is needed and begin at the first frame."""
        ...

    def step(self) -> Sequence[LiveFrame]:
        """The next frames, not before they are due; a call takes at most about a second."""
        ...

    def control(self, name: str | None) -> None:
        """The newest control wins; None: no key is pressed."""
        ...

    def check(self, prompt: str) -> None:
        """Whether a prompt may be, which may take a while; raises what says why not."""
        ...

    def prompt(self, text: str) -> None:
        """Go on with another prompt. Does not wait until it takes effect."""
        ...

    def reset(self) -> None:
        """Begin again at the first frame."""
        ...

    def snapshot(self) -> Any:
        """The whole state, for `restore`."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state of `snapshot`."""
        ...

    def recording(self) -> bytes:
        """What the frames up to now depend on, as `trt-run world --replay` reads it."""
        ...

    def stop(self) -> None:
        """Let everything go. The world is not used after that."""
        ...
