"""ONNX Runtime: the CPU, and the CUDA execution provider where the package and a device have it."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Graph
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError, UnsupportedError
from worldrt.engine.plans import Profile
from worldrt.engine.session import Session
from worldrt.engine.tensors import ONNX_TYPES, TensorSpec
from worldrt.engine.weights import WeightStore

# as `NodeArg.type` writes them
_TYPE_NAMES = {name: f"tensor({name})" for name in ONNX_TYPES} | {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
}


def unavailable() -> str | None:
    try:
        importlib.import_module("onnxruntime")
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}); pip install onnxruntime"
    return None


def open_session(
    path: Path,
    graph: Graph,
    device: Device,
    *,
    weight_root: Path,
    weights: WeightStore | None = None,
    profile: Profile | None = None,
    threads: int = 0,
    low_memory: bool = False,
) -> Session:
    """`threads`: 0 leaves the number to ONNX Runtime. `low_memory` keeps weights in the mapped files: no prepacked
    copies, no folded transposes; somewhat slower."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said once
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = True
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weight_root))
    # a quantised graph is computed as it says; the fusions know int8 only, and saturate where a CPU lacks VNNI
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    extra = {}
    if low_memory:
        options.add_session_config_entry("session.disable_prepacking", "1")
        extra["disabled_optimizers"] = ["ConstantFolding"]
    others = _others(ort, graph, weights)
    if others:
        options.add_external_initializers(list(others), list(others.values()))
    try:
        session = ort.InferenceSession(str(path), options, providers=_providers(ort, device), **extra)
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error):  # the graph was read and checked; a kernel is missing, mostly of bfloat16
            raise UnsupportedError(
                f"{path}: ONNX Runtime has no kernels for it on {device.name}: {str(error).strip()}. "
                "A bundle in float32 runs everywhere: trt-export --precision fp32"
            ) from error
        raise BackendError(f"ONNX Runtime refuses {path}: {str(error).strip()}") from error
    if device.name != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise BackendError(
            "ONNX Runtime cannot load its CUDA provider; it needs the CUDA and cuDNN libraries that it was built for: "
            "pip install 'onnxruntime-gpu[cuda,cudnn]', or use --device cpu"
        )
    _check_interface(path, graph, session)
    return OnnxRuntimeSession(graph, device, session, list(others.values()))


def _others(ort: Any, graph: Graph, weights: WeightStore | None) -> dict[str, Any]:
    """Values in the place of the graph's own external data, by initializer name; they view the store's memory."""
    others = {} if weights is None else {weight.name: weights[weight.key] for weight in weights.others(graph)}
    make = ort.OrtValue.ortvalue_from_numpy_with_onnx_type
    return {name: make(buffer.numpy(), ONNX_TYPES[buffer.dtype]) for name, buffer in others.items()}


def _check_interface(path: Path, graph: Graph, session: Any) -> None:
    """The graph's record against the file: tensors are bound by address, so a wrong dtype or rank would be misread."""
    recorded = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    if graph.weights_as == "inputs":
        recorded |= {weight.name: TensorSpec(weight.name, weight.dtype, weight.shape) for weight in graph.weights}
    found = {value.name: value for value in (*session.get_inputs(), *session.get_outputs())}
    missing = [name for name in recorded if name not in found]
    unknown = [name for name in found if name not in recorded]
    if missing or unknown:
        raise BackendError(
            f"{path}: not the graph that the bundle describes ('{(missing + unknown)[0]}' is in one of them only); "
            "export the bundle again"
        )
    for name, value in found.items():
        spec = recorded[name]
        sizes = zip(spec.shape, value.shape, strict=False)
        same = all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))
        if value.type != _TYPE_NAMES[spec.dtype] or len(value.shape) != len(spec.shape) or not same:
            raise BackendError(
                f"{path}: tensor '{name}': the bundle says {spec.describe()}, the graph has {value.type}{value.shape}; "
                "export the bundle again"
            )


def _providers(ort: Any, device: Device) -> list[Any]:
    if device.name == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BackendError("this ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu, or use --device cpu")
    find = getattr(ort, "preload_dlls", None)
    if find is not None:
        with redirect_stdout(io.StringIO()):  # it prints what it lacks; what is lacking in the end is said above
            find()  # CUDA and cuDNN of Python packages, which the system does not look for
    index, stream = device.name.partition(":")[2], getattr(device, "stream", 0)
    settings = {"device_id": index, "user_compute_stream": str(stream)}
    return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]


class OnnxRuntimeSession(Session):
    """An `InferenceSession`; every call is an `IOBinding` made once."""

    def __init__(self, graph: Graph, device: Device, session: Any, held: list[Any]) -> None:
        super().__init__(graph, device)
        self._session = session
        self._held = held  # memory that the session reads

    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        binding = self._session.io_binding()
        kind, _, index = self.device.name.partition(":")
        outputs = {spec.name for spec in self.graph.outputs}
        for name, buffer in buffers.items():
            bind = binding.bind_output if name in outputs else binding.bind_input
            bind(name, kind, int(index or 0), ONNX_TYPES[buffer.dtype], buffer.shape, buffer.pointer)
        return partial(self._run, binding)

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # the package raises plain exceptions
            raise BackendError(
                f"ONNX Runtime cannot run {self.graph.file}: {str(error).strip()}. Where memory is short, ask for a "
                "smaller size or fewer frames"
            ) from error
