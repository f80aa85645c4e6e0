"""Every name that sessions call is there in the real libraries; the fakes could have any."""

import re
from pathlib import Path

import pytest

from worldrt.engine import cuda, graphs
from worldrt.engine.backends import _trt, _trt_contexts, _trt_load
from worldrt.engine.bundle import load_bundle
from worldrt.engine.cache import PlanCache
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError
from worldrt.engine.network import DATA_TYPES
from worldrt.engine.plans import BuildJob, Range, Target

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install

CONTEXT = (
    "active_optimization_profile set_optimization_profile_async set_input_shape infer_shapes is_stream_capturable "
    "update_device_memory_size_for_shapes set_device_memory set_tensor_address execute_async_v3"
)
ENGINE = (
    "num_io_tensors get_tensor_name get_tensor_dtype get_tensor_shape get_tensor_location streamable_weights_size "
    "weight_streaming_budget_v2 weight_streaming_scratch_memory_size create_execution_context create_runtime_config"
)
CONFIG = (
    "set_execution_context_allocation_strategy cuda_graph_strategy dynamic_shapes_kernel_specialization_strategy "
    "create_runtime_cache set_runtime_cache"
)
NAMES = {
    "IExecutionContext": CONTEXT,
    "ICudaEngine": ENGINE,
    "IRuntimeConfig": CONFIG,
    "IRuntimeCache": "serialize deserialize",
    "Refitter": "set_named_weights get_missing_weights refit_cuda_engine",
    "OnnxParserRefitter": "refit_from_bytes",
    "Runtime": "deserialize_cuda_engine",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "CudaGraphStrategy": "DISABLED",
    "DynamicShapesKernelSpecializationStrategy": "EAGER",
    "TensorLocation": "DEVICE",
    "DataType": " ".join(DATA_TYPES.values()),
}


@pytest.fixture
def rtx():
    return pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_the_library(rtx, kind):
    assert [name for name in NAMES[kind].split() if not hasattr(getattr(rtx, kind), name)] == []


def test_the_list_of_names_is_whole():
    """What the session modules call on objects of the library is in the list above."""
    used = set()
    for module in (_trt, _trt_load, _trt_contexts):
        text = Path(module.__file__).read_text(encoding="utf-8")
        objects = r"(?<!worldrt\.)\b(?:trt|made|engine|_engine|refitter|runtime|_config|_compiled)"
        calls = r"\.((?:get|set|create|num|is|infer|update|execute|weight|refit|deser|ser)\w*)"
        used |= set(re.findall(objects + calls, text))
    assert used and used <= {name for names in NAMES.values() for name in names.split()}


def test_names_of_the_cuda_runtime():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    text = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (cuda, graphs))
    names = set(re.findall(r"\bcuda[A-Z]\w+", text)) - {"cudaErrorMemoryAllocation", "cudaErrorNotReady"}
    spaces = (runtime, runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode)
    assert len(names) > 20 and [name for name in names if not any(hasattr(space, name) for space in spaces)] == []
    assert int(runtime.cudaError_t.cudaErrorMemoryAllocation) == 2 and int(runtime.cudaError_t.cudaErrorNotReady) == 600


def test_a_plan_that_the_real_library_refuses(rtx, bundle_folder, monkeypatch, tmp_path):
    """Without a GPU it refuses every plan; its words are in the error."""
    runtime = FakeCuda()
    install(monkeypatch, runtime, FakeTrt(runtime, "tensorrt_rtx"))
    bundle = load_bundle(bundle_folder)
    graph = bundle.manifest.text.graphs["encode"]
    job = BuildJob(
        "tensorrt_rtx",
        graph,
        bundle.path(graph.file),
        bundle.weight_root,
        "float32",
        {"batch": Range(1, 2, 8)},
        Target(("8.9",)),
    )
    with pytest.raises(BackendError, match=r"loading the plan of text/encode with tensorrt_rtx 1\..* failed: \S+"):
        _trt_load.load_engine(rtx, job, CudaDevice(0, runtime), PlanCache(tmp_path / "plans"), None, None)
