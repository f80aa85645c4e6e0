"""`trt-run inspect` on a bundle with one real graph, and on damaged ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from worldrt.engine.bundle import Graph, Manifest, Text, Weight, Weights, file_sha256, write_manifest
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import fingerprint
from worldrt.runtime.cli import main

onnx = pytest.importorskip("onnx")


@pytest.fixture
def folder(tmp_path):
    """text = float(ids) W, with W as an input."""
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    make = onnx.helper
    nodes = [make.make_node("Cast", ["ids"], ["x"], to=float32), make.make_node("MatMul", ["x", "w"], ["text"])]
    inputs = [
        make.make_tensor_value_info("ids", int64, ["batch", 4]),
        make.make_tensor_value_info("w", float32, [4, 3]),
    ]
    graph = make.make_graph(nodes, "g", inputs, [make.make_tensor_value_info("text", float32, ["batch", 3])])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)
    root, folder = tmp_path / "root", tmp_path / "bundle"
    root.mkdir()
    folder.mkdir()
    (folder / "encode.onnx").write_bytes(model.SerializeToString())
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": np.ones((4, 3), np.float32)}, root / "w.safetensors")
    entry = Graph(
        "encode.onnx",
        file_sha256(folder / "encode.onnx"),
        (TensorSpec("ids", "int64", ("batch", 4)),),
        (TensorSpec("text", "float32", ("batch", 3)),),
        "inputs",
        (Weight("w", "w", "float32", (4, 3)),),
    )
    weights = Weights(str(root), {"w.safetensors": fingerprint(root / "w.safetensors", full=True)})
    files = {"tokenizer.json": file_sha256(folder / "tokenizer.json")}
    text = Text("float32", ("w.safetensors",), {"encode": entry}, "tokenizer.json", 8, 3)
    write_manifest(folder, Manifest(1, "toy", "tiny", {}, weights, {}, text=text, files=files))
    return folder


def test_whole(folder, capsys):
    assert main(["inspect", str(folder), "--full"]) == 0
    printed = capsys.readouterr().out
    assert "toy tiny" in printed and "fit, hashed" in printed and "ids int64[batch, 4]" in printed
    assert main(["inspect", str(folder), "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["components"]["text"]
    assert text["graphs"]["encode"]["state"] == "yes" and text["weights"]["problem"] is None
    assert text["graphs"]["encode"]["inputs"] == [{"name": "ids", "dtype": "int64", "shape": ["batch", 4]}]


def test_a_graph_for_a_gpu_is_sound(folder, capsys):
    """ONNX Runtime has no bfloat16 MatMul on a CPU, which is no fault of the bundle."""
    bfloat16, int64, make = onnx.TensorProto.BFLOAT16, onnx.TensorProto.INT64, onnx.helper
    nodes = [make.make_node("Cast", ["ids"], ["x"], to=bfloat16), make.make_node("MatMul", ["x", "w"], ["text"])]
    inputs = [
        make.make_tensor_value_info("ids", int64, ["batch", 4]),
        make.make_tensor_value_info("w", bfloat16, [4, 3]),
    ]
    graph = make.make_graph(nodes, "g", inputs, [make.make_tensor_value_info("text", bfloat16, ["batch", 3])])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)
    (folder / "encode.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["text"]["graphs"]["encode"]["sha256"] = file_sha256(folder / "encode.onnx")
    (folder / "bundle.json").write_text(json.dumps(manifest))
    assert main(["inspect", str(folder), "--json"]) == 0
    encode = json.loads(capsys.readouterr().out)["components"]["text"]["graphs"]["encode"]
    assert (encode["state"], encode["problem"]) == ("sound, not for a CPU", None)


def damaged(folder, capsys, text, *flags):
    assert main(["inspect", str(folder), *flags]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and text in errors[0], errors


def test_weights_are_missing_or_others(folder, capsys):
    file = folder.parent / "root" / "w.safetensors"
    save_file({"w": np.zeros((4, 3), np.float32)}, file)
    assert main(["inspect", str(folder)]) == 0  # the same header
    damaged(folder, capsys, "content changed", "--full")
    save_file({"w": np.ones((4, 4), np.float32)}, file)
    damaged(folder, capsys, "not the weights")
    file.unlink()
    damaged(folder, capsys, "missing")


def test_a_graph_that_does_not_load(folder, capsys):
    (folder / "encode.onnx").write_bytes(b"no graph")
    damaged(folder, capsys, "changed since the export")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["text"]["graphs"]["encode"]["sha256"] = file_sha256(folder / "encode.onnx")
    (folder / "bundle.json").write_text(json.dumps(manifest))
    damaged(folder, capsys, "ONNX Runtime refuses")


def test_no_bundle(tmp_path, capsys):
    damaged(tmp_path, capsys, "no bundle here")
