"""A one-graph bundle: y = x W for the rows of a batch, in both ways of holding the weight."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from worldrt.engine.bundle import Graph, Manifest, Text, Weight, Weights, file_sha256, write_manifest
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import fingerprint

W = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def write_graph(path, external: bool, offset: int) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    w = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3])
    stored = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "model/weights.safetensors"), ("offset", str(offset)), ("length", "48")):
        stored.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [x] if external else [x, w],
        [y],
        initializer=[stored] if external else [],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


@pytest.fixture(params=["inputs", "external"])
def bundle_folder(tmp_path, request):
    root, folder = tmp_path / "checkpoint", tmp_path / "bundle"
    (root / "model").mkdir(parents=True)
    (folder / "text").mkdir(parents=True)
    save_file({"layer.0.weight": W, "other": np.ones(2, np.float32)}, root / "model" / "weights.safetensors")
    raw = (root / "model" / "weights.safetensors").read_bytes()
    write_graph(folder / "text" / "encode.onnx", request.param == "external", raw.index(W.tobytes()))
    (folder / "text" / "tokenizer.json").write_text("{}")
    graph = Graph(
        "text/encode.onnx",
        file_sha256(folder / "text" / "encode.onnx"),
        (TensorSpec("x", "float32", ("batch", 4)),),
        (TensorSpec("y", "float32", ("batch", 3)),),
        request.param,
        (Weight("w", "layer.{i}.weight", "float32", (4, 3)),),
    )
    files = {"model/weights.safetensors": fingerprint(root / "model" / "weights.safetensors", full=True)}
    text = Text("float32", tuple(files), {"encode": graph}, "text/tokenizer.json", 512, 3)
    tokenizer = {"text/tokenizer.json": file_sha256(folder / "text" / "tokenizer.json")}
    write_manifest(folder, Manifest(1, "toy", "nano", {}, Weights(str(root), files), {}, text=text, files=tokenizer))
    return folder
