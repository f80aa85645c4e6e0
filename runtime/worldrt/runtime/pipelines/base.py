"""What the pipelines share: opening, the sampling of one clip, the texts of both branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.models import Models
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.observer import Observer
from worldrt.runtime.request import Settings
from worldrt.runtime.sampling import sample

P = TypeVar("P", bound="Pipeline")
Float32 = np.ndarray[Any, np.dtype[np.float32]]
Frame = np.ndarray[Any, np.dtype[np.uint8]]


class Pipeline:
    """Opened models; a context manager that lets them go."""

    def __init__(self, models: Models) -> None:
        self.models = models

    @classmethod
    def open(cls: type[P], *bundles: Path | str, **execution: Any) -> P:
        """Read bundle folders; `execution` are the fields of `Execution` (backend, device, guidance, options).

        Raises `BundleError`.
        """
        return cls(Models.open(bundles, **execution))

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.models.close()


def encode_texts(
    models: Models, task: str, prompt: str, negative: str | None, observer: Observer
) -> tuple[Float32, Float32]:
    """Rows (N, D) of the prompt and of the negative prompt; None is all zeros."""
    models.listen(observer)
    with observer.stage(f"{task}: load"):
        encoder = models.text(task)
    prompts = [prompt] if negative is None else [prompt, negative]
    with observer.stage(f"{task}: text"):
        if not all(encoder.knows(text) for text in prompts):
            models.with_room(task, "text", lambda: [encoder.encode(text) for text in prompts])
        texts = encoder.encode(prompt), encoder.nothing() if negative is None else encoder.encode(negative)
        if models.execution.offload_text:
            encoder.unload()
        return texts


def sample_clip(
    models: Models,
    task: str,
    settings: Settings,
    seed: int,
    texts: tuple[Float32, Float32],
    conditions: Mapping[str, Float32],
    observer: Observer,
    start: Float32 | None = None,
) -> Float32:
    """Latents (1, C, T, H/8, W/8) of one clip. `conditions` are the denoiser's other inputs by name; `position`, the
    index of each latent frame, is known here. `start` are latents to edit: sampling begins at them and noise of the
    table's first level, instead of at noise alone."""
    models.listen(observer)
    with observer.stage(f"{task}: load"):
        codec = models.vae(task)
        vae = codec.spec
        shape = DenoiserShape(
            vae.channels,
            1 + (settings.num_frames - 1) // vae.temporal,
            settings.height // vae.spatial,
            settings.width // vae.spatial,
            len(texts[0]),
        )
        guided = settings.guidance != 0
        bound = models.with_room(task, "denoiser", lambda: models.denoiser(task).bind_again(shape, guided=guided))
        if not models.execution.offload and models.fits(task, "vae"):
            codec.load("decode")
        model = models.denoiser(task)
        bound.fill_text(*texts)
        for name, values in ({"position": np.arange(shape.frames, dtype=np.float32)} | dict(conditions)).items():
            if name in model.conditions:
                bound.fill(name, values)
    table = settings.table()
    record = models.execution.record
    if record is not None:
        first = record.call(task, model.inputs, bound.inputs, bound.texts, bound.device, len(table))
        bound = replace(bound, calls=(first, *bound.calls), graphs=None)
    stage = f"{task}: sampling"
    with observer.stage(stage):
        observer.progress(stage, 0, len(table))
        noise = initial_noise(shape.latents(), seed, settings.sigma_max if start is None else float(table.levels[0]))
        if start is not None:
            noise += start
        for done in sample(bound, table, noise, guidance=settings.guidance):
            observer.progress(stage, done, len(table))
        return model.device.download(bound.x)
