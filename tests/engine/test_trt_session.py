"""Sessions of TensorRT and TensorRT-RTX against fakes of the libraries that compute by ONNX Runtime and are as strict
about shapes, addresses, scratch and versions."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.engine.backends import _trt
from worldrt.engine.bundle import load_bundle
from worldrt.engine.cache import PlanCache
from worldrt.engine.constants import constants_of
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import HostDevice
from worldrt.engine.errors import BackendError, DeviceMemoryError, ShapeError
from worldrt.engine.plans import BuildOptions, Gather, Range, Target
from worldrt.engine.session import open_session
from worldrt.engine.weights import WeightStore, open_weights

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install
from .conftest import W

PROFILE = {"batch": Range(1, 2, 8)}


class Gpu:
    """A bundle of one graph on a fake GPU."""

    def __init__(self, folder, monkeypatch, library="tensorrt", **cuda):
        self.library, self.cuda = library, FakeCuda(**cuda)
        self.trt = FakeTrt(self.cuda, library)
        install(monkeypatch, self.cuda, self.trt)
        self.bundle = load_bundle(folder)
        self.text = self.bundle.manifest.text
        self.graph = self.text.graphs["encode"]
        self.store = open_weights(self.bundle, self.text)
        self.device = CudaDevice(0, self.cuda)
        self.cache = PlanCache(folder.parent / "plans")
        self.weights = {}
        if self.graph.weights_as == "inputs":
            self.weights = {n: self.upload(b.numpy()) for n, b in self.store.of_graph(self.graph).items()}

    def upload(self, array):
        buffer = self.device.empty(array.shape, array.dtype.name)
        self.device.upload(buffer, array)
        return buffer

    def open(self, device=None, profile=PROFILE, weights=None, graph=None, **options):
        return open_session(
            self.library,
            self.bundle.path(self.graph.file),
            graph or self.graph,
            device or self.device,
            weight_root=self.bundle.weight_root,
            weights=weights or self.store,
            profile=profile,
            options={"cache": self.cache, **options},
        )

    def compute(self, session, x, **given):
        call = session.bind({}, {**(self.weights if session.graph.weights_as == "inputs" else {}), "x": self.upload(x)})
        call.run()
        return self.device.download(call["y"])

    def did(self, what):
        return sum(1 for event in self.trt.log if event[0] == what)


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def gpu(request, bundle_folder, monkeypatch):
    return Gpu(bundle_folder, monkeypatch, request.param)


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def test_every_context_of_an_engine_that_gathers_has_the_communicator(gpu):
    session = gpu.open(gather=Gather(2, ("y",)), communicator=0x5EED)
    for count in (3, 5, 3):
        gpu.compute(session, rows(count))
    assert gpu.did("context") == gpu.did("communicator") == 2
    assert gpu.trt.builds[0].gather == Gather(2, ("y",))
    gpu.trt.connects = False
    with pytest.raises(BackendError, match="the communicator of its GPUs"):
        gpu.compute(session, rows(2))
    gpu.open()
    assert len(gpu.trt.builds) == 2, "a plan that gathers is not that of one GPU"


def test_a_session_computes_on_its_buffers(gpu):
    session = gpu.open()
    for count in (3, 5, 3):
        x = rows(count)
        np.testing.assert_allclose(gpu.compute(session, x), x @ W, rtol=1e-6, atol=1e-6)
    assert gpu.did("context") == 2  # one for each set of shapes
    (job,) = gpu.trt.builds
    assert (job.library, job.precision, job.profile, job.block) == (gpu.library, "float32", PROFILE, None)
    assert job.target == (Target(("8.9",), "Fake 9000", 128) if gpu.library == "tensorrt" else Target(("8.9",)))


def test_a_second_session_takes_the_plan_of_the_first(gpu):
    gpu.open()
    gpu.open()
    assert len(gpu.trt.builds) == 1 and gpu.trt.loaded == 2


def test_addresses_are_told_again_only_after_another_call(gpu):
    session = gpu.open()
    calls = [session.bind({"batch": 2}, gpu.weights) for _ in range(2)]
    told = len(calls[0].buffers)
    for call, expected in ((0, told), (0, 0), (1, told), (1, 0), (0, told)):
        before = gpu.did("address")
        calls[call].run()
        assert gpu.did("address") - before == expected


def test_running_waits_for_nothing_and_allocates_nothing(gpu):
    call = gpu.open().bind({"batch": 2}, gpu.weights)
    call.run()
    gpu.cuda.calls.clear()
    for _ in range(5):
        call.run()
    assert not gpu.cuda.calls


def test_sessions_share_scratch_that_grows(gpu):
    """The first context is told of the new memory when it runs next."""
    small, large = gpu.open(), gpu.open()
    gpu.trt.scratch_bytes = 100
    first = small.bind({"batch": 1}, gpu.weights)
    first.run()
    size, key = gpu.device.scratch.nbytes, small.capture_key
    second = large.bind({"batch": 8}, gpu.weights)
    assert gpu.device.scratch.nbytes > size and small.capture_key != key
    for call in (first, second, first):
        call.run()
    gpu.device.scratch.drop()
    first.run()
    gpu.device.synchronize()


def test_axes_outside_the_profile(gpu):
    session = gpu.open()
    with pytest.raises(ShapeError, match=r"axis 'batch': the engine takes 1 to 8, got 9.*--profile text.batch=1:9:9"):
        session.bind({"batch": 9}, gpu.weights)


def test_it_needs_a_gpu(gpu):
    with pytest.raises(BackendError, match=f"backend '{gpu.library}': it runs on an NVIDIA GPU, got device 'cpu'"):
        gpu.open(device=HostDevice())


def test_a_library_that_is_absent(gpu, monkeypatch):
    def absent(name):
        raise BackendError(f"{name} cannot be imported; pip install 'worldrt[gpu]'")

    monkeypatch.setattr(_trt, "load_library", absent)
    with pytest.raises(BackendError, match="cannot be imported; pip install"):
        gpu.open()


def test_a_plan_of_the_cache_that_is_refused_is_built_again_once(gpu, caplog):
    gpu.open()
    gpu.trt.reject = lambda plan: "the plan is of another GPU" if len(gpu.trt.builds) == 1 else None
    x = rows(2)
    np.testing.assert_allclose(gpu.compute(gpu.open(), x), x @ W, rtol=1e-6, atol=1e-6)
    assert len(gpu.trt.builds) == 2 and "refuses to load it: the plan is of another GPU" in caplog.text


def test_a_fresh_plan_that_is_refused_is_an_error(gpu):
    gpu.trt.reject = lambda plan: "the driver is too old"
    with pytest.raises(
        BackendError, match="loading the plan of text/encode with .* on Fake 9000 failed: the driver is"
    ):
        gpu.open()
    assert len(gpu.trt.builds) == 1


def test_memory_that_is_short_when_loading_builds_nothing_again(gpu):
    gpu.open()
    gpu.trt.reject = lambda plan: "CUDA out of memory"
    with pytest.raises(DeviceMemoryError, match="out of memory. What helps: --offload"):
        gpu.open()
    assert len(gpu.trt.builds) == 1


def test_weights_that_do_not_fit_are_found_before_loading(gpu):
    gpu.trt.weight_bytes = 1 << 40
    with pytest.raises(
        DeviceMemoryError, match="loading text/encode: cuda:0: out of memory: asked for 1099.51 GB more"
    ):
        gpu.open()
    assert not gpu.trt.loaded


def test_weights_of_an_engine_count_as_held(gpu):
    gpu.trt.weight_bytes = 5000
    before = gpu.device.held_bytes
    session = gpu.open()
    assert gpu.device.held_bytes == before + 5000
    del session
    assert gpu.device.held_bytes == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "z"}, "'[xz]' is in one of them only"),
        ({"dtype": "float16"}, r"tensor 'x' of text/encode: expected x float32\[batch, 4\], got HALF"),
        ({"shape": ["batch", 5]}, r"got FLOAT\[-1, 5\]"),
        ({"shape": [4]}, r"got FLOAT\[4\]"),
    ],
)
def test_an_engine_that_is_not_of_the_graph(gpu, change, text):
    build = gpu.trt._load

    def other(content, logger):
        engine = build(content, logger)
        spec = engine.inputs.pop("x")
        spec = replace(spec, **{k: tuple(v) if k == "shape" else v for k, v in change.items()})
        engine.inputs[spec.name] = spec
        return engine

    gpu.trt._load = other
    with pytest.raises(BackendError, match=text):
        gpu.open()


def test_a_run_that_the_library_refuses(gpu):
    call = gpu.open().bind({"batch": 2}, gpu.weights)
    gpu.trt.fail_run = "an illegal memory access was encountered"
    with pytest.raises(BackendError, match="running text/encode failed: an illegal memory access"):
        call.run()
    gpu.trt.fail_run = "OutOfMemory (no further information)"
    with pytest.raises(DeviceMemoryError, match="What helps: --offload"):
        call.run()


@pytest.mark.parametrize("bundle_folder", ["inputs"], indirect=True)
def test_constants_take_the_place_of_weight_inputs(gpu):
    constants = constants_of(gpu.graph, gpu.store, 0)
    session = gpu.open(constants=constants, block=0)
    x = rows(3)
    np.testing.assert_allclose(gpu.compute(session, x), x @ W, rtol=1e-6, atol=1e-6)
    assert gpu.trt.builds[0].constants == constants and session.graph.weights == ()


class OtherWeights(WeightStore):
    """A store that has another tensor in the place of the only one."""

    def __getitem__(self, key):
        return SimpleNamespace(
            pointer=OTHER.ctypes.data, shape=OTHER.shape, dtype="float32", nbytes=OTHER.nbytes, owner=OTHER
        )

    def others(self, graph):
        return graph.weights


OTHER = np.ascontiguousarray(W[::-1] * 2)


@pytest.mark.parametrize("bundle_folder", ["external"], indirect=True)
@pytest.mark.parametrize("options", [BuildOptions(refit=True), BuildOptions(strip=True)])
def test_weights_are_refitted_by_name(gpu, options):
    x = rows(3)
    plain = gpu.open(build=options)
    np.testing.assert_allclose(gpu.compute(plain, x), x @ W, rtol=1e-6, atol=1e-6)
    other = gpu.open(build=options, weights=OtherWeights(gpu.store.root, gpu.store.owner))
    np.testing.assert_allclose(gpu.compute(other, x), x @ OTHER, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gpu.compute(plain, x), x @ W, rtol=1e-6, atol=1e-6)
    assert len(gpu.trt.builds) == 1


def test_streamed_weights_get_what_scratch_and_buffers_leave(gpu):
    """1000 bytes can be streamed; each shape shares the memory anew; a budget that holds all is no streaming."""
    gpu.trt.scratch_bytes = 10
    options = BuildOptions(weight_streaming=True)
    session = gpu.open(build=options)
    x = gpu.upload(rows(2))
    y = gpu.device.empty((2, 3), "float32")
    held = gpu.device.held_bytes
    need = 10 * (8 + 12 * bool(gpu.weights)) + 100
    gpu.device.limit_bytes = held + need + 300
    call = session.bind({}, {**gpu.weights, "x": x, "y": y})
    assert gpu.trt.log[-2:] == [("budget", 300), ("context", "text/encode")]
    assert gpu.device.held_bytes == gpu.device.limit_bytes
    assert "streamed" in session.capture_refusal
    call.run()
    np.testing.assert_allclose(gpu.device.download(y), rows(2) @ W, rtol=1e-6, atol=1e-6)


def test_streaming_that_is_not_needed_can_be_captured(gpu):
    session = gpu.open(build=BuildOptions(weight_streaming=True))
    session.bind({"batch": 2}, gpu.weights).run()
    assert ("budget", 1000) in gpu.trt.log and session.capture_refusal is None


def test_rtx_keeps_what_it_compiled(bundle_folder, monkeypatch):
    """Beside the plan; what is of another driver is not taken."""
    gpu = Gpu(bundle_folder, monkeypatch, "tensorrt_rtx")
    call = gpu.open().bind({"batch": 2}, gpu.weights)
    (plan,) = gpu.cache.folder.glob("*.plan")
    place = plan.with_suffix(".jit")
    assert not place.exists()
    call.run()
    assert place.read_bytes() == b"kernels" and place.stat().st_mode & 0o77 == 0
    gpu.trt.compiled = b"kernels and more"
    call.run()
    assert place.read_bytes() == b"kernels"  # only a first run compiles
    place.write_bytes(b"of another driver")
    gpu.open().bind({"batch": 2}, gpu.weights).run()
    assert place.read_bytes() == b"kernels and more"


def test_rtx_is_asked_whether_a_context_can_be_captured(bundle_folder, monkeypatch):
    gpu = Gpu(bundle_folder, monkeypatch, "tensorrt_rtx")
    session = gpu.open()
    session.bind({"batch": 2}, gpu.weights).run()
    assert session.capture_refusal is None
    next(iter(session._ready.values())).trt.capturable = False
    assert "cannot be captured" in session.capture_refusal
