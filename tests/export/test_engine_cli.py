"""What `trt-export` says of engines, with a bundle of one product of matrices."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from worldrt.engine.bundle import Graph, Manifest, Text, Weight, Weights, file_sha256, write_manifest
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import fingerprint
from worldrt.export import cli

pytestmark = pytest.mark.tensorrt
pytest.importorskip("tensorrt_rtx")

RTX = ("--backend", "tensorrt_rtx", "--compute_capability", "8.9")
GRAPH = "[/new]/encode.onnx"  # a name that rich would take for markup


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder, root = tmp_path / "bundle", tmp_path / "checkpoint"
    (folder / GRAPH).parent.mkdir(parents=True)
    root.mkdir()
    w = np.arange(12, dtype=np.float32).reshape(4, 3)
    save_file({"weight": w}, root / "w.safetensors")
    place = {"location": "w.safetensors", "length": "48"}
    place["offset"] = str((root / "w.safetensors").read_bytes().index(w.tobytes()))
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=w.shape, data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        stored.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 4), ("y", 3)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", [x], [y], [stored])
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(folder / GRAPH))
    (folder / "tokenizer.json").write_text("{}")
    record = Graph(
        GRAPH,
        file_sha256(folder / GRAPH),
        (TensorSpec("x", "float32", ("batch", 4)),),
        (TensorSpec("y", "float32", ("batch", 3)),),
        "external",
        (Weight("w", "weight", "float32", (4, 3)),),
    )
    files = {"w.safetensors": fingerprint(root / "w.safetensors")}
    text = Text("float32", tuple(files), {"encode": record}, "tokenizer.json", 512, 3)
    others = {"tokenizer.json": file_sha256(folder / "tokenizer.json")}
    write_manifest(folder, Manifest(1, "toy", "toy", {}, Weights(str(root), files), {}, text=text, files=others))
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[str, str]:
    assert cli.main([str(arg) for arg in args]) == code
    made = capsys.readouterr()
    return made.out, made.err


def test_a_check_without_the_weights_says_that_and_not_that_nodes_are_unsupported(bundle, capsys):
    assert "takes every node" in run(capsys, "--bundle", bundle, "--check")[0]
    (bundle.parent / "checkpoint" / "w.safetensors").unlink()
    out, err = run(capsys, "--bundle", bundle, "--check", code=2)
    assert "w.safetensors: this weight file is missing" in err and "encode" not in out


def test_names_are_printed_as_they_are(bundle, tmp_path, capsys):
    plans = tmp_path / "[bold]plans"
    out, _ = run(capsys, "--bundle", bundle, *RTX, "--plan_cache", plans)
    assert "[/new]/encode" in out and str(plans) in out
    out, _ = run(capsys, "cache", "ls", "--plan_cache", plans)
    assert "[/new]/encode" in out and str(plans) in out


def test_plans_that_do_not_fit_into_the_cache_together_are_told(bundle, tmp_path, capsys, monkeypatch):
    build = ("--bundle", bundle, *RTX, "12.0", "--plan_cache", tmp_path / "plans")
    monkeypatch.setenv("WORLDRT_PLAN_CACHE_GB", "0")
    _, err = run(capsys, *build)
    assert "1 of these plans had to go again" in err and "$WORLDRT_PLAN_CACHE_GB" in err
    monkeypatch.delenv("WORLDRT_PLAN_CACHE_GB")
    _, err = run(capsys, *build)
    assert "had to go" not in err and len([name for name in os.listdir(tmp_path / "plans") if ".plan" in name]) == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((*RTX, "--profile", "batch=1", "batch=2"), "profile 'batch=2': the axis 'batch' is named twice"),
        ((*RTX[:3], "1.20"), "expected numbers such as 8.9, got '1.20'"),
        ((*RTX[:3], "\N{ARABIC-INDIC DIGIT EIGHT}.9"), "expected numbers such as 8.9"),
        ((*RTX, "--device", "cuda:1"), "--device: with --compute_capability no GPU is looked at"),
        ((*RTX, "--checkpoint", "/nowhere"), "this weight file is missing"),
    ],
)
def test_wrong_flags_are_refused(bundle, tmp_path, capsys, args, says):
    out, err = run(capsys, "--bundle", bundle, *args, "--plan_cache", tmp_path / "plans", code=2)
    assert not out and says in err and len(err.strip().splitlines()) == 1
