"""An ONNX graph as a network of TensorRT or TensorRT-RTX. The module of either is handed in as `trt`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worldrt.engine.bundle import Weight
from worldrt.engine.collectives import add_gathers
from worldrt.engine.constants import with_constants
from worldrt.engine.errors import BackendError, BundleError, UnsupportedError
from worldrt.engine.plans import BuildJob
from worldrt.engine.tensors import TensorSpec

# members of DataType
DATA_TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "int64": "INT64",
    "int32": "INT32",
    "int8": "INT8",
    "uint8": "UINT8",
    "bool": "BOOL",
}
_LARGEST_FUSED_HEAD = 256


@dataclass(frozen=True)
class Finding:
    """A node of a graph that a library cannot take."""

    node: str
    operator: str
    reason: str


def parse_network(trt: Any, builder: Any, logger: Any, job: BuildJob) -> tuple[Any, Any]:
    """The network of a job, and the parser that owns its weights and must outlive it.

    Raises `UnsupportedError` that names every node which the library cannot take, `BackendError` where the graph cannot
    be read, `BundleError` where it is not the one that the bundle describes.
    """
    network = builder.create_network(strongly_typed(trt))
    network.name = job.name
    parser = trt.OnnxParser(network, logger)
    if not parse(parser, job):
        raise _refused(job, parser)
    _check_interface(trt, network, job)
    allow_decomposition(trt, network)
    add_gathers(trt, network, job)
    return network, parser


def parse(parser: Any, job: BuildJob) -> bool:
    """Have a parser read a graph; whether it takes all of it. Raises `BundleError` where there is no such file, or one
    whose weights it could not open."""
    place = str(job.weight_root / "graph.onnx")  # external data lies beside such a file
    if any("\ud800" <= character <= "\udfff" for character in place):  # how Python holds bytes that are no text
        raise BundleError(
            f"{job.weight_root}: {job.library} opens only files with a name in UTF-8; give it another name"
        )
    try:
        onnx = with_constants(job.path.read_bytes(), job.constants)
    except OSError as error:
        raise BundleError(f"{job.path}: cannot be read: {error.strerror}") from error
    return bool(parser.parse(onnx, path=place))


def findings(parser: Any) -> tuple[Finding, ...]:
    """What a parser has against a graph."""
    listed = (parser.get_error(i) for i in range(parser.num_errors))
    return tuple(Finding(error.node_name(), error.node_operator(), _reason(error)) for error in listed)


def strongly_typed(trt: Any) -> int:
    """The creation flags of a network whose types are those of the graph. A library without the flag has no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def allow_decomposition(trt: Any, network: Any) -> None:
    """Let attentions that no fused kernel exists for (float32; heads of more than 256) become several layers.

    All others stay whole: where one cannot be fused, the build fails instead of needing memory for all scores.
    """
    for layer in attention_inputs(trt, network):
        if _unfused(trt, layer.get_input(0)):
            layer.attention.decomposable = True


def attention_inputs(trt: Any, network: Any) -> Iterator[Any]:
    """The layers that hold an attention: their inputs 0, 1 and 2 are q, k and v. None in old versions."""
    kind = getattr(trt.LayerType, "ATTENTION_INPUT", None)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if kind is not None and layer.type == kind:
            if not hasattr(layer, "attention"):
                layer.__class__ = trt.IAttentionInputLayer  # the bindings give a plain ILayer
            yield layer


def _unfused(trt: Any, query: Any) -> bool:
    """Whether attention over a query (batch, heads, length, size) has no fused kernel in any version."""
    return query.dtype == trt.DataType.FLOAT or int(query.shape[-1]) > _LARGEST_FUSED_HEAD


def _refused(job: BuildJob, parser: Any) -> BackendError:
    found = findings(parser)
    codes = [parser.get_error(i).code().name for i in range(parser.num_errors)]
    nodes = "; ".join(f"node '{f.node}' ({f.operator}): {f.reason}" for f in found) or "no reason given"
    lacks = any(finding.node and not code.startswith("MODEL") for finding, code in zip(found, codes, strict=True))
    kind = UnsupportedError if lacks else BackendError
    return kind(f"{job.library} cannot take {job.path}: {nodes}. Run it with --backend onnxruntime, or export it anew")


def _reason(error: Any) -> str:
    """The words of an error; a failed check of the parser's own code says less than its code's name does."""
    words = str(error.desc()).strip()
    code = error.code().name.lower().replace("_", " ")
    return f"{code}: {words}" if words not in ("", "false") else code


def _check_interface(trt: Any, network: Any, job: BuildJob) -> None:
    """The parsed graph against the bundle's record: plans are bound by address, so a wrong dtype would be misread."""
    constants = {constant.name for constant in job.constants}
    weights = job.graph.weights if job.graph.weights_as == "inputs" else ()
    inputs: list[TensorSpec | Weight] = [*job.graph.inputs, *(w for w in weights if w.name not in constants)]
    _check_side(trt, job, "input", inputs, [network.get_input(i) for i in range(network.num_inputs)])
    _check_side(trt, job, "output", job.graph.outputs, [network.get_output(i) for i in range(network.num_outputs)])


def _check_side(trt: Any, job: BuildJob, side: str, recorded: Any, found: list[Any]) -> None:
    actual = {tensor.name: (tensor.dtype, len(tensor.shape)) for tensor in found}
    expected = {spec.name: (_data_type(trt, spec.dtype), len(spec.shape)) for spec in recorded}
    for name in [*expected, *actual]:
        if actual.get(name) != expected.get(name):
            raise BundleError(
                f"{job.path}: {side} '{name}': the bundle says {_words(expected.get(name))}, the graph has "
                f"{_words(actual.get(name))}; export the bundle again"
            )


def _data_type(trt: Any, dtype: str) -> Any:
    return getattr(trt.DataType, DATA_TYPES.get(dtype, dtype.upper()), None)


def _words(entry: tuple[Any, int] | None) -> str:
    return "none of that name" if entry is None else f"{getattr(entry[0], 'name', entry[0])} of {entry[1]} dimensions"
