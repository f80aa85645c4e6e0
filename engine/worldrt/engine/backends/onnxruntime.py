"""ONNX Runtime: the CPU, and the CUDA execution provider where the package and a device have it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Graph
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.engine.session import Session
from worldrt.engine.weights import WeightStore

# TensorProto.DataType
_ELEMENT_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
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
    threads: int = 0,
    low_memory: bool = False,
) -> Session:
    """`threads`: 0 leaves the number to ONNX Runtime. `low_memory` keeps weights in the mapped files: no prepacked
    copies, no folded transposes; somewhat slower."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = True
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weight_root))
    extra = {}
    if low_memory:
        options.add_session_config_entry("session.disable_prepacking", "1")
        extra["disabled_optimizers"] = ["ConstantFolding"]
    try:
        session = ort.InferenceSession(str(path), options, providers=_providers(ort, device), **extra)
    except Exception as error:
        raise BackendError(f"ONNX Runtime refuses {path}: {str(error).strip()}") from error
    return OnnxRuntimeSession(graph, device, session)


def _providers(ort: Any, device: Device) -> list[Any]:
    if device.name == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise BackendError("this ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu, or use --device cpu")
    index, stream = device.name.partition(":")[2], getattr(device, "stream", 0)
    settings = {"device_id": index, "user_compute_stream": str(stream)}
    return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]


class OnnxRuntimeSession(Session):
    """An `InferenceSession`; every call is an `IOBinding` made once."""

    def __init__(self, graph: Graph, device: Device, session: Any) -> None:
        super().__init__(graph, device)
        self._session = session

    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        binding = self._session.io_binding()
        kind, _, index = self.device.name.partition(":")
        taken = {value.name for value in self._session.get_inputs()}
        outputs = {spec.name for spec in self.graph.outputs}
        for name, buffer in buffers.items():
            bind = binding.bind_output if name in outputs else binding.bind_input
            if name in outputs or name in taken:  # a graph may drop an input that it does not need
                bind(name, kind, int(index or 0), _ELEMENT_TYPES[buffer.dtype], buffer.shape, buffer.pointer)
        return partial(self._session.run_with_iobinding, binding)
