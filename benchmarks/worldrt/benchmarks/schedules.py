"""A clip by the schedules of a queue: what it costs a picture that its frames are denoised one after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from worldrt.benchmarks import likeness
from worldrt.benchmarks.bundles import PROMPTS
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.scenes import PICTURE_STEPS, TASK
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.request import Request
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.law import Schedule

WHOLE = "all frames together"
SEED = 3
NOTES = (
    f"The video transformer in a queue, from the same picture, with the same noise for each frame; PSNR and SSIM are "
    f"those against '{WHOLE}', which need not be the better video. evaluations: of the window, for each latent that "
    "leaves; in flight: latents that are denoised at the same time, which is the delay. A sliding window sees one "
    "clean latent in front.",
)


def schedules(steps: int, latents: int) -> dict[str, Schedule]:
    """Over `latents` that follow a given one."""
    slope = max(1, steps // latents)
    return {
        WHOLE: replace(methods.full_clip(steps, latents, history=1), fill="prefill"),
        "diffusion forcing": methods.pyramid(steps, slope, history=1),
        "two latents at a time": methods.autoregressive(steps, min(2, latents), history=1),
        "one latent at a time": methods.autoregressive(steps, 1, history=1),
    }


def table(models: Models, steps: int, prompts: int, progress: Callable[[str], None]) -> tuple[Table, dict[str, Any]]:
    """Of a bundle with text2image and video2world; and seconds by schedule."""
    spec = models.opener(TASK).bundle.manifest.denoisers[TASK]
    latents = (min(spec.frames.values()) - 1) // models.vae(TASK).spec.temporal
    every = schedules(steps, latents)
    made: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in every}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for index in range(prompts):
        prompt = PROMPTS[index % len(PROMPTS)]
        picture = Text2Image(models)(Request(prompt, seed=SEED + index, steps=PICTURE_STEPS))
        for name, schedule in every.items():
            progress(f"schedule, video {index + 1} of {prompts}: {name}")
            start = time.perf_counter()
            made[name].append(_frames(models, schedule, prompt, picture[None], latents))
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, clips in made.items():
        found = likeness.likeness([f for clip in clips for f in clip], [f for clip in made[WHOLE] for f in clip])
        schedule = every[name]
        per_latent = schedule.shift / schedule.group * len(schedule.windows)
        rows.append((name, per_latent, schedule.slots, min(seconds[name]), *found.cells))
    columns = ("schedule", "evaluations", "in flight", "clip_s", *likeness.COLUMNS)
    return Table("Clips by schedule", columns, tuple(rows), NOTES), {f"{n}/clip_s": s for n, s in seconds.items()}


def _frames(
    models: Models, schedule: Schedule, prompt: str, init: np.ndarray[Any, Any], latents: int
) -> np.ndarray[Any, Any]:
    """uint8 (1 + 4 latents, H, W, 3): the given picture, and what follows."""
    world = World(models, task=TASK, schedule=schedule, init=init)
    told = Told(world.encode(prompt))
    queue = world.queue(told, lambda frame: Condition(frame + 1) if frame < latents else None, SEED)
    first = world.first(told, SEED, ())
    assert first is not None
    queue.start(first)
    found = [first[:, :, 0]]
    while not queue.done:
        found += [frame.latent for frame in queue.run()]
    return np.stack(list(world.decoder()(np.stack(found, axis=2))))
