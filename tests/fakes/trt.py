"""TensorRT and TensorRT-RTX without a GPU: an engine runs its ONNX file by ONNX Runtime, on the addresses it is given.

What the libraries refuse is refused: a shape outside the profile, an address that is missing, unaligned or freed, too
little scratch, a budget that is changed under a context, a plan of another version.
"""

from __future__ import annotations

import ctypes
import enum
import json
import weakref
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort

from worldrt.engine.plans import BuildReport
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.schema import encode
from worldrt.engine.tensors import ITEM_BYTES, TensorSpec

from .kernels import install_kernels

NUMPY = {"FLOAT": "float32", "INT64": "int64", "UINT8": "uint8", "HALF": "float16", "BF16": "uint16"}
NAMES = {"float32": "FLOAT", "int64": "INT64", "uint8": "UINT8", "float16": "HALF", "bfloat16": "BF16"}


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self):
        pass


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, BF16, INT64 = range(8)


class FakeTrt:
    """One of the two libraries on a fake runtime. `log` lists what happened; `reject` gives the reason to refuse a plan
    (a dict), or None; `scratch_bytes` of a context is this many bytes for each input element."""

    DataType, ILogger = DataType, ILogger
    TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
    ExecutionContextAllocationStrategy = enum.Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")

    def __init__(self, cuda, library="tensorrt", version="11.4.0.106"):
        self.cuda, self.library, self.__version__ = cuda, library, version
        self.log, self.builds, self.loaded, self.scratch_bytes = [], [], 0, 1
        self.reject = lambda plan: None
        self.fail_run = None  # what the logger hears when the next run is refused
        self.weight_bytes = None  # of every plan, instead of what its constants take
        self.compiled = b"kernels"
        self.connects = True  # whether contexts take a communicator
        if library == "tensorrt_rtx":
            self.ComputeCapability = enum.Enum("ComputeCapability", "SM80 SM89 SM120")
            self.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
            self.DynamicShapesKernelSpecializationStrategy = enum.Enum("Specialization", "LAZY EAGER NONE")

    def build(self, job, output, *, progress=None, timing_cache=None):
        """In the place of `worldrt.engine.build.build_plan`."""
        self.builds.append(job)
        if progress is not None:
            progress("building", 0.5)
        weights = self.weight_bytes or _weight_bytes(job)
        plan = {"version": self.__version__, "job": encode(job), "weight_bytes": weights}
        output.write_text(json.dumps(plan))
        return BuildReport(0.0, output.stat().st_size, 0, weight_bytes=weights)

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._load(bytes(content), logger))

    def _load(self, content, logger):
        try:
            plan = json.loads(content)
            reason = self.reject(plan)
            if plan["version"] != self.__version__:
                reason = f"the plan is of version {plan['version']}"
        except ValueError:
            reason = "magic tag does not match"
        if reason:
            logger.log(Severity.ERROR, reason)
            return None
        code, pointer = self.cuda.cudaMalloc(plan["weight_bytes"])
        if code:
            logger.log(Severity.ERROR, "out of memory")
            return None
        engine = FakeEngine(self, plan["job"], logger)
        weakref.finalize(engine, self.cuda.memory.pop, pointer, None)
        self.loaded += 1
        return engine

    def Refitter(self, engine, logger):
        return FakeRefitter(engine)

    def OnnxParserRefitter(self, refitter, logger):
        return SimpleNamespace(refit_from_bytes=refitter.from_file)

    def Weights(self, dtype, pointer, count):
        return np.frombuffer(ctypes.string_at(pointer, count * np.dtype(NUMPY[dtype.name]).itemsize), NUMPY[dtype.name])


class FakeEngine:
    def __init__(self, trt, job, logger):
        self.trt, self.job, self.logger = trt, job, logger
        self.name = job["graph"]["file"].removesuffix(".onnx")
        spec = lambda one: TensorSpec(one["name"], one["dtype"], tuple(one["shape"]))  # noqa: E731
        self.constants = {c["name"]: _constant(Path(job["weight_root"]), c) for c in job["constants"]}
        graph = job["graph"]
        taken = graph["weights"] if graph["weights_as"] == "inputs" else []
        weights = [spec(w) for w in taken if w["name"] not in self.constants]
        self.inputs = {s.name: s for s in (*map(spec, graph["inputs"]), *weights)}
        self.outputs = {s.name: s for s in map(spec, graph["outputs"])}
        self.refitted = {}
        self.ready = not job["options"]["strip"]
        self.contexts = []
        self.streamable_weights_size = 1000 if job["options"]["weight_streaming"] else 0
        self.weight_streaming_scratch_memory_size = 100 if self.streamable_weights_size else 0
        self._budget = self.streamable_weights_size

    @property
    def io(self):
        return {**self.inputs, **self.outputs}

    @property
    def num_io_tensors(self):
        return len(self.io)

    def get_tensor_name(self, i):
        return list(self.io)[i]

    def get_tensor_dtype(self, name):
        return DataType[NAMES[self.io[name].dtype]]

    def get_tensor_shape(self, name):
        return tuple(n if isinstance(n, int) else -1 for n in self.io[name].shape)

    def get_tensor_location(self, name):
        return self.trt.TensorLocation.DEVICE

    @property
    def weight_streaming_budget_v2(self):
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value):
        assert not any(ref() is not None for ref in self.contexts), "the budget cannot change under a context"
        self._budget = value
        self.trt.log.append(("budget", value))

    def create_runtime_config(self):
        assert self.trt.library == "tensorrt_rtx"
        config = SimpleNamespace(strategy=None, cache=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        config.set_runtime_cache = lambda found: setattr(config, "cache", found)
        config.create_runtime_cache = lambda: FakeRuntimeCache(self.trt)
        return config

    def create_execution_context(self, strategy):
        if self.trt.library == "tensorrt_rtx":
            assert strategy.cuda_graph_strategy is self.trt.CudaGraphStrategy.DISABLED and strategy.cache is not None
            strategy = strategy.strategy
        assert strategy is self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = FakeContext(self)
        self.contexts.append(weakref.ref(context))
        self.trt.log.append(("context", self.name))
        return context

    def session(self):
        assert self.ready, "a stripped engine without weights"
        names = tuple(self.refitted)
        return _session(
            self.job["path"], self.job["weight_root"], names, tuple(self.refitted[n].tobytes() for n in names)
        )


class FakeContext:
    def __init__(self, engine):
        self.engine, self.trt, self.cuda = engine, engine.trt, engine.trt.cuda
        self.active_optimization_profile = 0
        self.shapes, self.addresses, self.memory = {}, {}, None
        self.capturable = True

    def set_input_shape(self, name, shape):
        spec, profile = self.engine.inputs[name], self.engine.job["profile"]
        ends = [spec.resolve({axis: r[end] for axis, r in profile.items()}) for end in ("min", "max")]
        if not all(low <= n <= high for low, n, high in zip(ends[0], shape, ends[1], strict=True)):
            self.engine.logger.log(Severity.ERROR, f"{name}: {shape} is outside of {ends}")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        return [name for name in self.engine.inputs if name not in self.shapes]

    def update_device_memory_size_for_shapes(self):
        assert not self.infer_shapes()
        return self.trt.scratch_bytes * sum(int(np.prod(self.shapes[name])) for name in self.engine.inputs)

    def set_device_memory(self, pointer, nbytes):
        assert pointer % 256 == 0
        self.memory = (pointer, nbytes)

    def set_tensor_address(self, name, pointer):
        if name not in self.engine.io or pointer % 256:
            return False
        self.addresses[name] = pointer
        self.trt.log.append(("address", name))
        return True

    def set_communicator(self, capsule):
        self.trt.log.append(("communicator", self.engine.name))
        return self.trt.connects

    def is_stream_capturable(self, stream):
        return self.capturable

    def execute_async_v3(self, stream):
        if self.trt.fail_run:
            self.engine.logger.log(Severity.ERROR, self.trt.fail_run)
            return False
        if self.engine.weight_streaming_budget_v2 < self.engine.streamable_weights_size:
            self.cuda.cudaStreamSynchronize(stream)
        need, addresses, shapes = self.update_device_memory_size_for_shapes(), dict(self.addresses), dict(self.shapes)
        assert set(addresses) == set(self.engine.io), "an address is missing"
        assert self.memory is not None and self.memory[1] >= need, "too little scratch"
        memory, engine = self.memory, self.engine
        self.trt.log.append(("run", engine.name))
        self.cuda.enqueue(stream, lambda: _run(engine, memory, addresses, shapes))
        return True


class FakeRefitter:
    def __init__(self, engine):
        self.engine, self.set = engine, {}

    def get_all_weights(self):
        return [weight["name"] for weight in self.engine.job["graph"]["weights"]]

    def from_file(self, onnx, path):
        assert Path(path).parent == Path(self.engine.job["weight_root"]) and onnx
        self.engine.ready = True
        return True

    def set_named_weights(self, name, values):
        shape = next(w["shape"] for w in self.engine.job["graph"]["weights"] if w["name"] == name)
        self.set[name] = values.reshape(shape)
        return True

    def get_missing_weights(self):
        return []

    def refit_cuda_engine(self):
        self.engine.refitted |= self.set
        return True


class FakeRuntimeCache:
    def __init__(self, trt):
        self.trt, self.content = trt, b""

    def deserialize(self, content):
        if not content.startswith(b"kernels"):
            return False
        self.content = content
        return True

    def serialize(self):
        return self.content or self.trt.compiled


def _weight_bytes(job):
    taken = job.graph.weights if job.graph.weights_as == "external" else job.constants
    return sum(int(np.prod(weight.shape)) * ITEM_BYTES[weight.dtype] for weight in taken)


def _constant(root, constant):
    file = SafetensorsFile.open(root / constant["file"])
    (key,) = (key for key, tensor in file.tensors.items() if tensor.offset == constant["offset"])
    return file[key].numpy()


@cache
def _session(path, root, names, values):
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", root)
    if names:
        arrays = [ort.OrtValue.ortvalue_from_numpy(np.frombuffer(v, np.float32).reshape(_shape(path, n)).copy())
                  for n, v in zip(names, values, strict=True)]  # fmt: skip
        options.add_external_initializers(list(names), arrays)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _shape(path, name):
    import onnx

    model = onnx.load(path, load_external_data=False)
    return tuple(next(t.dims for t in model.graph.initializer if t.name == name))


def _run(engine, memory, addresses, shapes):
    """What the GPU does: read inputs, use scratch, write outputs, all of it live memory."""
    cuda = engine.trt.cuda
    cuda.view(*memory).fill(0x5A)
    feeds = dict(engine.constants)
    for name in engine.inputs:
        dtype = np.dtype(NUMPY[engine.get_tensor_dtype(name).name])
        count = int(np.prod(shapes[name]))
        feeds[name] = cuda.view(addresses[name], count * dtype.itemsize).view(dtype).reshape(shapes[name])
    made = engine.session().run(list(engine.outputs), feeds)
    for name, value in zip(engine.outputs, made, strict=True):
        assert value.dtype.itemsize == ITEM_BYTES[engine.outputs[name].dtype]
        cuda.view(addresses[name], value.nbytes)[:] = np.ascontiguousarray(value).view(np.uint8).ravel()


def install(monkeypatch, cuda, trt):
    """Put the fakes in the places of the real things."""
    from worldrt.engine import cuda as engine_cuda
    from worldrt.engine import obtain
    from worldrt.engine.backends import _trt

    monkeypatch.setattr(engine_cuda, "_import_runtime", lambda: cuda)
    monkeypatch.setattr(_trt, "load_library", lambda name: trt)
    monkeypatch.setattr(obtain, "build_plan", trt.build)
    install_kernels(monkeypatch, cuda)
