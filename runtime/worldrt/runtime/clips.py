"""The sampling of clips: buffers filled, noise drawn, rows done, latents brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape
from worldrt.runtime import philox
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.clip import Clip as Clip
from worldrt.runtime.clip import Float32
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.engines import BACKENDS
from worldrt.runtime.models import Models
from worldrt.runtime.noise import check_seed, initial_noise
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.orders import sampling_order
from worldrt.runtime.parallel.ranks import Alone
from worldrt.runtime.request import Settings
from worldrt.runtime.samplers import SamplerTable
from worldrt.runtime.sampling import sample


def sample_clips(models: Models, task: str, settings: Settings, clips: Sequence[Clip], observer: Observer) -> Float32:
    """Latents (N, C, T, H/8, W/8) of clips that are made together, in one call of the denoiser for each row.

    Where there are several ranks, those besides rank 0 come here by its order. Raises `InputError` as `check_clips`.
    """
    check_clips(models, task, settings, len(clips))
    ranks = models.execution.ranks or Alone()
    ranks.order(*sampling_order(task, settings, clips))
    models.listen(observer)
    with observer.stage(f"{task}: load"):
        codec = models.vae(task)
        shape = _shape(models, task, settings, clips)
        guided, alone = settings.guidance != 0, settings.shortcuts.drops_guidance
        bound = models.with_room(
            task, "denoiser", lambda: models.denoiser(task).bind_again(shape, guided=guided, alone=alone)
        )
        if not models.execution.offload and models.fits(task, "vae") and ranks.rank == 0:
            codec.load("decode")
        _fill(bound, models.denoiser(task).conditions, shape, clips)
    table = settings.table()
    if table.fresh_noise and models.denoiser(task).spec.sampler.kind != settings.sampler:
        observer.warn(f"{task}: this model is not distilled, and few steps look poor; trt-export --distilled makes one")
    bound = _recorded(models, task, bound, len(table))
    noise = _Noise(table, settings.sigma_max, shape, clips)
    stage = f"{task}: sampling"
    with observer.stage(stage), ranks.rows(bound.device) as row_done:
        observer.progress(stage, 0, len(table))
        steps = sample(
            bound,
            table,
            noise.first(),
            guidance=settings.guidance,
            renoise=lambda row: bound.own(noise.of_row(row)),
            shortcuts=settings.shortcuts or None,
        )
        for done in steps:
            row_done()
            observer.progress(stage, done, len(table))
        return bound.result()


def check_clips(models: Models, task: str, settings: Settings, clips: int) -> None:
    """Raises `InputError` where so many clips cannot be made in one call, or not so."""
    execution = models.execution
    if execution.record is not None and (clips > 1 or settings.shortcuts):
        raise InputError("--record_inputs: it keeps every evaluation of one clip; leave --batch_size and shortcuts out")
    if execution.backend not in BACKENDS:
        return
    if clips > execution.clips:
        raise InputError(f"batch_size: engines were asked for {execution.clips} clip(s) in a call, got {clips}")
    profile = execution.engines.profile
    bounds = profile.get(f"{task}.batch", profile.get("batch"))
    batch = clips * (2 if execution.guidance == "batched" and settings.guidance else 1)
    if bounds is not None and batch > bounds.max:
        raise InputError(
            f"batch_size: {clips} clip(s) are a batch of {batch}, and the profile has at most {bounds.max}; "
            f"--profile batch=1:{batch}:{batch}, or --cfg sequential, which halves it"
        )


def _shape(models: Models, task: str, settings: Settings, clips: Sequence[Clip]) -> DenoiserShape:
    vae = models.vae(task).spec
    return DenoiserShape(
        vae.channels,
        1 + (settings.num_frames - 1) // vae.temporal,
        settings.height // vae.spatial,
        settings.width // vae.spatial,
        len(clips[0].texts[0]),
        len(clips),
    )


def _fill(bound: BoundDenoiser, conditions: set[str], shape: DenoiserShape, clips: Sequence[Clip]) -> None:
    cond, uncond = (np.stack([clip.texts[branch] for clip in clips]) for branch in range(2))
    bound.fill_text(cond, uncond)
    if "position" in conditions:
        bound.fill("position", np.arange(shape.frames, dtype=np.float32))
    for name in conditions & clips[0].conditions.keys():
        bound.fill(name, np.concatenate([clip.conditions[name] for clip in clips]))


def _recorded(models: Models, task: str, bound: BoundDenoiser, rows: int) -> BoundDenoiser:
    record, model = models.execution.record, models.denoiser(task)
    if record is None:
        return bound
    first = record.call(task, model.inputs, bound.inputs, bound.texts, bound.device, rows)
    return replace(bound, calls=(first, *bound.calls), graphs=None)


class _Noise:
    """The noise of a run, each clip's from its own seed. Tables without fresh noise take that of the official samplers;
    those with it draw by counter: draw 0 is where sampling begins, draw i + 1 what row i adds."""

    def __init__(self, table: SamplerTable, sigma_max: float, shape: DenoiserShape, clips: Sequence[Clip]) -> None:
        self._table, self._sigma_max, self._clips = table, sigma_max, clips
        self._shape: Shape = (1, *shape.latents()[1:])

    def first(self) -> Float32:
        """At the table's first level, on what is edited."""
        return np.concatenate([self._start(clip) for clip in self._clips])

    def _start(self, clip: Clip) -> Float32:
        sigma = self._sigma_max if clip.start is None else float(self._table.levels[0])
        if self._table.fresh_noise:
            noise = self._drawn(clip, 0)
            noise *= np.float32(sigma)
        else:
            noise = initial_noise(self._shape, clip.seed, sigma)
        if clip.start is not None:
            noise += clip.start
        return noise

    def of_row(self, index: int) -> Float32:
        return np.concatenate([self._drawn(clip, index + 1) for clip in self._clips])

    def _drawn(self, clip: Clip, draw: int) -> Float32:
        check_seed(clip.seed)
        return philox.normal(self._shape, clip.seed, draw)
