"""The guard: a blocklist, and where they are given a text model, a video model and a face model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from worldrt.runtime.observer import Observer
from worldrt.runtime.safety.base import FacePart, Frame, FramePart, Part, PixelFormat, TextPart, closed, refused
from worldrt.runtime.safety.libraries import free_cuda
from worldrt.runtime.safety.pixels import pixelated, rgb_of

AT_ONCE = 8  # frames that are looked at together
AT_ONCE_OFFLOADED = 32  # where the models come and go each time


class Guardrail:
    """A `Guard`. Models check on `device` (`cpu`, `cuda:0`); with `offload` they are there only while they check."""

    def __init__(
        self,
        texts: Sequence[TextPart],
        video: FramePart | None = None,
        faces: FacePart | None = None,
        *,
        device: str = "cpu",
        offload: bool = False,
    ) -> None:
        self._texts, self._video, self._faces = tuple(texts), video, faces
        self._device, self._offload = device, offload

    @property
    def has_models(self) -> bool:
        """Whether there is more to it than words."""
        return self._video is not None

    def check_text(self, text: str, what: str = "prompt") -> None:
        for part in self._texts:
            with closed(what, part, text), self._there(part):
                reason = part.refuses(text)
            if reason is not None:
                raise refused(what, part, reason, "say it in other words")

    def frames(
        self,
        frames: Iterator[Frame],
        pixel_format: PixelFormat = "rgb24",
        observer: Observer | None = None,
        *,
        start: int = 0,
    ) -> Iterator[Frame]:
        if self._video is None and self._faces is None:
            yield from frames
            return
        source, observer = iter(frames), observer or Observer()
        parts = [part for part in (self._video, self._faces) if part is not None]
        while held := list(islice(source, AT_ONCE_OFFLOADED if self._offload else AT_ONCE)):
            with observer.stage("guardrail"), self._there(*parts):  # not while the next frames are made
                seen = [rgb_of(frame, pixel_format) for frame in held]
                self._check(seen, start)
                held = self._covered(held, seen, start, pixel_format)
            yield from held
            start += len(held)

    def unload(self) -> None:
        for part in (*self._texts, self._video, self._faces):
            if part is not None:
                part.unload()
        if self._device != "cpu":
            free_cuda()

    def _check(self, seen: Sequence[Frame], start: int) -> None:
        if self._video is None:
            return
        with closed(f"frames {start} to {start + len(seen) - 1}", self._video):
            reasons = self._video.refuses(seen)
            if len(reasons) != len(seen):
                raise ValueError(f"{len(reasons)} answers for {len(seen)} frames")
        for number, reason in enumerate(reasons, start):
            if reason is not None:
                raise refused(f"frame {number}", self._video, reason, "nothing is kept; try another prompt or seed")

    def _covered(
        self, held: Sequence[Frame], seen: Sequence[Frame], start: int, pixel_format: PixelFormat
    ) -> list[Frame]:
        if self._faces is None:
            return list(held)
        covered = []
        for number, (frame, rgb) in enumerate(zip(held, seen, strict=True), start):
            with closed(f"frame {number}", self._faces):
                covered.append(pixelated(frame, self._faces.boxes(rgb), pixel_format))
        return covered

    @contextmanager
    def _there(self, *parts: Part) -> Iterator[None]:
        """Have parts on the device in a `with` block."""
        moved: list[Part] = []
        try:
            for part in parts:
                with closed("guardrail", part):
                    part.to(self._device)
                moved.append(part)
            yield
        finally:
            if self._offload and self._device != "cpu":
                for part in moved:
                    part.to("cpu")
                free_cuda()
