"""Plans by TensorRT-RTX on the CPU, and everything that goes wrong while one is built."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from worldrt.engine import build_child
from worldrt.engine.build import build_plan, check_job
from worldrt.engine.builder import find_unsupported
from worldrt.engine.bundle import Graph, Weight, file_sha256
from worldrt.engine.constants import constants_of, with_constants
from worldrt.engine.errors import BackendError, BundleError, InputError, OutputError, ShapeError, UnsupportedError
from worldrt.engine.plans import BuildJob, BuildOptions, Constant, Range, Target
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.schema import decode, encode
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import WeightStore

W = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


def write_onnx(path, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("elsewhere", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def make_job(path, graph, **changes):
    job = BuildJob(
        "tensorrt_rtx", graph, path, path.parent, "float32", {"batch": Range(1, 2, 4)}, Target(("8.9", "12.0"))
    )
    return replace(job, **changes)


@pytest.fixture
def job(tmp_path):
    """y = x W, with the weight as an input."""
    path = tmp_path / "toy.onnx"
    tensors = [("x", TensorProto.FLOAT, ["batch", 64]), ("w", TensorProto.FLOAT, [64, 32])]
    y = ("y", TensorProto.FLOAT, ["batch", 32])
    write_onnx(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")], tensors, [y])
    graph = Graph(
        "toy.onnx",
        file_sha256(path),
        (TensorSpec("x", "float32", ("batch", 64)),),
        (TensorSpec("y", "float32", ("batch", 32)),),
        "inputs",
        (Weight("w", "layers.{i}.w", "float32", (64, 32)),),
    )
    return make_job(path, graph)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Puts a module `tensorrt` of some lines of Python where the child finds it."""

    def put(body, version="10.16.0"):
        folder = tmp_path / "library"
        folder.mkdir()
        (folder / "tensorrt.py").write_text(f"__version__ = {version!r}\n{body}")
        monkeypatch.syspath_prepend(str(folder))

    return put


LOGGER = """
import os, sys, time
class ILogger:
    def __init__(self): pass
"""


def plan_of(job, tmp_path, **options):
    return build_plan(replace(job, library="tensorrt"), tmp_path / "out" / "toy.plan", **options)


def leftovers(tmp_path):
    return sorted(p.name for p in (tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else []


# what a build makes


def test_a_build_makes_a_plan_and_says_what_it_took(job, tmp_path):
    seen = []
    report = build_plan(job, tmp_path / "out" / "toy.plan", progress=lambda text, done: seen.append((text, done)))
    plan = (tmp_path / "out" / "toy.plan").read_bytes()
    assert leftovers(tmp_path) == ["toy.plan"]
    assert len(plan) == report.plan_bytes > 1000
    assert report.seconds > 0 and report.peak_rss_bytes > 50e6 and report.weight_bytes is not None
    assert [line.split()[0] for line in report.layers if "multiply" in line] == ["gemm"]
    assert all(0 <= a[1] <= b[1] <= 1 for a, b in pairwise(seen)) and seen[0][0]
    assert decode(type(report), encode(report)) == report


def test_the_memory_of_a_build_is_not_that_of_the_process_that_asks_for_it(job, tmp_path):
    """What this process holds must not show: it is more than a small build needs."""
    ballast = np.ones(600_000_000, np.uint8)
    report = build_plan(job, tmp_path / "toy.plan")
    assert 50e6 < report.peak_rss_bytes < ballast.nbytes


def test_weight_inputs_become_constants_by_reference(job, tmp_path):
    """The builder reads them from the checkpoint: the same graph with W inside, by the onnx package, is the oracle."""
    tensors = {"other": np.ones(3, np.float32), "layers.0.w": W * 0, "layers.1.w": W}
    save_file(tensors, tmp_path / "w ü.safetensors")
    file = SafetensorsFile.open(tmp_path / "w ü.safetensors")
    store = WeightStore(tmp_path, dict.fromkeys(file.tensors, file))
    (constant,) = constants_of(job.graph, store, block=1)
    values = np.fromfile(tmp_path / constant.file, np.float32, 64 * 32, offset=constant.offset)
    assert constant.nbytes == W.nbytes and np.array_equal(values.reshape(64, 32), W)

    merged = onnx.load_model_from_string(with_constants(job.path.read_bytes(), [constant]))
    onnx.external_data_helper.load_external_data_for_model(merged, str(tmp_path))
    (initializer,) = merged.graph.initializer
    assert initializer.name == "w" and np.array_equal(numpy_helper.to_array(initializer), W)

    inside = tmp_path / "inside.onnx"
    model = onnx.load_model(job.path)
    model.graph.initializer.append(numpy_helper.from_array(W, "w"))
    inside.write_bytes(model.SerializeToString())
    by_reference, by_value = tmp_path / "a.plan", tmp_path / "b.plan"
    report = build_plan(replace(job, constants=(constant,), block=1), by_reference)
    expected = build_plan(replace(job, path=inside, graph=replace(job.graph, weights=())), by_value)
    assert report.weight_bytes == expected.weight_bytes > 0
    assert (report.plan_bytes, report.layers) == (expected.plan_bytes, expected.layers)
    assert W.tobytes() in by_reference.read_bytes()


def test_varints_are_those_of_protobuf(job, tmp_path):
    constant = Constant("w", "bfloat16", (300, 1, 70000), "a/b.safetensors", 2**40 + 5, 300 * 70000 * 2)
    tensor = onnx.load_model_from_string(with_constants(job.path.read_bytes(), [constant])).graph.initializer[0]
    assert list(tensor.dims) == [300, 1, 70000] and tensor.data_type == TensorProto.BFLOAT16
    assert {entry.key: entry.value for entry in tensor.external_data} == {
        "location": "a/b.safetensors",
        "offset": str(2**40 + 5),
        "length": str(300 * 70000 * 2),
    }
    assert tensor.data_location == TensorProto.EXTERNAL


@pytest.mark.parametrize(("dtype", "fused"), [("float16", True), ("bfloat16", True), ("float32", False)])
def test_attention_is_fused_where_there_is_a_kernel_and_decomposed_where_there_is_none(tmp_path, dtype, fused):
    kind = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT}[dtype]
    shape = ("batch", 4, "length", 64)
    entries = [(name, kind, list(shape)) for name in "qkv"]
    path = tmp_path / "attention.onnx"
    write_onnx(path, [helper.make_node("Attention", list("qkv"), ["y"], name="attend")], entries, [("y", kind, shape)])
    specs = tuple(TensorSpec(name, dtype, shape) for name in "qkv")
    graph = Graph("attention.onnx", "", specs, (TensorSpec("y", dtype, shape),), "external", ())
    profile = {"batch": Range(1, 2, 2), "length": Range(16, 256, 1024)}
    report = build_plan(make_job(path, graph, profile=profile, precision=dtype), tmp_path / "attention.plan")
    kernels = [line for line in report.layers if "_gemm_mha" in line]
    assert bool(kernels) is fused
    assert fused or any(line.startswith("gemm") or "Soft" in line or "Exp" in line for line in report.layers)


# what is wrong with a graph or an order


def test_every_node_that_cannot_be_taken_is_named(tmp_path):
    path = tmp_path / "odd.onnx"
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], name="the mystery", domain="elsewhere"),
        helper.make_node("Unique", ["a"], ["u"], name="the set"),
        helper.make_node("Relu", ["a"], ["y"], name="fine"),
    ]
    x, y = (("x", TensorProto.FLOAT, ["batch"]), ("y", TensorProto.FLOAT, ["batch"]))
    write_onnx(path, nodes, [x], [y])
    spec = TensorSpec("x", "float32", ("batch",))
    odd = make_job(path, Graph("odd.onnx", "", (spec,), (replace(spec, name="y"),), "external", ()))
    found = {(f.node, f.operator) for f in check_job(odd)}
    assert found == {("the mystery", "Mystery"), ("the set", "Unique")} and all(f.reason for f in check_job(odd))
    with pytest.raises(UnsupportedError, match=r"'the mystery' \(Mystery\): .+; node 'the set' \(Unique\): "):
        build_plan(odd, tmp_path / "odd.plan")
    assert not (tmp_path / "odd.plan").exists()


def test_a_sound_graph_passes_the_check(job):
    assert check_job(job) == ()


def test_a_weight_root_that_the_library_cannot_name_is_an_error_of_one_line(job, tmp_path):
    odd = replace(job, weight_root=tmp_path / "caf\udce9")
    for ask in (check_job, lambda job: build_plan(job, tmp_path / "out" / "toy.plan")):
        with pytest.raises(BundleError, match="UTF-8; give it another name") as error:
            ask(odd)
        assert len(str(error.value)) < 500


def test_an_error_that_quotes_a_whole_graph_is_cut(job, monkeypatch):
    def refuse(parser, job):
        raise TypeError(f"incompatible arguments: {b'x' * 100_000!r}")

    monkeypatch.setattr("worldrt.engine.builder.parse", refuse)
    with pytest.raises(BackendError, match="incompatible arguments") as error:
        find_unsupported(pytest.importorskip("tensorrt_rtx"), job, lambda severity, text: None)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"profile": {}}, ShapeError, "no range for the axes batch"),
        ({"target": Target(("9.0",))}, UnsupportedError, r"9\.0: tensorrt_rtx \S+ builds ahead of time for .*8\.9"),
        ({"target": Target(())}, UnsupportedError, "compute capability none"),
        ({"options": BuildOptions(hardware_compatible=True)}, UnsupportedError, "'hardware_compatible'.*--compute_cap"),
        ({"options": BuildOptions(optimization_level=9)}, InputError, "expected 0 to 5, got 9"),
        ({"options": BuildOptions(version_compatible=True)}, BackendError, "lean runtime"),
    ],
)
def test_orders_that_cannot_be_carried_out(job, tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        build_plan(replace(job, **changes), tmp_path / "out" / "toy.plan")
    assert leftovers(tmp_path) == []


def test_a_check_is_also_of_the_named_gpus_and_options(job):
    with pytest.raises(UnsupportedError, match=r"9\.0: tensorrt_rtx \S+ builds ahead of time for"):
        check_job(replace(job, target=Target(("9.0",))))
    with pytest.raises(UnsupportedError, match="'hardware_compatible'"):
        check_job(replace(job, options=BuildOptions(hardware_compatible=True)))
    assert check_job(replace(job, target=Target(()))) == ()


def test_a_graph_that_is_not_the_recorded_one_is_refused(job, tmp_path):
    other = replace(job.graph, outputs=(TensorSpec("y", "float16", ("batch", 32)),))
    with pytest.raises(BundleError, match="output 'y': the bundle says HALF of 2 dimensions, the graph has FLOAT"):
        build_plan(replace(job, graph=other), tmp_path / "toy.plan")
    other = replace(job.graph, inputs=(*job.graph.inputs, TensorSpec("z", "float32", (1,))))
    with pytest.raises(BundleError, match="input 'z': .* the graph has none of that name"):
        build_plan(replace(job, graph=other), tmp_path / "toy.plan")
    (tmp_path / "empty.onnx").write_bytes(b"no ONNX")
    with pytest.raises(BackendError, match=r"cannot take .*empty\.onnx"):
        build_plan(replace(job, path=tmp_path / "empty.onnx"), tmp_path / "toy.plan")
    with pytest.raises(BundleError, match="cannot be read"):
        build_plan(replace(job, path=tmp_path / "nowhere.onnx"), tmp_path / "toy.plan")
    with pytest.raises(BundleError, match="cannot be read"):
        check_job(replace(job, path=tmp_path / "nowhere.onnx"))


# libraries that are not there, too old, or break


def test_a_missing_library_says_what_to_install(job, tmp_path, library):
    library("raise ImportError('no such library')")
    with pytest.raises(BackendError, match=r"tensorrt cannot be imported.*pip install 'worldrt\[gpu\]'"):
        plan_of(job, tmp_path)


def test_a_library_that_is_too_old_is_refused(job, tmp_path, library):
    library("", version="10.14.1.48")
    with pytest.raises(BackendError, match=r"expected version 10\.15 or newer, got 10\.14\.1\.48"):
        plan_of(job, tmp_path)


def test_tensorrt_without_a_gpu_points_to_the_library_that_needs_none(job, tmp_path, library):
    library(LOGGER + "def Builder(logger): raise TypeError('factory function returned nullptr')")
    with pytest.raises(BackendError, match="factory function returned nullptr"):
        plan_of(job, tmp_path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os.write(2, b'last words\\n'); os.abort()", r"crashed \(SIGABRT\)\. It said last: last words"),
        ("os.kill(os.getpid(), 11)", r"crashed \(SIGSEGV\)"),
        ("os.kill(os.getpid(), 9)", "process was killed, mostly because memory ran out"),
        ("os._exit(3)", r"crashed \(exit code 3\)"),
        ("os.write(2, b'terminate called: std::bad_alloc\\n'); os.abort()", r"out of memory \(SIGABRT\)"),
        ("print('{}'); sys.stdout.flush(); os._exit(0)", r"crashed \(exit code 0\). It said last: \{\}"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); bytearray(1 << 30)",
            "out of mem",
        ),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_child_that_breaks_is_an_error_message(job, tmp_path, library, body, says):
    library(LOGGER + f"def Builder(logger):\n    {body}")
    with pytest.raises(BackendError, match=says) as caught:
        plan_of(job, tmp_path)
    assert "building toy" in str(caught.value) or "out of memory" in str(caught.value)
    assert leftovers(tmp_path) == []


def limited(limits, script):
    """Run a script under resource limits."""
    code = f"import resource\nfor n, v in {limits!r}: resource.setrlimit(n, (v, v))\n" + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


SCRIPT = """
import json, sys
from pathlib import Path
from worldrt.engine import build_child
from worldrt.engine.build import build_plan
from worldrt.engine.plans import BuildJob
from worldrt.engine.schema import decode
try:
    build_plan(decode(BuildJob, json.loads({job!r})), Path({plan!r}))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_plan_that_cannot_be_written_leaves_nothing(job, tmp_path):
    """A limit of the size of files stands for a disk that fills up in the middle of the plan."""
    resource = pytest.importorskip("resource")
    script = SCRIPT.format(job=json.dumps(encode(job)), plan=str(tmp_path / "out" / "toy.plan"))
    run = limited([(resource.RLIMIT_FSIZE, 2000)], script)
    assert run.stdout.startswith("OutputError") and "toy.plan: cannot be written" in run.stdout, run.stdout + run.stderr
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_said_as_such(job, tmp_path, library):
    library(LOGGER + "def Builder(logger):\n    raise OSError(28, 'No space left on device')")
    with pytest.raises(OutputError, match="the disk is full"):
        plan_of(job, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_place_that_cannot_be_written_is_found_before_anything_is_built(job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        build_plan(job, tmp_path / "file" / "toy.plan")


# cancelling


def test_cancelling_stops_the_real_builder(job, tmp_path):
    def stop(text, done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(job, tmp_path / "out" / "toy.plan", progress=stop)
    assert leftovers(tmp_path) == []


# a builder that neither returns nor asks whether to go on
HANGS = (
    LOGGER
    + """
def Builder(logger):
    sys.modules["__main__"].GRACE_S = 0.2
    with open({pid!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
"""
)


@pytest.fixture
def hanging(job, tmp_path, library):
    """A process that waits for such a builder, and the builder's process id."""
    library(HANGS.format(pid=str(tmp_path / "pid")))
    code = SCRIPT.format(
        job=json.dumps(encode(replace(job, library="tensorrt"))), plan=str(tmp_path / "out" / "p.plan")
    )
    code = "from worldrt.engine import child\nchild.GRACE_S = 0.3\n" + code
    code += "except KeyboardInterrupt:\n    print('interrupted')\n"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "library")}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env, text=True) as parent:
        assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        yield parent, int((tmp_path / "pid").read_text())
        parent.kill()


def alive(pid):
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
class TestABuilderThatHangs:
    def test_is_killed_on_ctrl_c_after_a_time_of_grace(self, hanging, tmp_path):
        parent, builder = hanging
        parent.send_signal(signal.SIGINT)
        assert parent.communicate(timeout=20)[0] == "interrupted\n"
        assert not alive(builder) and leftovers(tmp_path) == []

    def test_ends_itself_when_its_parent_is_killed(self, hanging):
        parent, builder = hanging
        parent.kill()
        assert wait_for(lambda: not alive(builder)), "an orphan"


def test_the_gpu_that_a_plan_is_for_is_made_the_current_one(monkeypatch):
    first, second = Target(("8.9",), "A", 10), Target(("9.0",), "B", 20)
    opened = []

    def open_device(name):
        opened.append(name)
        if len(opened) > 2:
            raise BackendError("this machine has 2 CUDA device(s)")
        return SimpleNamespace(name=name, target=(first, second)[len(opened) - 1])

    monkeypatch.setattr(build_child, "open_device", open_device)
    assert build_child.choose_gpu(Target(("8.9",))) is None and opened == []
    assert build_child.choose_gpu(second).target is second and opened == ["cuda:0", "cuda:1"]
    opened.clear()
    with pytest.raises(BackendError, match="the plan is for B; GPUs here: cuda:0, cuda:1"):
        build_child.choose_gpu(replace(second, sm_count=19))


def test_a_file_in_the_working_folder_is_not_taken_for_a_package(job, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    assert build_plan(replace(job, path=Path("toy.onnx"), weight_root=Path()), Path("toy.plan")).plan_bytes > 0
