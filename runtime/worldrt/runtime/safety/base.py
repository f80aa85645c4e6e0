"""What a guard is, and how its parts answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np

from worldrt.engine.errors import BlockedError, DeviceMemoryError, WorldrtError
from worldrt.runtime.observer import Observer

Frame = np.ndarray[Any, np.dtype[np.uint8]]
PixelFormat = Literal["rgb24", "nv12", "yuv420p"]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive


class Guard(Protocol):
    """Looks at texts and frames. What it cannot check counts as refused."""

    def check_text(self, text: str, what: str = "prompt") -> None:
        """Raises `BlockedError` for a text that is refused. `what` names it in the error; the text itself is not in
        it."""

    def frames(
        self,
        frames: Iterator[Frame],
        pixel_format: PixelFormat = "rgb24",
        observer: Observer | None = None,
        *,
        start: int = 0,
    ) -> Iterator[Frame]:
        """Yield the frames with the faces in them pixelated, a few at a time. Raises `BlockedError` at an unsafe one;
        some before it may have been yielded then. `start`: the number of the first one, for that error."""

    def unload(self) -> None:
        """Let the models go; they are loaded again when they are needed."""


class Part(Protocol):
    """A model of a guard."""

    name: str

    def to(self, device: str) -> None:
        """Have it there (`cpu`, `cuda:0`) from now on, loaded. Raises `CheckpointError` or `BackendError`."""

    def unload(self) -> None: ...


class TextPart(Part, Protocol):
    """Reads texts."""

    def refuses(self, text: str) -> str | None:
        """Why a text is refused, as a category; None where it is not."""


class FramePart(Part, Protocol):
    """Classifies pictures."""

    def refuses(self, frames: Sequence[Frame]) -> list[str | None]:
        """For each uint8 RGB (H, W, 3) picture the category that it is refused for; None where it is not."""


class FacePart(Part, Protocol):
    """Finds faces."""

    def boxes(self, frame: Frame) -> list[Box]:
        """The faces of a uint8 RGB (H, W, 3) picture; boxes may reach over its edges."""


def refused(what: str, part: Part, reason: str, mend: str) -> BlockedError:
    """The error of what a part refuses."""
    return BlockedError(f"{what}: the {part.name} of the guardrail refuses it: {reason}; {mend}")


@contextmanager
def closed(what: str, part: Part, secret: str = "") -> Iterator[None]:
    """Make of every failure of a `with` block that checks something a `BlockedError`, which does not repeat `secret`.
    What a user can mend (damaged weights, a library that is missing, a GPU that is full) is the error that it is."""
    try:
        yield
    except WorldrtError:
        raise
    except Exception as error:
        said = str(error).replace(secret, "...") if secret else str(error)
        kind, text = type(error).__name__, " ".join(said.split())[:120]
        if kind == "OutOfMemoryError":  # torch's, on a GPU
            raise DeviceMemoryError(
                f"{what}: the GPU has too little memory for the {part.name} of the guardrail; --offload_guardrail "
                "leaves it there only while it checks, and --offload the models of the run"
            ) from error
        raise BlockedError(
            f"{what}: the {part.name} of the guardrail could not check it, which counts as refused: {kind}: {text}"
        ) from error
