"""From a build job to an engine on the GPU: plan, deserialisation, interface, new weights."""

from __future__ import annotations

import logging
import math
import mmap
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from worldrt.engine.bundle import Graph
from worldrt.engine.constants import with_constants
from worldrt.engine.cuda import Claim, CudaDevice
from worldrt.engine.errors import BackendError, DeviceMemoryError
from worldrt.engine.network import DATA_TYPES
from worldrt.engine.obtain import Plan, obtain_plan, reject_plan
from worldrt.engine.plans import BuildJob
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import WeightStore, weight_key

_log = logging.getLogger("worldrt.tensorrt")


@dataclass(frozen=True)
class Engine:
    """A deserialised engine, and what must live as long as it does. `words` are the library's last complaints."""

    trt: ModuleType
    engine: Any
    runtime: Any
    plan: Plan
    words: deque[str]
    claim: Claim | None

    @property
    def short_of_memory(self) -> bool:
        return any("out of memory" in line.lower() or "outofmemory" in line.lower() for line in self.words)

    def failed(self, what: str) -> BackendError:
        """The error for something that the library refused to do."""
        said = " ".join(self.words) or "the library gives no reason"
        if self.short_of_memory:
            return DeviceMemoryError(f"{what} failed: {said}. What helps: --offload, --gpu_memory GB, a smaller size")
        return BackendError(f"{what} failed: {said}")


def make_logger(trt: ModuleType, words: deque[str]) -> Any:
    """Keeps errors and warnings in `words`, for the error that follows, and passes all on to `logging`."""
    levels = {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR, trt.ILogger.Severity.WARNING}

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in levels:
                words.append(message)
            _log.log(logging.INFO if severity in levels else logging.DEBUG, "%s", message)

    return Log()


def load_engine(
    trt: ModuleType, job: BuildJob, device: CudaDevice, cache: Any, weights: WeightStore | None, progress: Any
) -> Engine:
    """Obtain and deserialise the plan of a job. A plan of the cache that the library refuses is built again, once.

    Raises `BackendError` where a fresh plan is refused or is not of the graph, `DeviceMemoryError` where the weights do
    not fit.
    """
    words: deque[str] = deque(maxlen=6)
    logger = make_logger(trt, words)
    runtime = trt.Runtime(logger)
    obtain = partial(obtain_plan, job, cache, library_version=str(trt.__version__), progress=progress)
    loaded = _deserialise(trt, runtime, obtain(), job, device, words)
    if loaded.engine is None and loaded.plan.hit and not loaded.short_of_memory:
        reject_plan(loaded.plan, cache, f"{job.library} {trt.__version__} refuses to load it: {' '.join(words)}")
        loaded = _deserialise(trt, runtime, obtain(), job, device, words)
    loaded.plan.hold.release()
    if loaded.engine is None:
        where = f"{job.library} {trt.__version__} on {device.target.gpu_name}"
        raise loaded.failed(f"{loaded.plan.path}: loading the plan of {job.name} with {where}")
    _check_interface(loaded, job)
    if job.options.refit or job.options.strip:
        _refit(loaded, job, logger, weights)
    return loaded


def _deserialise(
    trt: ModuleType, runtime: Any, plan: Plan, job: BuildJob, device: CudaDevice, words: deque[str]
) -> Engine:
    """`engine` is None where the library refuses the plan. Its weights count as held, unless they are streamed."""
    claim, nbytes = None, plan.report.weight_bytes or plan.report.plan_bytes
    if not job.options.weight_streaming:
        device.expect(nbytes, f"loading {job.name}")
        claim = device.claim(nbytes)
    words.clear()
    with plan.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None and claim is not None:
        claim.drop()
    return Engine(trt, engine, runtime, plan, words, claim)


def _check_interface(loaded: Engine, job: BuildJob) -> None:
    """The engine's inputs and outputs against the bundle's record: they are bound by address."""
    trt, engine = loaded.trt, loaded.engine
    expected = {spec.name: spec for spec in (*weight_inputs(job.graph, job), *job.graph.inputs, *job.graph.outputs)}
    found = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    odd = sorted(set(expected) ^ set(found))
    if odd:
        raise BackendError(
            f"{loaded.plan.path}: not an engine of {job.name}: '{odd[0]}' is in one of them only; {_mend(loaded)}"
        )
    for name in found:
        spec, dtype = expected[name], engine.get_tensor_dtype(name).name
        shape = tuple(engine.get_tensor_shape(name))
        same = all(b == -1 or a == b for a, b in zip(spec.shape, shape, strict=False) if isinstance(a, int))
        if DATA_TYPES.get(spec.dtype) != dtype or len(shape) != len(spec.shape) or not same:
            raise BackendError(
                f"{loaded.plan.path}: tensor '{name}' of {job.name}: expected {spec.describe()}, "
                f"got {dtype}{list(shape)}; {_mend(loaded)}"
            )
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise BackendError(f"{job.name}: the engine wants '{name}' on the host; export the bundle again")


def weight_inputs(graph: Graph, job: BuildJob) -> tuple[TensorSpec, ...]:
    """The weights that the engine takes as inputs: those of the graph that are no constants of the job."""
    constants = {constant.name for constant in job.constants}
    taken = graph.weights if graph.weights_as == "inputs" else ()
    return tuple(TensorSpec(w.name, w.dtype, w.shape) for w in taken if w.name not in constants)


def _refit(loaded: Engine, job: BuildJob, logger: Any, weights: WeightStore | None) -> None:
    """Give an engine weights by name: a stripped one those of its graph, and any one those that the store replaces."""
    others = () if weights is None else weights.others(job.graph)
    if not (job.options.strip or others):
        return
    trt, refitter = loaded.trt, loaded.trt.Refitter(loaded.engine, logger)
    if job.options.strip:
        onnx = with_constants(job.path.read_bytes(), job.constants)
        if not trt.OnnxParserRefitter(refitter, logger).refit_from_bytes(onnx, str(job.weight_root / "any.onnx")):
            raise loaded.failed(f"{job.name}: reading its weights again")
    kept = [weights[weight_key(w, job.block or 0)] for w in others] if weights is not None else []  # until it is done
    for weight, buffer in zip(others, kept, strict=True):
        values = trt.Weights(getattr(trt.DataType, DATA_TYPES[buffer.dtype]), buffer.pointer, math.prod(buffer.shape))
        if not refitter.set_named_weights(weight.name, values):
            raise loaded.failed(f"{job.name}: replacing the weight '{weight.name}'")
    missing = [name for name in refitter.get_missing_weights() if name]
    if missing:
        raise BackendError(f"{job.name}: refitting needs the weight '{missing[0]}' too, which the checkpoint lacks")
    if not refitter.refit_cuda_engine():
        raise loaded.failed(f"{job.name}: refitting its weights")


def _mend(loaded: Engine) -> str:
    return f"remove it: trt-export cache rm {loaded.plan.key.digest[:12]}"
