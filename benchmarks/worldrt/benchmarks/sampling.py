"""`trt-bench sampling`: what shortcuts and clips made together gain, and what shortcuts change, on one bundle's videos.

The rounds are interleaved: each way of sampling runs once in every round, beside the plain one that it is compared to.
With one thread the time is that of the processor, which other work on the machine does not lengthen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldrt.benchmarks import scenes
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.scenes import TASK, Scene
from worldrt.benchmarks.statistics import order, ratios
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.clip import Float32
from worldrt.runtime.models import Models
from worldrt.runtime.samplers import SamplerTable
from worldrt.runtime.sampling import sample
from worldrt.runtime.shortcuts import Shortcuts
from worldrt.runtime.skipping import Skipping
from worldrt.runtime.steps import Steps

PLAIN = "everything"
SHORTCUTS = {
    "--step_cache 0.05": Shortcuts(0.05),
    "--step_cache 0.1": Shortcuts(0.1),
    "--step_cache 0.2": Shortcuts(0.2),
    "--step_cache 0.4": Shortcuts(0.4),
    "--guidance_interval 0.05 80": Shortcuts(guidance_interval=(0.05, 80.0)),
    "--guidance_interval 0.3 30": Shortcuts(guidance_interval=(0.3, 30.0)),
    "--adaptive_guidance 0.9999": Shortcuts(adaptive_guidance=0.9999),
    "--adaptive_guidance 0.999": Shortcuts(adaptive_guidance=0.999),
    "--step_cache 0.1 --guidance_interval 0.05 80": Shortcuts(0.1, (0.05, 80.0)),
}
NOTE = (
    "error: root mean square of the difference of the latents from those of everything, over that of the latents. "
    "PSNR: of the decoded frames, against those of everything."
)
Samples = dict[str, list[float]]


def run(
    bundle: Path, steps: int, rounds: int, threads: int, progress: Callable[[str], None]
) -> tuple[list[Table], Samples]:
    """Tables and samples. The bundle has video2world; where it has no VAE or text encoder, seeded values serve."""
    models = Models.open([bundle], options={"threads": threads})
    scene = scenes.of(models, steps)
    progress("shortcuts")
    shortcuts, one = _shortcuts(scene, rounds)
    progress("clips together")
    together, two = _together(replace(scene, rows=_shorter(scene.rows)), rounds)
    return [shortcuts, together], one | two


def _sampled(bound: BoundDenoiser, scene: Scene, noise: Float32, shortcuts: Shortcuts | None) -> tuple[float, Float32]:
    """Seconds, and latents."""
    start = scene.clock()
    for _ in sample(bound, scene.rows, noise, guidance=scene.guidance, shortcuts=shortcuts):
        pass
    latents = bound.device.download(bound.x)
    return scene.clock() - start, latents


def _shortcuts(scene: Scene, rounds: int) -> tuple[Table, Samples]:
    bound, noise, ways = scene.bound(1), scene.noise(1), {PLAIN: None, **SHORTCUTS}
    samples: Samples = {name: [] for name in ways}
    latents: dict[str, Float32] = {}
    for index in range(rounds + 1):
        for name in order(list(ways), index):
            seconds, latents[name] = _sampled(bound, scene, noise, ways[name])
            samples[name] += [seconds] if index else []
    plain, exact = samples[PLAIN], latents[PLAIN]
    rows = []
    for name, shortcut in ways.items():
        guided, alone, reused = _counts(bound, scene, noise, shortcut)
        gain = ratios(plain, samples[name])
        rows.append(
            (name, guided, alone, reused, *(float(f"{value:.3g}") for value in (gain.median, gain.minimum)),
             float(f"{_error(latents[name], exact):.2g}"), _psnr(scene, latents[name], exact))
        )  # fmt: skip
    columns = ("way", "guided", "prompt alone", "left out", "times faster", "at least", "error", "psnr_db")
    form = scene.models.denoiser(TASK).spec.form
    title = f"Shortcuts, {form} form, {len(scene.rows)} rows"
    return Table(title, columns, tuple(rows), (NOTE,)), {f"{name}_s": values for name, values in samples.items()}


def _counts(bound: BoundDenoiser, scene: Scene, noise: Float32, shortcuts: Shortcuts | None) -> Sequence[int]:
    """Rows evaluated for both texts, for the prompt alone, and not at all."""
    bound.fill("x", noise)
    skipping = Skipping(Steps(bound, scene.rows, scene.guidance, None), shortcuts or Shortcuts())
    for index in range(len(scene.rows)):
        skipping.step(index)
    return list(skipping.evaluations.values())


def _error(one: Float32, exact: Float32) -> float:
    return float(np.sqrt(np.mean((one - exact) ** 2) / np.mean(exact**2)))


def _psnr(scene: Scene, one: Float32, exact: Float32) -> float | None:
    if scene.models.opener(TASK).bundle.manifest.vae is None or np.array_equal(one, exact):
        return None
    made, wanted = (np.stack(list(scene.models.vae(TASK).decode(x))).astype(np.float64) for x in (one, exact))
    return round(float(10 * np.log10(255**2 / np.mean((made - wanted) ** 2))), 1)


def _shorter(rows: SamplerTable) -> SamplerTable:
    """The first rows: time is all that is asked of them."""
    return replace(rows, levels=rows.levels[:6], coefficients=rows.coefficients[:6])


def _together(scene: Scene, rounds: int) -> tuple[Table, Samples]:
    counts = (1, 2, 4)
    bounds, noises = {n: scene.bound(n) for n in counts}, {n: scene.noise(n) for n in counts}
    samples: Samples = {str(n): [] for n in counts}
    latents = {}
    for index in range(rounds + 1):
        for name in order([str(n) for n in counts], index):
            seconds, latents[name] = _sampled(bounds[int(name)], scene, noises[int(name)], None)
            samples[name] += [seconds / int(name)] if index else []
    rows = []
    for name, values in samples.items():
        gain = ratios(samples["1"], values)
        error = _error(latents[name][:1], latents["1"])
        rows.append((int(name), *(float(f"{v:.3g}") for v in (np.median(values), gain.median, gain.minimum, error))))
    columns = ("clips", "median_s per clip and 6 rows", "times faster", "at least", "error of the first")
    made = Table("Clips made together", columns, tuple(rows))
    return made, {f"{name} clips_s": values for name, values in samples.items()}
