"""Building one plan in this process. The library's module, `tensorrt` or `tensorrt_rtx`, is handed in as `trt`.

Networks are strongly typed: the graph says every precision. Attention, rotary embedding and RMS normalisation are
nodes of the graph and reach the library whole.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldrt.engine.build_log import BuildLog, Log, make_logger, read_layers
from worldrt.engine.build_progress import make_monitor
from worldrt.engine.builder_config import configure
from worldrt.engine.errors import BackendError, OutputError, UnsupportedError, WorldrtError
from worldrt.engine.files import staged_file
from worldrt.engine.fp8_attention import quantize_softmax
from worldrt.engine.memory import peak_rss_bytes
from worldrt.engine.network import Finding, findings, parse, parse_network, strongly_typed
from worldrt.engine.plans import BuildJob, BuildReport

_LACKS = ("not supported by a dedicated kernel", "could not find any implementation", "no matching rules")
_KEPT_CHARACTERS = 1000  # of an error; some bindings quote their arguments, such as the whole graph
_OTHER_GPU = "hw-specific datatypes"
_NO_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "memory allocation", "resource temporarily unavailable")


class _NoFp8AttentionError(Exception):
    """No kernel was found, maybe for want of one that has its softmax in FP8."""


def build(
    trt: Any,
    job: BuildJob,
    *,
    log: Log = lambda severity, text: None,
    progress: Callable[[str, float], bool] = lambda text, done: True,
    timing_cache: Path | None = None,
) -> tuple[Any, BuildReport]:
    """The bytes of a job's plan (a buffer) and what the build took. `progress` says whether to go on.

    Attention over FP8 is tried with its softmax in FP8, and without where there is no kernel for that.
    Raises `UnsupportedError` for nodes, options or kernels that the library lacks, `BackendError` for the rest.
    """
    with contextlib.suppress(_NoFp8AttentionError):
        return _build(trt, job, log, progress, timing_cache, fp8_softmax=True)
    plan, report = _build(trt, job, log, progress, timing_cache, fp8_softmax=False)
    said = "attention is not in FP8: no kernel for these lengths; the shortest sequence of a profile should be 32"
    return plan, replace(report, warnings=(*report.warnings, said))


def _build(
    trt: Any,
    job: BuildJob,
    log: Log,
    progress: Callable[[str, float], bool],
    timing_cache: Path | None,
    *,
    fp8_softmax: bool,
) -> tuple[Any, BuildReport]:
    begin, heard = time.perf_counter(), BuildLog(log)
    logger = make_logger(trt, heard)
    try:
        builder = trt.Builder(logger)
        network, parser = parse_network(trt, builder, logger, job)
        quantized = quantize_softmax(trt, network) if fp8_softmax else 0
        monitor = make_monitor(trt, progress)
        config = configure(trt, builder, job, monitor)
        measured = _take_timings(config, job, timing_cache)
        plan = builder.build_serialized_network(network, config)
    except WorldrtError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _failure(job, [*heard.errors, f"{type(error).__name__}: {error}"]) from error
    if plan is None:
        failure = _failure(job, heard.errors)
        if quantized and isinstance(failure, UnsupportedError) and _OTHER_GPU not in str(failure).lower():
            raise _NoFp8AttentionError
        raise failure
    del parser  # it has owned the weights until here
    if measured and timing_cache is not None:
        _keep_timings(config, timing_cache, heard)
    layers = heard.layers or _inspected(trt, logger, plan)
    return plan, BuildReport(
        seconds=time.perf_counter() - begin,
        plan_bytes=int(plan.nbytes),
        peak_rss_bytes=peak_rss_bytes() or 0,
        scratch_bytes=heard.memory_bytes.get("Max Scratch"),
        activation_bytes=heard.memory_bytes.get("Total Activation"),
        weight_bytes=heard.memory_bytes.get("Total Weights"),
        layers=tuple(layers),
        warnings=tuple(dict.fromkeys(heard.warnings)),
    )


def find_unsupported(trt: Any, job: BuildJob, log: Log) -> tuple[Finding, ...]:
    """The nodes of a job's graph that the library cannot take. Nothing is built. A job that names compute capabilities
    is also held against them and its options: raises what `configure` raises."""
    logger = make_logger(trt, BuildLog(log))
    try:
        builder = trt.Builder(logger)
        if job.target.compute_capabilities:
            configure(trt, builder, job, make_monitor(trt, lambda text, done: True))
        network = builder.create_network(strongly_typed(trt))
        parser = trt.OnnxParser(network, logger)
        taken = parse(parser, job)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _failure(job, [str(error)]) from error
    found = findings(parser)
    return found if taken or found else (Finding("", "", "the parser gives no reason"),)


def _take_timings(config: Any, job: BuildJob, file: Path | None) -> bool:
    """Give TensorRT what it measured in earlier builds; an empty place for it where the file is damaged, or of another
    version or GPU. False for TensorRT-RTX, which measures nothing."""
    if file is None or job.library != "tensorrt":
        return False
    for content in (file.read_bytes() if file.is_file() else b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return True
    return False


def _keep_timings(config: Any, file: Path, heard: BuildLog) -> None:
    """A place that cannot be written costs time at the next build, not this plan."""
    try:
        with staged_file(file, overwrite=True) as part:
            part.write_bytes(bytes(config.get_timing_cache().serialize()))
    except OutputError as error:
        heard.warnings.append(f"timings are not kept: {error}")


def _inspected(trt: Any, logger: Any, plan: Any) -> list[str]:
    """The compiled layers as the engine itself tells them, for a library that does not list them while it builds."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:  # no GPU here
        return []
    inspector = engine.create_engine_inspector()
    return read_layers(str(inspector.get_engine_information(trt.LayerInformationFormat.ONELINE)))


def _failure(job: BuildJob, errors: list[str]) -> BackendError:
    """What the library said, and what can be done."""
    said = " | ".join(error[:_KEPT_CHARACTERS] for error in errors) or "it gave no reason"
    low = said.lower()
    if any(sign in low for sign in _LACKS):
        return UnsupportedError(f"{job.name}: {job.library} has no kernel for it: {said}")
    if _OTHER_GPU in low:
        hint = "FP8 needs compute capability 8.9 or later; older GPUs take trt-export --quantize int8_static"
        if "fp4" in low:
            hint = "FP4 needs Blackwell, such as compute capability 12.0; older GPUs take fp8 or int8_static"
        return UnsupportedError(f"{job.name}: {job.library}: {said}; {hint}")
    if any(sign in low for sign in _NO_MEMORY):
        hint = "free some, lower --workspace_gb, or build a block at a time (trt-export --form block)"
        return BackendError(f"{job.name}: {job.library}: out of memory: {said}; {hint}")
    return BackendError(f"{job.name}: {job.library} cannot build it: {said}{_hint(job)}")


def _hint(job: BuildJob) -> str:
    ahead = job.library == "tensorrt_rtx" and not job.target.gpu_name
    if ahead and (job.options.refit or job.options.strip):
        return "; refit and strip_plan need a GPU at build time: leave them out, or build where the plan is to run"
    if ahead and job.options.version_compatible:
        return "; version_compatible needs the lean runtime of the library, which is not installed: leave it out"
    return ""
