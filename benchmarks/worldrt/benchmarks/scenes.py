"""What clips of a bundle are sampled from, to be measured: texts, given frames, and the sampler's rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.benchmarks.bundles import PROMPTS
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.clip import Float32
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.models import Models
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.pipelines.chunks import known_frames
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT
from worldrt.runtime.request import Request
from worldrt.runtime.samplers import SamplerTable, table

TASK = "video2world"
PICTURE_STEPS = 10


@dataclass(frozen=True)
class Scene:
    """What the clips of a bundle are sampled from: texts and conditions of four clips, and the sampler."""

    models: Models
    texts: Float32
    conditions: dict[str, Float32]
    latents: tuple[int, int, int, int]
    guidance: float
    rows: SamplerTable
    clock: Callable[[], float]

    def bound(self, clips: int) -> BoundDenoiser:
        """Buffers with the first `clips` clips."""
        channels, frames, height, width = self.latents
        shape = DenoiserShape(channels, frames, height, width, self.texts.shape[2], clips)
        bound = self.models.denoiser(TASK).bind(shape, guided=True, alone=True)
        bound.fill_text(self.texts[:clips, 0], self.texts[:clips, 1])
        bound.fill("position", np.arange(shape.frames, dtype=np.float32))
        for name, values in self.conditions.items():
            bound.fill(name, values[:clips])
        return bound

    def noise(self, clips: int) -> Float32:
        return np.concatenate([initial_noise((1, *self.latents), seed, self.rows.levels[0]) for seed in range(clips)])


def of(models: Models, steps: int) -> Scene:
    """Of `PROMPTS`. A bundle that draws pictures goes on from its own; where it has no VAE or text encoder, seeded
    values serve."""
    manifest = models.opener(TASK).bundle.manifest
    spec, rng = manifest.denoisers[TASK], np.random.default_rng(0)
    width, height = spec.first_size
    count = min(spec.frames.values())
    latents = (16, 1 + (count - 1) // 4, height // 8, width // 8)
    pictures = _pictures(models, (height, width), rng)
    known = [
        models.vae(TASK).encode(picture) if manifest.vae else rng.standard_normal((1, 16, 1, *latents[2:]), np.float32)
        for picture in pictures
    ]
    each = [known_frames(clean, latents[1]) for clean in known]
    s = spec.sampler
    return Scene(
        models,
        _texts(models, rng),
        {name: np.concatenate([conditions[name] for conditions in each]) for name in each[0]},
        latents,
        spec.guidance.scale,
        table(s.kind, steps, s.sigma_max, s.sigma_min, s.order),
        time.process_time if models.execution.options.get("threads") == 1 else time.perf_counter,
    )


def _pictures(models: Models, size: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """uint8 (1, H, W, 3) for each prompt."""
    noise = [rng.integers(0, 256, (1, *size, 3), np.uint8) for _ in PROMPTS]
    if not any("text2image" in b.manifest.denoisers and b.manifest.text and b.manifest.vae for b in models.bundles):
        return noise
    draw = Text2Image(models)
    made = [draw(Request(prompt, seed=3 + i, steps=PICTURE_STEPS))[None] for i, prompt in enumerate(PROMPTS)]
    return made if made[0].shape == noise[0].shape else noise


def _texts(models: Models, rng: np.random.Generator) -> Float32:
    """(clips, 2, text, D)"""
    manifest = models.opener(TASK).bundle.manifest
    if manifest.text is None:
        graph = next(g for name, g in manifest.denoisers[TASK].graphs.items() if name.startswith(("block", "denoise")))
        width = next(spec for spec in graph.inputs if spec.name == "text").shape[-1]
        assert isinstance(width, int)
        return rng.standard_normal((len(PROMPTS), 2, 512, width), np.float32)
    encode = models.text(TASK).encode
    return np.stack([np.stack([encode(prompt), encode(DEFAULT_NEGATIVE_PROMPT)]) for prompt in PROMPTS])
