"""Engine plans of a bundle: built into the plan cache, or only checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worldrt.engine.backends._library import load_library, plan_target
from worldrt.engine.build import check_job
from worldrt.engine.bundle import Bundle
from worldrt.engine.cache import PlanCache
from worldrt.engine.device import open_device
from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.jobs import Wish, form_of, job_of, jobs_of
from worldrt.engine.network import Finding
from worldrt.engine.obtain import obtain_plan
from worldrt.engine.plans import BuildOptions, BuildReport, Library, Range, Target
from worldrt.engine.weights import open_weights

Progress = Callable[[str, float, int], None]
"""Called with what is going on, plans done (a fraction while one is built), plans in all."""


@dataclass(frozen=True)
class EngineOptions:
    """What was asked for. No `components` means all; no `compute_capabilities` the GPU `device`."""

    backend: Library
    compute_capabilities: tuple[str, ...] = ()
    device: str = "cuda"
    components: tuple[str, ...] = ()
    overrides: Mapping[str, Range] = field(default_factory=dict)
    batch: int = 2
    block_weights: str = "auto"
    build: BuildOptions = field(default_factory=BuildOptions)


@dataclass(frozen=True)
class Built:
    """One plan: of which graph, in which form, for which GPUs, where it lies, and what it took. `hit`: it was there."""

    graph: str
    form: str
    target: Target
    plan: Path
    digest: str
    seconds: float
    hit: bool
    report: BuildReport


@dataclass(frozen=True)
class Unsupported:
    """A node that the library cannot take, and the file of its graph."""

    file: str
    finding: Finding


def build_engines(
    bundle: Bundle,
    options: EngineOptions,
    cache: PlanCache,
    progress: Progress = lambda text, done, total: None,
) -> list[Built]:
    """A plan of every graph, from the cache or built into it, one after the other: a builder needs much memory.

    Each compute capability gets plans of its own, so that a runtime finds those for its GPU. Raises `InputError` for a
    component that is not there, and what the builder and the cache raise.
    """
    version = str(load_library(options.backend).__version__)
    jobs = []
    for name in _chosen(bundle, options.components):
        component = bundle.manifest.components()[name]
        store = open_weights(bundle, component)
        form = form_of(component, store, options.block_weights)
        for target in _targets(options):
            jobs += [(form, job) for job in jobs_of(bundle, name, store, _wish(options, target))]
    made = []
    for done, (form, job) in enumerate(jobs):
        what = f"building {job.name} for {_words(job.target)}"
        progress(what, done, len(jobs))

        def heard(text: str, part: float, what: str = what, done: int = done) -> None:
            progress(f"{what}: {text}", done + part, len(jobs))

        plan = obtain_plan(job, cache, library_version=version, progress=heard)
        made.append(Built(job.name, form, job.target, plan.path, plan.key.digest, plan.seconds, plan.hit, plan.report))
        plan.hold.release()
    return made


def check_engines(
    bundle: Bundle, options: EngineOptions, progress: Progress = lambda text, done, total: None
) -> list[Unsupported]:
    """The nodes of a bundle that the library cannot take. Nothing is built, and no GPU is needed for `tensorrt_rtx`.

    Raises `BundleError` for weights that are not those of the graphs, where they refer to them.
    """
    load_library(options.backend)
    wish = _wish(options, Target(options.compute_capabilities))
    jobs = []
    for name in _chosen(bundle, options.components):
        component = bundle.manifest.components()[name]
        if any(graph.weights_as == "external" for graph in component.graphs.values()):
            open_weights(bundle, component)  # a parser that does not find them calls the graph unsupported
        jobs += [job_of(bundle, name, graph, wish) for graph in component.graphs]
    found: list[Unsupported] = []
    for done, job in enumerate(jobs):
        progress(f"checking {job.name}", done, len(jobs))
        found += [Unsupported(job.graph.file, finding) for finding in check_job(job)]
    return found


def _chosen(bundle: Bundle, names: Sequence[str]) -> list[str]:
    there = bundle.manifest.components()
    for name in names:
        if name not in there:
            raise InputError(f"component '{name}': this bundle has {', '.join(there)}")
    return [name for name in there if not names or name in names]


def _targets(options: EngineOptions) -> list[Target]:
    if options.compute_capabilities:
        return [Target((capability,)) for capability in dict.fromkeys(options.compute_capabilities)]
    try:
        device = open_device(options.device)
    except BackendError as error:
        hint = "name the GPUs to build for: --compute_capability 8.9 12.0"
        if options.backend == "tensorrt":
            hint = "tensorrt builds only where there is one; tensorrt_rtx needs none with --compute_capability 8.9"
        raise BackendError(f"no GPU to build for here ({error}); {hint}") from error
    target = getattr(device, "target", None)
    if not isinstance(target, Target):
        raise InputError(f"device '{options.device}': engines are for GPUs, such as cuda or cuda:1")
    return [plan_target(options.backend, load_library(options.backend), target)]


def _wish(options: EngineOptions, target: Target) -> Wish:
    return Wish(
        options.backend, target, options.build, options.batch, options.overrides, block_weights=options.block_weights
    )


def _words(target: Target) -> str:
    return target.gpu_name or ", ".join(target.compute_capabilities)
