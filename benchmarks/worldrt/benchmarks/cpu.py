"""`trt-bench cpu`: a prompt to a video, with the runtime and with diffusers, on the same weights and the same machine.

Every contender lives in a process of its own and has the same number of threads; the rounds are interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldrt.benchmarks import exactness, figures, limits, tables
from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.exactness import REFERENCE
from worldrt.benchmarks.report.verdict import LACKING
from worldrt.benchmarks.results import Extra, Table
from worldrt.benchmarks.rounds import interleave
from worldrt.benchmarks.worker import Worker
from worldrt.engine.bundle import FILE_NAME, Bundle, file_sha256, load_bundle
from worldrt.engine.errors import InputError

BASELINE = "diffusers"
COMPILED = "diffusers-compiled"
CONTENDERS = ("worldrt", "int8", "torch", BASELINE, COMPILED)
NOTES = (
    "A step is one guided evaluation: two passes of the transformer. That of worldrt includes the sampler's update, "
    "that of diffusers only the transformer.",
    "encode: worldrt encodes the one given frame, diffusers the whole clip, padded with it.",
)

SLOW_NOTES = ("A round that is past its limit is stopped. torch.compile builds its kernels in the first one.",)
MEMORY_NOTES = ("Mapped weight files count where they are resident. worldrt loads its graphs in the warm-up round.",)


@dataclass(frozen=True)
class Plan:
    """What to run. `int8` is the bundle of the quantised contender, None where it does not take part. `compile_limit_s`
    is what a round may take of a contender that is compiled first."""

    bundle: Path
    int8: Path | None
    contenders: tuple[str, ...]
    steps: int
    rounds: int
    threads: int
    num_frames: int | None = None
    compile_limit_s: float = 120.0


@dataclass(frozen=True)
class Outcome:
    tables: tuple[Table, ...]
    samples: dict[str, list[float]]
    workload: Workload
    extra: Extra


def run(plan: Plan, scratch: Path, progress: Callable[[str], None] = lambda _: None) -> Outcome:
    """Time the rounds, then compare results. `scratch` takes arrays on their way between processes."""
    bundle = load_bundle(plan.bundle)
    load = workload(bundle, plan.steps, plan.num_frames)
    with ExitStack() as stack:
        workers = {}
        for name in plan.contenders:
            progress(f"open: {name}")
            workers[name] = stack.enter_context(_worker(name, plan, bundle, load))
        opened = {name: worker.opened["open_s"] for name, worker in workers.items()}
        slow: dict[str, str] = {}
        limits_s = {COMPILED: plan.compile_limit_s}
        samples = interleave(workers, plan.rounds, progress=progress, limits_s=limits_s, slow=slow)
        for name in slow:
            del workers[name]
        peaks = {name: worker.peak_bytes for name, worker in workers.items()}
        progress("compare results")
        made = [
            tables.stages(samples, notes=NOTES),
            *([tables.speedups(samples, BASELINE)] if BASELINE in samples else []),
            *([Table(LACKING, ("contender", "why"), tuple(slow.items()), SLOW_NOTES)] if slow else []),
            tables.memory(peaks, opened, BASELINE, MEMORY_NOTES),
            *exactness.tables(workers, load, scratch),
        ]
        drawn = [
            figures.waterfall(samples, {"image step": plan.steps, "video step": plan.steps}),
            figures.histogram(samples, "whole"),
            figures.histogram(samples, "video step"),
            figures.memory(peaks),
        ]
    if REFERENCE in samples:
        progress("measure the limits of this machine")
        roof, work = limits.measure_roof(plan.threads), limits.works(bundle, load)
        made.append(limits.table(work, samples[REFERENCE], roof))
        drawn.append(limits.figure(work, samples[REFERENCE], roof))
    return Outcome(tuple(made), tables.flat(samples), load, Extra(tuple(drawn), hashes(plan)))


def hashes(plan: Plan) -> dict[str, str]:
    """Of the descriptions of the bundles, which hold those of their graphs and of the headers of their weights."""
    folders = {"worldrt": plan.bundle, "int8": plan.int8}
    return {
        f"bundle of {name}": file_sha256(folder / FILE_NAME)
        for name, folder in folders.items()
        if folder is not None and name in plan.contenders
    }


def workload(bundle: Bundle, steps: int, num_frames: int | None = None) -> Workload:
    """The models' own sizes and guidance. Raises `InputError` where the bundle is not made for text to video."""
    manifest = bundle.manifest
    image, video = (manifest.denoisers.get(task) for task in ("text2image", "video2world"))
    if image is None or video is None or manifest.text is None or manifest.vae is None:
        raise InputError(f"{bundle.folder}: expected a bundle with text2image, video2world, text and vae")
    sizes = [next(iter(spec.sizes.values()))["16:9"] for spec in (image, video)]
    return Workload(
        steps=steps,
        image_size=sizes[0],
        video_size=sizes[1],
        num_frames=num_frames or min(video.frames.values()),
        channels=manifest.vae.channels,
        text_tokens=manifest.text.max_tokens,
        text_width=manifest.text.width,
        image_guidance=image.guidance.scale,
        video_guidance=video.guidance.scale,
        sigma_max=video.sampler.sigma_max,
        sigma_min=video.sampler.sigma_min,
    )


def _worker(name: str, plan: Plan, bundle: Bundle, load: Workload) -> Worker:
    options: dict[str, Any] = {"workload": asdict(load)}
    if name in (BASELINE, COMPILED):
        options |= {"checkpoint": str(bundle.weight_root), "threads": plan.threads, "compiled": name == COMPILED}
        return Worker(name, "diffusers", options, plan.threads)
    folder = plan.int8 if name == "int8" else plan.bundle
    backend = "torch" if name == "torch" else "onnxruntime"
    options |= {"bundle": str(folder), "backend": backend, "options": {"threads": plan.threads}}
    return Worker(name, "worldrt", options, plan.threads)
