"""How a denoiser is run in a queue: the schedule and the sampler that its manifest names, or others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from worldrt.engine.bundle import Denoiser
from worldrt.engine.diffusion import alphas_cumprod
from worldrt.engine.errors import InputError
from worldrt.runtime.level_table import LevelTable, flow_euler, of_sampler
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.guidance import classifier_free
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan


@dataclass(frozen=True)
class Recipe:
    """A plan and its sampler."""

    plan: Plan
    table: LevelTable

    @property
    def schedule(self) -> Schedule:
        return self.plan.schedule


def recipe(
    spec: Denoiser,
    *,
    schedule: Schedule | None = None,
    guidance: float | None = None,
    commit_level: int | None = None,
) -> Recipe:
    """The manifest's own queue, or its sampler under another schedule. `guidance` as the model's convention counts it;
    None takes its default. `commit_level`: that of the schedule, where it is given. Raises `InputError`."""
    if schedule is None:
        if spec.stream is None:
            raise InputError("this model makes clips and no stream; give the bundle of another model, or a schedule")
        own = spec.stream
        schedule = methods.swin_dpm(spec.sampler.steps, own.groups, own.group)
        schedule = replace(schedule, history=own.history, fill=own.fill, windows=())
    elif spec.levels is not None:
        raise InputError("schedule: the levels are part of this bundle's graph; export it without --fold_levels")
    if commit_level is not None:
        schedule = replace(schedule, commit_level=commit_level)
    scale = spec.guidance.scale if guidance is None else guidance
    if not np.isfinite(scale) or abs(scale) > 1000:
        raise InputError(f"guidance scale: expected a number up to 1000, got {scale}")
    classic = scale + (spec.guidance.convention == "delta")
    if classic != 1:
        schedule = replace(schedule, terms=classifier_free(schedule.terms, classic))
    return Recipe(Plan(schedule), table(spec, schedule.steps))


def clip_recipe(spec: Denoiser, steps: int, frames: int, guidance: float | None = None) -> Recipe:
    """All frames of a clip together, for the video that a stream goes on from."""
    return recipe(spec, schedule=methods.full_clip(steps, frames), guidance=guidance)


def table(spec: Denoiser, steps: int) -> LevelTable:
    """The sampler of a manifest with so many steps; phases are those of its own number of steps, and others take
    DPM-Solver++ SDE. Raises `InputError` where it cannot be had for a queue."""
    sampler, abar = spec.sampler, _abar(spec)
    if sampler.kind == "phased_ddim" and steps == sampler.steps:
        return phased_ddim(steps, steps, abar=abar)
    if sampler.kind in ("dpm_sde", "phased_ddim"):
        return dpm_sde(steps, abar)
    if sampler.kind == "flow_euler":
        return flow_euler(steps, sampler.shift)
    if sampler.kind == "rectified_flow_ab2":
        return of_sampler(rectified_flow_ab2(steps - 1, sampler.sigma_max, sampler.sigma_min, sampler.order))
    raise InputError(f"sampler '{sampler.kind}': a queue takes dpm_sde, flow_euler, phased_ddim, rectified_flow_ab2")


def _abar(spec: Denoiser) -> np.ndarray[Any, Any] | None:
    d = spec.diffusion
    if d is None:
        return None
    dtype = np.float32 if d.precision == "float32" else np.float64
    return alphas_cumprod(d.beta_start, d.beta_end, d.snr_shift, dtype)
