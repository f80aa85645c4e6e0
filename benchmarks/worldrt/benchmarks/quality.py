"""`trt-bench quality`: what faster ways of sampling do to pictures, beside the time that they take.

Every way makes the same videos, prompt and seed alike, and is compared with the bundle's own run in float32. How a
video that is made once more compares is the floor of these measures; what a video of another prompt gives, their other
end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks import likeness
from worldrt.benchmarks.bundles import PROMPTS
from worldrt.benchmarks.results import Extra, Table
from worldrt.benchmarks.statistics import order, quantile
from worldrt.engine.bundle import FILE_NAME, file_sha256
from worldrt.engine.errors import WorldrtError
from worldrt.runtime.models import Models
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.request import Request

Array = np.ndarray[Any, Any]
Samples = dict[str, list[float]]
EXACT = "float32"
AGAIN, UNRELATED = "run again", "another video"
SEED = 3
NOTES = (
    "Frames of whole runs, from prompt to picture to video, against those of float32 with the same prompt, seed and "
    f"steps. '{AGAIN}' is the floor, '{UNRELATED}' what is found for pictures that share nothing. A run goes on from "
    "its own results, so small errors grow, and a video may part from another and still be as good.",
    "times faster: the whole run, text to frames, by the median of the ratios of single videos.",
)


@dataclass(frozen=True)
class Source:
    """A bundle and where it runs."""

    bundle: Path
    backend: str = "onnxruntime"
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """`source` is the name of a bundle, `change` what is asked for besides the prompt."""

    source: str = EXACT
    change: Mapping[str, Any] = field(default_factory=dict)


def ways(sources: Mapping[str, Source], steps: int) -> dict[str, Way]:
    """Every bundle but the exact one, every shortcut of sampling, fewer steps, and the simpler solver."""
    found = {name: Way(name) for name in sources if name != EXACT}
    found |= {
        "--step_cache 0.1": Way(change={"step_cache": 0.1}),
        "--step_cache 0.2": Way(change={"step_cache": 0.2}),
        "--adaptive_guidance 0.999": Way(change={"adaptive_guidance": 0.999}),
        "--guidance_interval 0.3 30": Way(change={"guidance_interval": (0.3, 30.0)}),
        "--sampler rectified_flow_euler": Way(change={"sampler": "rectified_flow_euler"}),
    }
    fewer = [count for count in (20, 10, 5, 3) if count < steps]
    return found | {f"--steps {count}": Way(change={"steps": count}) for count in fewer}


def run(
    sources: Mapping[str, Source], steps: int, prompts: int, chosen: Sequence[str], progress: Callable[[str], None]
) -> tuple[list[Table], Samples, Extra]:
    """`sources` by name, `EXACT` among them. A way that does not run here is a line that says why. `chosen`: ways, or
    none for all."""
    every = ways(sources, steps)
    kept = {EXACT: Way(), **{name: way for name, way in every.items() if not chosen or name in chosen}}
    makers: dict[str, Text2World] = {}
    reasons: dict[str, str] = {}
    for name, source in sources.items():
        try:
            makers[name] = Text2World(opened(source))
            for _ in makers[name](Request(PROMPTS[0], steps=1)):  # its graphs are loaded, and warm
                pass
        except WorldrtError as error:
            if name == EXACT:
                raise
            makers.pop(name, None)
            reasons |= {way: str(error).splitlines()[0] for way, of in kept.items() if of.source == name}
    seconds: Samples = {name: [] for name in kept if name not in reasons}
    frames: dict[str, list[Array]] = {name: [] for name in seconds}
    for index in range(prompts):
        for name in order(list(seconds), index):
            progress(f"video {index + 1} of {prompts}: {name}")
            took, made = _made(makers[kept[name].source], kept[name], index, steps)
            seconds[name].append(took)
            frames[name].append(made)
    frames[AGAIN] = [_made(makers[EXACT], Way(), 0, steps)[1]]
    frames[UNRELATED] = [_made(makers[EXACT], Way(), 1, steps)[1]] if prompts == 1 else _turned(frames[EXACT])
    measure, why = likeness.open_lpips()
    compared = _table(frames, seconds, reasons, measure, why)
    samples = {f"{name}/whole_s": values for name, values in seconds.items()}
    for maker in makers.values():
        maker.models.close()
    return [compared], samples, Extra((), _hashes(sources))


def opened(source: Source) -> Models:
    """Raises `WorldrtError` where it cannot be opened."""
    return Models.open([source.bundle], backend=source.backend, device=source.device, options=dict(source.options))


def _made(world: Text2World, way: Way, index: int, steps: int) -> tuple[float, Array]:
    """Seconds, and uint8 frames (T, H, W, 3)."""
    asked = Request(PROMPTS[index % len(PROMPTS)], seed=SEED + index, **{"steps": steps, **way.change})
    start = time.perf_counter()
    frames = np.stack(list(world(asked)))
    return time.perf_counter() - start, frames


def _turned(clips: list[Array]) -> list[Array]:
    """Each in the place of the one before it."""
    return [*clips[1:], clips[0]]


def _table(
    frames: Mapping[str, list[Array]],
    seconds: Samples,
    reasons: Mapping[str, str],
    measure: likeness.Distance | None,
    why: str,
) -> Table:
    exact = frames[EXACT]
    compared = {name: list(zip(made, exact, strict=False)) for name, made in frames.items() if name != EXACT}
    columns = ("way", "times faster", *likeness.COLUMNS, *((likeness.LPIPS_COLUMN,) if measure else ()))
    rows: list[tuple[Any, ...]] = []
    for name, pairs in compared.items():
        found = likeness.likeness([f for a, _ in pairs for f in a], [f for _, b in pairs for f in b], measure)
        faster = None
        if name in seconds:
            faster = quantile([a / b for a, b in zip(seconds[EXACT], seconds[name], strict=True)], 0.5)
        rows.append((name, faster, *found.cells))
    rows += [(f"{name}: not run: {reason}", *[None] * (len(columns) - 1)) for name, reason in reasons.items()]
    return Table("Videos against float32", columns, tuple(rows), (*NOTES, *((f"{why}.",) if why else ())))


def _hashes(sources: Mapping[str, Source]) -> dict[str, str]:
    found = {}
    for name, source in sources.items():
        with suppress(WorldrtError):
            found[f"bundle of {name}"] = file_sha256(source.bundle / FILE_NAME)
    return found
