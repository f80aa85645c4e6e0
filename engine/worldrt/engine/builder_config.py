"""What a builder is told: options, the ranges of a profile, the GPUs that a plan is for.

Everything is looked up by name in the module that is handed in; what is not there is refused by name. The numbers
behind the names change between versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worldrt.engine.collectives import allow_gathers
from worldrt.engine.errors import BackendError, InputError, ShapeError, UnsupportedError
from worldrt.engine.plans import BuildJob, BuildOptions
from worldrt.engine.tensors import Shape, TensorSpec, axis_names

_HIGHEST_LEVEL = 5


def configure(trt: Any, builder: Any, job: BuildJob, monitor: Any) -> Any:
    """A builder configuration for a job. Raises `UnsupportedError` that names the option, library and version where
    the library lacks one, `InputError` for an option or a range that cannot be."""
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # has the compiled layers listed
    config.max_aux_streams = 0  # one stream: the order of work is the caller's
    if not 0 <= job.options.optimization_level <= _HIGHEST_LEVEL:
        raise InputError(f"optimization_level: expected 0 to {_HIGHEST_LEVEL}, got {job.options.optimization_level}")
    config.builder_optimization_level = job.options.optimization_level
    if job.options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.options.workspace_bytes)
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # else large tensors would be allocated while the engine runs, which a CUDA graph cannot hold
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    for option, flag in flags_of(job.options):
        config.set_flag(_of(trt, job, trt.BuilderFlag, "BuilderFlag", flag, option))
    allow_gathers(trt, config, job)
    _set_hardware(trt, config, job)
    index = config.add_optimization_profile(_profile(builder, job))
    if index is not None and index < 0:
        raise BackendError(f"{job.name}: {job.library} refuses the ranges of its axes: {_ranges(job)}")
    return config


def flags_of(options: BuildOptions) -> Iterator[tuple[str, str]]:
    """Options and the builder flags that they stand for. A stripped plan gets the same weights back unless it is to be
    refitted with others."""
    if options.version_compatible:
        yield "version_compatible", "VERSION_COMPATIBLE"
    if options.refit:
        yield "refit", "REFIT"
    if options.strip:
        yield "strip_plan", "STRIP_PLAN"
        if not options.refit:
            yield "strip_plan", "REFIT_IDENTICAL"
    if options.weight_streaming:
        yield "weight_streaming", "WEIGHT_STREAMING"


def _set_hardware(trt: Any, config: Any, job: BuildJob) -> None:
    if job.library == "tensorrt_rtx":
        if job.options.hardware_compatible:
            raise UnsupportedError(
                f"option 'hardware_compatible': plans of {job.library} are for compute capabilities; "
                "name several with --compute_capability instead"
            )
        _set_capabilities(trt, config, job)
    elif not job.target.gpu_name:
        raise BackendError(
            "tensorrt builds on a GPU like the one that the plan is for, and there is none here; "
            "tensorrt_rtx builds without one: --backend tensorrt_rtx --compute_capability 8.9"
        )
    elif job.options.hardware_compatible:
        levels = trt.HardwareCompatibilityLevel
        same = getattr(levels, "SAME_COMPUTE_CAPABILITY", None)
        config.hardware_compatibility_level = levels.AMPERE_PLUS if same is None else same


def _set_capabilities(trt: Any, config: Any, job: BuildJob) -> None:
    """Ahead of time for named compute capabilities, or for the present GPU."""
    known = trt.ComputeCapability
    if job.target.gpu_name:
        wanted = [known.CURRENT]
    else:
        names = [f"SM{capability.replace('.', '')}" for capability in job.target.compute_capabilities]
        wanted = [getattr(known, name, None) for name in names]
    if not wanted or None in wanted:
        there = [name for name in dir(known) if name.startswith("SM") and name[2:].isdecimal()]
        words = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in sorted(there, key=lambda n: int(n[2:])))
        got = ", ".join(job.target.compute_capabilities) or "none"
        raise UnsupportedError(
            f"compute capability {got}: {job.library} {trt.__version__} builds ahead of time for {words}"
        )
    config.num_compute_capabilities = len(wanted)
    for i, capability in enumerate(wanted):
        if not config.set_compute_capability(capability, i):
            raise BackendError(f"{job.name}: {job.library} refuses to build for {capability.name}")


def _profile(builder: Any, job: BuildJob) -> Any:
    """Least, best and largest shapes of every input that has a named axis."""
    missing = [name for name in axis_names(job.graph.inputs) if name not in job.profile]
    if missing:
        raise ShapeError(f"{job.name}: no range for the axes {', '.join(missing)}; give one with --profile")
    profile = builder.create_optimization_profile()
    for spec in job.graph.inputs:
        if axis_names([spec]):
            profile.set_shape(spec.name, *_shapes(spec, job))
    return profile


def _shapes(spec: TensorSpec, job: BuildJob) -> tuple[Shape, Shape, Shape]:
    least = {name: bounds.min for name, bounds in job.profile.items()}
    best = {name: bounds.opt for name, bounds in job.profile.items()}
    largest = {name: bounds.max for name, bounds in job.profile.items()}
    return spec.resolve(least), spec.resolve(best), spec.resolve(largest)


def _ranges(job: BuildJob) -> str:
    return ", ".join(f"{name} {r.min}:{r.opt}:{r.max}" for name, r in job.profile.items())


def _of(trt: Any, job: BuildJob, enum: Any, kind: str, name: str, option: str) -> Any:
    found = getattr(enum, name, None)
    if found is None:
        raise UnsupportedError(
            f"option '{option}': {job.library} {trt.__version__} has no {kind}.{name}; leave the option out"
        )
    return found
