"""What the pipelines share: opening, the sampling of clips, the texts of both branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from worldrt.runtime.clips import Clip, sample_clips
from worldrt.runtime.long import prompts_of
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.request import Request, Settings
from worldrt.runtime.safety.base import Guard

P = TypeVar("P", bound="Pipeline")
Float32 = np.ndarray[Any, np.dtype[np.float32]]
Frame = np.ndarray[Any, np.dtype[np.uint8]]
Texts = tuple[Float32, Float32]


class Pipeline:
    """Opened models, and a guard that looks at prompts and frames, if any; a context manager that lets them go."""

    def __init__(self, models: Models, guard: Guard | None = None) -> None:
        self.models, self.guard = models, guard

    @classmethod
    def open(cls: type[P], *bundles: Path | str, guard: Guard | None = None, **execution: Any) -> P:
        """Read bundle folders; `execution` are the fields of `Execution` (backend, device, guidance, options).

        `guard` is one of `worldrt.runtime.safety.open_guard`; calls raise `BlockedError` for what it refuses. Raises
        `BundleError`.
        """
        return cls(Models.open(bundles, **execution), guard)

    def check_prompts(self, request: Request, what: str = "prompt") -> None:
        """Raises `BlockedError` for a prompt that the guard refuses."""
        if self.guard is not None:
            for text in prompts_of(request):
                self.guard.check_text(text, what)

    def watched(self, task: str, frames: Iterator[Frame], observer: Observer) -> Iterator[Frame]:
        """Frames past the guard, in the form that the task's VAE gives."""
        if self.guard is None:
            return frames
        return self.guard.frames(frames, self.models.vae(task).spec.pixel_format, observer)

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.models.close()


def encode_texts(models: Models, task: str, prompt: str, negative: str | None, observer: Observer) -> Texts:
    """Rows (N, D) of the prompt and of the negative prompt; None is all zeros."""
    return encode_all(models, task, [(prompt, negative)], observer)[0]


def encode_all(models: Models, task: str, pairs: Sequence[tuple[str, str | None]], observer: Observer) -> list[Texts]:
    """`encode_texts` of several clips; the encoder is loaded once for all of them."""
    models.listen(observer)
    with observer.stage(f"{task}: load"):
        encoder = models.text(task)
    texts = dict.fromkeys(text for pair in pairs for text in pair if text is not None)
    with observer.stage(f"{task}: text"):
        known = {text: encoder.encode(text) for text in texts if encoder.knows(text)}
        wanted = [text for text in texts if text not in known]
        if wanted:
            made = models.with_room(task, "text", lambda: [encoder.encode(text) for text in wanted])
            known |= dict(zip(wanted, made, strict=True))
        if models.execution.offload_text:
            encoder.unload()
        return [(known[prompt], encoder.nothing() if other is None else known[other]) for prompt, other in pairs]


def sample_clip(
    models: Models,
    task: str,
    settings: Settings,
    seed: int,
    texts: Texts,
    conditions: Mapping[str, Float32],
    observer: Observer,
    start: Float32 | None = None,
) -> Float32:
    """`sample_clips` of one."""
    return sample_clips(models, task, settings, [Clip(seed, texts, conditions, start)], observer)
