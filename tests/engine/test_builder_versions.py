"""The one builder with the names that each version of TensorRT has, by modules that record what they are told.

Names and numbers are those of the bindings of each version (tests/golden/tensorrt); what is not in a version is not in
its module here, so that a use of it fails as it would there.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from worldrt.engine.backends._library import LEAST, version_numbers
from worldrt.engine.builder import build
from worldrt.engine.bundle import Graph, Weight
from worldrt.engine.errors import BackendError, UnsupportedError
from worldrt.engine.plans import BuildJob, BuildOptions, Range, Target
from worldrt.engine.tensors import TensorSpec

GRAPH = Graph(
    "video2world/block.onnx",
    "",
    (
        TensorSpec("x", "float32", ("batch", 16, "frames", "2*rows")),
        TensorSpec("fixed", "bfloat16", (4,)),
        TensorSpec("text", "float16", ("batch", "text")),
    ),
    (TensorSpec("y", "uint8", ("batch", "8*rows")),),
    "inputs",
    (Weight("w", "w.{i}", "bfloat16", (8, 8)),),
)
PROFILE = {"batch": Range(1, 2, 2), "frames": Range(1, 5, 24), "rows": Range(3, 4, 5), "text": Range(512, 512, 512)}
LISTING = """Engine Layer Information:
Name: dit.node_linear, LayerType: gemm, Inputs: [ { Name: a, Dimensions: [-1,8], Datatype: BFloat16 }], \
Constants: [ { Name: w, Dimensions: [8,8], Datatype: BFloat16 }], \
Outputs: [ { Name: b, Dimensions: [-1,8], Datatype: Half }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: n]"""
NAMES = json.loads((Path(__file__).parents[1] / "golden" / "tensorrt" / "names.json").read_text())
VERSIONS = list(NAMES)


class Enum(enum.Enum):
    """As the bindings have it: a name, a value, and `int()`."""

    def __int__(self):
        return self.value


def members(version, kind, without=()):
    return Enum(kind, {name: value for name, value in NAMES[version][kind].items() if name not in without})


class Config:
    """A configuration that has the attributes of its version, and takes only members of its own library's enums."""

    def __init__(self, trt):
        self.told = SimpleNamespace(
            trt=trt, set=set(), cleared=set(), pools={}, profiles=[], capabilities={}, timing_cache=None
        )

    def __setattr__(self, name, value):
        assert name == "told" or name in self.told.trt.attributes["IBuilderConfig"], f"no IBuilderConfig.{name}"
        super().__setattr__(name, value)

    @property
    def trt(self):
        return self.told.trt

    def set_flag(self, flag):
        assert isinstance(flag, self.trt.BuilderFlag)
        self.told.set.add(flag)

    def clear_flag(self, flag):
        assert isinstance(flag, self.trt.BuilderFlag)
        self.told.cleared.add(flag)

    def set_memory_pool_limit(self, pool, nbytes):
        assert isinstance(pool, self.trt.MemoryPoolType)
        self.told.pools[pool.name] = nbytes

    def add_optimization_profile(self, profile):
        self.told.profiles.append(profile.shapes)
        return len(self.told.profiles) - 1

    def create_timing_cache(self, content):
        if content.startswith(b"damaged"):
            return None
        return SimpleNamespace(content=content, serialize=lambda: content + b"+measured")

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.told.timing_cache = cache
        return not cache.content.startswith(b"foreign")

    def get_timing_cache(self):
        return self.told.timing_cache

    def set_compute_capability(self, capability, index):
        assert isinstance(capability, self.trt.ComputeCapability) and index < self.num_compute_capabilities
        self.told.capabilities[index] = capability.name
        return True


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, best, largest):
        self.shapes[name] = (least, best, largest)


class Layer:
    """What `get_layer` gives: a plain layer, which can be told to be an attention's input layer."""

    def __init__(self, kind, query=None):
        self.type, self._query, self._attention = kind, query, SimpleNamespace(decomposable=False)

    def get_input(self, index):
        return self._query if index == 0 else SimpleNamespace(name=f"input {index}")

    def get_output(self, index):
        return SimpleNamespace(name="output")


class AttentionInputLayer(Layer):
    @property
    def attention(self):
        return self._attention


def tensor(name, dtype, rank, last=-1):
    return SimpleNamespace(name=name, dtype=dtype, shape=(*[-1] * (rank - 1), last))


class Network:
    def __init__(self, trt, flags):
        self.flags, types = flags, trt.DataType
        self.inputs = [
            tensor("x", types.FLOAT, 4),
            tensor("fixed", types.BF16, 1, 4),
            tensor("text", types.HALF, 2),
            tensor("w", types.BF16, 2),
        ]
        self.outputs = [tensor("y", types.UINT8, 2)]
        attention = trt.LayerType.ATTENTION_INPUT
        self.layers = [
            Layer(trt.LayerType.CONVOLUTION),
            Layer(attention, tensor("q32", types.FLOAT, 4, 64)),
            Layer(attention, tensor("q16", types.BF16, 4, 128)),
            Layer(attention, tensor("wide", types.HALF, 4, 384)),
            Layer(attention, tensor("open", types.HALF, 4, -1)),
        ]
        self.num_inputs, self.num_outputs, self.num_layers = len(self.inputs), 1, len(self.layers)
        self.get_input, self.get_output = self.inputs.__getitem__, self.outputs.__getitem__
        self.get_layer = self.layers.__getitem__


class Plan(bytes):
    @property
    def nbytes(self):
        return len(self)


def make_library(version, *, without=(), says=(("VERBOSE", LISTING),), plan=Plan(b"plan")):  # noqa: B008
    """The module of a version. `without`: builder flags that it lacks too. `says`: its messages while it builds."""
    trt = SimpleNamespace(__version__=version, told=SimpleNamespace(), attributes=NAMES[version])
    for kind, listed in NAMES[version].items():
        if isinstance(listed, dict):
            setattr(trt, kind, members(version, kind, without if kind == "BuilderFlag" else ()))
    trt.ILogger, trt.IProgressMonitor = type("ILogger", (), {}), type("IProgressMonitor", (), {})
    trt.IAttentionInputLayer = AttentionInputLayer

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            trt.told.network = Network(trt, flags)
            return trt.told.network

        def create_builder_config(self):
            trt.told.config = Config(trt)
            return trt.told.config

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            for severity, text in says:
                self.logger.log(SimpleNamespace(name=severity), text)
            monitor = config.progress_monitor
            monitor.phase_start("outer", None, 2)
            monitor.phase_start("inner", "outer", 4)
            going = [monitor.step_complete("inner", i) for i in range(4)]
            monitor.phase_finish("inner")
            going.append(monitor.step_complete("outer", 0))
            return plan if all(going) else None

    class OnnxParser:
        num_errors = 0

        def __init__(self, network, logger):
            pass

        def parse(self, content, path):
            trt.told.parsed = (content, path)
            return True

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            inspector = SimpleNamespace(get_engine_information=lambda form: LISTING.replace("dit", form.name))
            return SimpleNamespace(create_engine_inspector=lambda: inspector)

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, OnnxParser, Runtime
    return trt


def make_rtx(version="1.7.1.116"):
    """TensorRT-RTX: the names of TensorRT, and some of its own (those of 1.7)."""
    trt = make_library(VERSIONS[-1])
    flags = {**NAMES[VERSIONS[-1]]["BuilderFlag"], "REQUIRE_USER_ALLOCATION": 99}
    own = ["num_compute_capabilities", "set_compute_capability"]
    trt.attributes = {**trt.attributes, "IBuilderConfig": [*trt.attributes["IBuilderConfig"], *own]}
    trt.BuilderFlag, trt.__version__ = Enum("BuilderFlag", flags), version
    trt.ComputeCapability = Enum("ComputeCapability", {"NONE": 0, "CURRENT": -1, "SM75": 75, "SM89": 89, "SM120": 120})
    return trt


def flags(trt, *names):
    return {trt.BuilderFlag[name] for name in names}


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "block.onnx"
    path.write_bytes(b"onnx")
    here = Target(("9.0",), "NVIDIA H100", 132)
    return lambda **changes: BuildJob(
        **{
            "library": "tensorrt",
            "graph": GRAPH,
            "path": path,
            "weight_root": tmp_path / "weights",
            "precision": "bfloat16",
            "profile": PROFILE,
            "target": here,
            **changes,
        }
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_told_the_same(job, tmp_path, version):
    trt = make_library(version)
    options = BuildOptions(2, 10**9, version_compatible=True, refit=True, weight_streaming=True)
    plan, report = build(trt, job(options=options))
    config, network = trt.told.config, trt.told.network
    assert config.told.set == flags(trt, "VERSION_COMPATIBLE", "REFIT", "WEIGHT_STREAMING")
    assert config.told.cleared == flags(trt, "TF32")
    assert config.builder_optimization_level == 2 and config.told.pools == {"WORKSPACE": 10**9}
    assert config.max_aux_streams == 0 and config.profiling_verbosity.name == "DETAILED"
    assert not hasattr(config, "hardware_compatibility_level") and not hasattr(config, "num_compute_capabilities")
    assert config.told.profiles == [
        {
            "x": ((1, 16, 1, 6), (2, 16, 5, 8), (2, 16, 24, 10)),
            "text": ((1, 512), (2, 512), (2, 512)),
        }
    ]
    assert network.flags == (2 if version.startswith("10.") else 1)  # 1 << STRONGLY_TYPED
    assert trt.told.parsed == (b"onnx", str(tmp_path / "weights" / "graph.onnx"))
    assert plan == b"plan" and report.plan_bytes == 4
    assert report.layers == ("gemm dit.node_linear: a BFloat16[-1,8] -> b Half[-1,8]",)


@pytest.mark.parametrize("version", VERSIONS)
def test_only_attention_without_a_fused_kernel_may_be_decomposed(job, version):
    trt = make_library(version)
    build(trt, job())
    layers = [layer for layer in trt.told.network.layers if layer._query is not None]
    assert {layer._query.name: layer._attention.decomposable for layer in layers} == {
        "q32": True,
        "q16": False,
        "wide": True,
        "open": False,
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (BuildOptions(), ()),
        (BuildOptions(strip=True), ("STRIP_PLAN", "REFIT_IDENTICAL")),
        (BuildOptions(strip=True, refit=True), ("STRIP_PLAN", "REFIT")),
    ],
)
def test_what_may_be_refitted(job, version, options, expected):
    trt = make_library(version)
    build(trt, job(options=options))
    assert trt.told.config.told.set == flags(trt, *expected)


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("refit", "REFIT"),
        ("strip", "STRIP_PLAN"),
        ("weight_streaming", "WEIGHT_STREAMING"),
        ("version_compatible", "VERSION_COMPATIBLE"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_option_that_a_version_lacks_is_named(job, version, option, flag):
    trt = make_library(version, without=(flag, "WEIGHTLESS"))
    name = "strip_plan" if option == "strip" else option
    with pytest.raises(UnsupportedError, match=rf"option '{name}': tensorrt {version} has no BuilderFlag\.{flag}"):
        build(trt, job(options=BuildOptions(**{option: True})))


@pytest.mark.parametrize(
    ("lacks", "chosen"), [(("SAME_COMPUTE_CAPABILITY",), "AMPERE_PLUS"), ((), "SAME_COMPUTE_CAPABILITY")]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_hardware_compatibility_as_near_as_the_library_has_it(job, version, lacks, chosen):
    trt = make_library(version)
    trt.HardwareCompatibilityLevel = members(version, "HardwareCompatibilityLevel", lacks)
    build(trt, job(options=BuildOptions(hardware_compatible=True)))
    assert trt.told.config.hardware_compatibility_level.name == chosen


def test_timings_are_taken_from_and_kept_in_their_file(job, tmp_path):
    file = tmp_path / "timing.cache"
    build(make_library(VERSIONS[2]), job(), timing_cache=file)
    assert file.read_bytes() == b"+measured"
    build(make_library(VERSIONS[2]), job(), timing_cache=file)
    assert file.read_bytes() == b"+measured+measured"
    for odd in (b"damaged", b"foreign"):
        file.write_bytes(odd)
        build(make_library(VERSIONS[2]), job(), timing_cache=file)
        assert file.read_bytes() == b"+measured"


def test_timings_that_cannot_be_kept_cost_a_warning_and_no_plan(job, tmp_path):
    (tmp_path / "file").write_text("")
    plan, report = build(make_library(VERSIONS[2]), job(), timing_cache=tmp_path / "file" / "timing.cache")
    assert plan == b"plan" and "timings are not kept: " in report.warnings[0]


def test_layers_come_from_the_inspector_where_the_log_has_none(job):
    _, report = build(make_library(VERSIONS[-1], says=()), job())
    assert report.layers == ("gemm ONELINE.node_linear: a BFloat16[-1,8] -> b Half[-1,8]",)


def test_memory_and_warnings_are_read_from_the_log(job):
    says = [
        ("INFO", "Max Scratch Memory: 100 bytes"),
        ("INFO", "Total Activation Memory: 300 bytes"),
        ("INFO", "Total Weights Memory: 7 bytes"),
        ("WARNING", "mind this"),
        ("WARNING", "mind this"),
        ("WARNING", "ModelImporter.cpp:1071: Make sure input ids has Int64 binding."),
    ]
    _, report = build(make_library(VERSIONS[2], says=says), job())
    assert (report.scratch_bytes, report.activation_bytes, report.weight_bytes) == (100, 300, 7)
    assert report.warnings == ("mind this",)


def test_progress_is_a_part_of_the_whole_and_can_cancel(job):
    seen = []
    build(make_library(VERSIONS[2]), job(), progress=lambda text, done: not seen.append((text, done)))
    assert seen == [*(("inner", (i + 1) / 8) for i in range(4)), ("outer", 0.5)]
    with pytest.raises(BackendError):
        build(make_library(VERSIONS[2]), job(), progress=lambda text, done: False)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("Error Code 10: Could not find any implementation for node n.", UnsupportedError, "has no kernel for it"),
        ("Attention operation was not supported by a dedicated kernel", UnsupportedError, "has no kernel for it"),
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", BackendError, "out of memory.*--workspace_gb"),
        ("Error Code 1: Myelin (Unexpected exception std::bad_alloc In compileGraph)", BackendError, "out of memory"),
        ("Error Code 1: Myelin (something)", BackendError, r"cannot build it: .*Myelin \(something\)"),
    ],
)
def test_a_failed_build_says_why(job, text, error, says):
    with pytest.raises(error, match=says) as caught:
        build(make_library(VERSIONS[2], says=[("ERROR", text)], plan=None), job())
    assert type(caught.value) is error and text in str(caught.value)


def test_tensorrt_needs_the_gpu_that_it_builds_for(job):
    with pytest.raises(BackendError, match="--backend tensorrt_rtx --compute_capability"):
        build(make_library(VERSIONS[2]), job(target=Target(("8.9",))))


@pytest.mark.parametrize(
    ("target", "capabilities"),
    [(Target(("12.0", "8.9")), {0: "SM120", 1: "SM89"}), (Target(("9.0",), "NVIDIA H100", 132), {0: "CURRENT"})],
)
def test_tensorrt_rtx_is_told_what_to_build_for(job, target, capabilities):
    trt = make_rtx()
    build(trt, job(library="tensorrt_rtx", target=target))
    assert trt.told.config.told.capabilities == capabilities
    assert trt.told.config.num_compute_capabilities == len(capabilities)
    assert trt.told.config.told.set == flags(trt, "REQUIRE_USER_ALLOCATION")


def test_versions_are_compared_as_numbers():
    assert version_numbers("10.9.0") < LEAST["tensorrt"] <= version_numbers("10.15") < version_numbers(VERSIONS[-1])
    assert version_numbers("1.4.0.76rc1") == (1, 4, 0) and version_numbers("") == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_ins_have_nothing_that_the_bindings_lack(version):
    def public(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    trt = make_library(version)
    rtx = {"set_compute_capability"}
    assert public(Config) - rtx - {"trt"} <= set(trt.attributes["IBuilderConfig"])
    assert public(trt.Builder) <= set(trt.attributes["Builder"])
    assert public(trt.OnnxParser) | {"get_error"} <= set(trt.attributes["OnnxParser"])
    assert {"code", "desc", "node_name", "node_operator"} <= set(trt.attributes["ParserError"])
    assert {"decomposable", "normalization_quantize_to_type"} <= set(trt.attributes["IAttention"])
