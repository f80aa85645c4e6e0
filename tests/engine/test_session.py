import tracemalloc
import warnings
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from worldrt.engine.backends import torch as torch_backend
from worldrt.engine.bundle import load_bundle
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import BackendError, InputError, ShapeError
from worldrt.engine.session import open_session
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import open_weights


class Opened:
    def __init__(self, folder, backend="onnxruntime", **options):
        bundle = load_bundle(folder)
        text = bundle.manifest.text
        graph = text.graphs["encode"]
        store = open_weights(bundle, text)
        self.session = open_session(
            backend, bundle.path(graph.file), graph, HostDevice(), weight_root=bundle.weight_root, options=options
        )
        self.weights = store.of_graph(graph) if graph.weights_as == "inputs" else {}
        self.matrix = load_file(bundle.weight_root / graph_file(text))["layer.0.weight"]

    def bind(self, axes, **given):
        return self.session.bind(axes, self.weights | given)


def graph_file(text):
    return text.files[0]


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_call_runs_on_its_buffers_again_and_again(bundle_folder, low_memory):
    opened = Opened(bundle_folder, low_memory=low_memory)
    call = opened.bind({"batch": 5})
    x = call["x"].numpy()
    for seed in range(2):
        x[...] = np.random.default_rng(seed).standard_normal(x.shape)
        call.run()
        np.testing.assert_allclose(call["y"].numpy(), x @ opened.matrix, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ((TensorSpec("x", "float16", ("batch", 4)),), "tensor 'x': the bundle says x float16"),
        ((TensorSpec("x", "float32", ("batch", 5)),), "tensor 'x': the bundle says"),
        ((TensorSpec("x", "float32", (4,)),), "tensor 'x': the bundle says"),
        ((TensorSpec("z", "float32", ("batch", 4)),), "'[xz]' is in one of them only"),
    ],
)
def test_a_graph_that_the_bundle_does_not_describe(bundle_folder, inputs, text):
    bundle = load_bundle(bundle_folder)
    graph = replace(bundle.manifest.text.graphs["encode"], inputs=inputs)
    with pytest.raises(BackendError, match=text):
        open_session("onnxruntime", bundle.path(graph.file), graph, HostDevice(), weight_root=bundle.weight_root)


def test_a_run_that_fails_is_explained(bundle_folder):
    """Memory that runs out is the user's to mend; here the kernel refuses instead."""
    call = Opened(bundle_folder).bind({"batch": 5})

    def refuse(binding):
        raise RuntimeError("Failed to allocate memory")

    call.run.func.__self__._session = SimpleNamespace(run_with_iobinding=refuse)
    with pytest.raises(BackendError, match="encode.onnx: Failed to allocate memory.*fewer frames"):
        call.run()


def test_calls_of_one_session_share_buffers(bundle_folder):
    opened = Opened(bundle_folder)
    y = host_buffer(np.zeros((2, 3), np.float32))
    first = opened.bind({}, y=y)  # the batch follows from the buffer
    second = opened.bind({"batch": 2}, y=y)
    first["x"].numpy()[...], second["x"].numpy()[...] = 1, 2
    first.run()
    once = y.numpy().copy()
    second.run()
    np.testing.assert_allclose(y.numpy(), 2 * once)


def test_running_allocates_nothing_of_tensor_size(bundle_folder):
    call = Opened(bundle_folder).bind({"batch": 4096})
    call.run()
    tracemalloc.start()
    for _ in range(10):
        call.run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < call["y"].nbytes / 4


@pytest.mark.parametrize(
    ("axes", "given", "text"),
    [
        ({}, {}, "axis 'batch' has no size"),
        ({"batch": 3}, {"y": (2, 3)}, r"'y': expected float32\[3, 3\] on cpu, got float32\[2, 3\] on cpu"),
        ({"batch": 2}, {"x": (2, 5)}, r"expected x float32\[batch, 4\], got shape \(2, 5\)"),
        ({"batch": 2}, {"z": (2, 5)}, "no tensor 'z'; there are: x, "),
    ],
)
def test_buffers_that_do_not_fit(bundle_folder, axes, given, text):
    buffers = {name: host_buffer(np.zeros(shape, np.float32)) for name, shape in given.items()}
    with pytest.raises(ShapeError, match=text):
        Opened(bundle_folder).bind(axes, **buffers)


def test_weight_inputs_must_be_given(bundle_folder):
    opened = Opened(bundle_folder)
    if opened.weights:
        with pytest.raises(ShapeError, match="the weight input 'w' is not given"):
            opened.session.bind({"batch": 1})


def test_null_backend_counts_and_keeps_outputs(bundle_folder):
    opened = Opened(bundle_folder, backend="null")
    call = opened.bind({"batch": 1})
    call["y"].numpy()[...] = 3
    call.run()
    assert opened.session.runs == 1
    assert (call["y"].numpy() == 3).all()


def test_a_graph_that_cannot_be_read(bundle_folder):
    bundle = load_bundle(bundle_folder)
    graph = bundle.manifest.text.graphs["encode"]
    with pytest.raises(BackendError, match="ONNX Runtime refuses"):
        open_session("onnxruntime", bundle_folder / "bundle.json", graph, HostDevice(), weight_root=bundle.weight_root)
    with pytest.raises(InputError, match="no 'onnx'"):
        open_session("onnx", bundle_folder / graph.file, graph, HostDevice(), weight_root=bundle.weight_root)


def test_a_cuda_provider_that_cannot_be_loaded_is_an_error(bundle_folder, monkeypatch, capsys):
    """ONNX Runtime goes on with the CPU then, and would be given addresses of a GPU."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    looked = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: looked.append(print("no libcublas")), raising=False)
    bundle = load_bundle(bundle_folder)
    graph = bundle.manifest.text.graphs["encode"]
    gpu = SimpleNamespace(name="cuda:0", stream=5)
    with warnings.catch_warnings(), pytest.raises(BackendError, match="cannot load its CUDA provider.*cudnn"):
        warnings.simplefilter("ignore")
        open_session("onnxruntime", bundle.path(graph.file), graph, gpu, weight_root=bundle.weight_root)
    assert looked and not capsys.readouterr().out


def test_torch_works_in_the_order_of_the_devices_stream(monkeypatch):
    """Casting bound weights too: torch's own stream would not wait for their upload, nor the run for torch's own."""
    order = []

    @contextmanager
    def stream(made):
        order.append(f"enter {made}")
        yield
        order.append("leave")

    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: f"{handle} of {device}")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch_backend, "_tensor", lambda torch, buffer: torch.zeros(buffer.shape))
    monkeypatch.setattr(torch_backend, "_on", lambda tensor, device: order.append("cast") or tensor)
    spec, weight = TensorSpec("x", "float32", (2,)), SimpleNamespace(name="w", dtype="float32", shape=(2,))
    graph = SimpleNamespace(inputs=(spec,), outputs=(replace(spec, name="y"),), weights_as="inputs", weights=(weight,))
    gpu = SimpleNamespace(name="cuda:1", stream=5)
    module = torch.nn.Module()
    module.forward = lambda x: order.append("run") or x
    session = torch_backend.TorchSession(graph, gpu, torch, module, {"w": torch.float32})
    buffers = {name: SimpleNamespace(shape=(2,)) for name in ("x", "y", "w")}
    session._prepare(buffers)()
    assert order == ["enter 5 of cuda:1", "cast", "leave", "enter 5 of cuda:1", "run", "leave"]
