"""How far the latents of a run part from those of the exact one, step by step; and how far single steps would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.benchmarks import scenes
from worldrt.benchmarks.exactness import rms_error
from worldrt.benchmarks.quality import EXACT, Source, opened
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.scenes import Scene
from worldrt.benchmarks.statistics import quantile
from worldrt.engine.errors import WorldrtError
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.clip import Float32
from worldrt.runtime.models import Models
from worldrt.runtime.sampling import sample
from worldrt.runtime.shortcuts import Shortcuts

SHORTCUTS = {
    "--step_cache 0.1": Shortcuts(0.1),
    "--step_cache 0.2": Shortcuts(0.2),
    "--adaptive_guidance 0.999": Shortcuts(adaptive_guidance=0.999),
    "--guidance_interval 0.3 30": Shortcuts(guidance_interval=(0.3, 30.0)),
}
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
NOTES = (
    "Of the video transformer, root mean square of the difference over that of the exact latents. One step, median and "
    "worst: x0, evaluated where the exact run stood, so that nothing adds up. At a share of the steps: the state of "
    "the run itself. A way that leaves evaluations out has no error of one step.",
)


def of_sources(sources: Mapping[str, Source], steps: int, progress: Callable[[str], None]) -> Table:
    """Of the bundles that run here, and of the shortcuts."""
    others = {}
    for name, source in sources.items():
        with suppress(WorldrtError):
            models = opened(source)
            models.denoiser(scenes.TASK)
            others[name] = models
    exact = others.pop(EXACT)
    progress(f"step by step: {', '.join([*others, *SHORTCUTS])}")
    return table(exact, others, SHORTCUTS, steps)


def table(exact: Models, others: Mapping[str, Models], shortcuts: Mapping[str, Shortcuts], steps: int) -> Table:
    """`others` are the same networks, `shortcuts` ways to run the exact one. The first clip of the scene is sampled."""
    scene = scenes.of(exact, steps)
    bound = scene.bound(1)
    states = _run(scene, bound, None)
    wanted = _x0(scene, bound, states)
    rows: list[tuple[Any, ...]] = []
    for name, models in others.items():
        other = _as(scene, models)
        theirs = other.bound(1)
        single = [rms_error(a, w) for a, w in zip(_x0(other, theirs, states), wanted, strict=True)]
        rows.append((name, quantile(single, 0.5), max(single), *_parted(_run(other, theirs, None), states)))
    for name, way in shortcuts.items():
        rows.append((name, None, None, *_parted(_run(scene, bound, way), states)))
    columns = ("way", "one step", "worst step", *(f"at {share:.0%}" for share in SHARES))
    return Table(f"Error of the latents, step by step, over {len(scene.rows)} rows", columns, tuple(rows), NOTES)


def _as(scene: Scene, models: Models) -> Scene:
    """The same clips with other networks."""
    return Scene(models, scene.texts, scene.conditions, scene.latents, scene.guidance, scene.rows, scene.clock)


def _run(scene: Scene, bound: BoundDenoiser, shortcuts: Shortcuts | None) -> list[Float32]:
    """The state before each row, and the last one."""
    noise = scene.noise(1)
    states = [noise]
    for _ in sample(bound, scene.rows, noise, guidance=scene.guidance, shortcuts=shortcuts):
        states.append(bound.result())
    return states


def _x0(scene: Scene, bound: BoundDenoiser, states: list[Float32]) -> list[Float32]:
    """The guided x0 of each row at a state."""
    found = []
    for level, state in zip(scene.rows.levels, states, strict=False):
        bound.fill("x", state)
        bound.fill_levels(np.full((1, state.shape[2]), level, np.float32))
        bound.run()
        cond, uncond = (bound.device.download(buffer) for buffer in (bound.cond, bound.uncond) if buffer is not None)
        found.append(cond + np.float32(scene.guidance) * (cond - uncond))
    return found


def _parted(states: list[Float32], exact: list[Float32]) -> list[float]:
    last = len(exact) - 1
    return [rms_error(states[i], exact[i]) for i in (max(1, round(share * last)) for share in SHARES)]
