"""Zero-copy: what a graph refers to is the checkpoint's own bytes, wherever it lies, whatever its dtype."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file

from worldrt.engine.bundle import Bundle
from worldrt.engine.errors import BundleError, CheckpointError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.weights import WeightStore
from worldrt.export import trace, weights
from worldrt.export.check import check_graph
from worldrt.export.verify import as_tensor, random_inputs, run_graph, run_module, verify_graph

AXES = {"batch": 1, "rows": 3, "columns": 2, "frames": 4}


def write(toy, store, path, weights_as="external", dtype=torch.float32):
    source = trace.distinct(toy.source(dtype))
    model = trace.export_onnx(source)
    used = weights.used_weights(model, weights.stored_weights(source, store))
    weights.bind(model, used, store, weights_as)
    ir.save(model, path)
    return source, weights.described(path.name, "", source, used, weights_as)


def test_initializers_are_references_into_the_file(toy, tmp_path):
    store = toy.store(tmp_path)
    write(toy, store, tmp_path / "graph.onnx")
    proto = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    raw = (tmp_path / "sub" / "toy.safetensors").read_bytes()
    assert {t.name for t in proto.graph.initializer if t.data_location} == set(toy.source().weights)
    for tensor in proto.graph.initializer:
        if not tensor.data_location:
            assert len(tensor.raw_data) <= 64, tensor.name
            continue
        place = {e.key: e.value for e in tensor.external_data}
        assert place["location"] == "sub/toy.safetensors" and not tensor.raw_data
        begin = int(place["offset"])
        expected = as_tensor(store[f"net.{tensor.name}"])
        found = np.frombuffer(raw[begin : begin + int(place["length"])], np.float32).reshape(expected.shape)
        assert (found == expected.numpy()).all() and tuple(tensor.dims) == expected.shape
    assert not {v.name for v in proto.graph.input} & set(toy.source().weights)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weights_as", ["external", "inputs"])
def test_any_storage_computes_in_float32(toy, tmp_path, stored, weights_as):
    """Weights keep their dtype in the file or at the input; a Cast follows."""
    store = toy.store(tmp_path, stored)
    source, graph = write(toy, store, tmp_path / "graph.onnx", weights_as)
    assert {w.dtype for w in graph.weights} == {str(stored).removeprefix("torch.")}
    check_graph(tmp_path / "graph.onnx", tmp_path)
    inputs = random_inputs(source.inputs, AXES)
    loaded = {w.name: store[w.key] for w in graph.weights}
    expected = run_module(source, inputs, loaded)
    actual = run_graph(graph, tmp_path / "graph.onnx", inputs, loaded, tmp_path)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)


def test_graph_and_weights_may_lie_apart_and_behind_links(toy, tmp_path):
    """A hub cache: the file is a link out of its folder, into a store beside it."""
    hub = tmp_path / "models--x"
    toy.store(hub / "blobs")
    snapshot = hub / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/sub/toy.safetensors")
    file = SafetensorsFile.open(snapshot / "model.safetensors")
    root = weights.external_root(snapshot, [file.path])
    assert root == hub
    elsewhere = tmp_path / "bundle"
    elsewhere.mkdir()
    store = WeightStore(root, dict.fromkeys(file.tensors, file))
    source, graph = write(toy, store, elsewhere / "graph.onnx")
    check_graph(elsewhere / "graph.onnx", root)
    inputs = random_inputs(source.inputs, AXES)
    actual = run_graph(graph, elsewhere / "graph.onnx", inputs, {}, root)
    expected = run_module(source, inputs, {w.name: store[w.key] for w in graph.weights})
    np.testing.assert_allclose(actual["next_state"], expected["next_state"], rtol=1e-5, atol=1e-6)


def test_a_reference_beside_a_tensor_is_found(toy, tmp_path):
    store = toy.store(tmp_path)
    write(toy, store, tmp_path / "graph.onnx")
    proto = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.data_location)
    entry = next(e for e in tensor.external_data if e.key == "offset")
    entry.value = str(int(entry.value) + 4)
    onnx.save(proto, tmp_path / "graph.onnx")
    with pytest.raises(BundleError, match="no tensor of its shape"):
        check_graph(tmp_path / "graph.onnx", tmp_path)


def test_missing_foreign_and_uneven_tensors_are_refused(toy, tmp_path):
    store = toy.store(tmp_path)
    source = toy.source()
    absent = replace(source, weights=source.weights | {"first.bias": "net.third.bias"})
    with pytest.raises(CheckpointError, match=r"no tensor 'net\.third\.bias'; is it another model"):
        weights.stored_weights(absent, store)
    foreign = replace(source, weights=source.weights | {"second.weight": "net.first.weight"})
    with pytest.raises(CheckpointError, match=r"expected float32\[8, 16\], got float32\[16, 8\]"):
        weights.stored_weights(foreign, store)


def test_blocks_must_be_alike(toy, tmp_path):
    """One graph serves all blocks, so all of them have one dtype."""
    blocks = {f"{i}.{name}": value for i in range(3) for name, value in toy.Module().state_dict().items()}
    save_file(blocks | {"2.first.bias": blocks["2.first.bias"].half()}, tmp_path / "m.safetensors")
    file = SafetensorsFile.open(tmp_path / "m.safetensors")
    store = WeightStore(tmp_path, dict.fromkeys(file.tensors, file))
    source = replace(toy.source(), weights={name: f"{{i}}.{name}" for name in toy.source().weights})
    assert len(weights.stored_weights(source, store, instances=(0, 1))) == 3
    with pytest.raises(CheckpointError, match=r"'2\.first\.bias': expected float32\[16\], got float16\[16\]"):
        weights.stored_weights(source, store, instances=(0, 1, 2))
    with pytest.raises(CheckpointError, match=r"no tensor '3\.first"):
        following = replace(source, weights={n: f"{{j}}.{n}" for n in source.weights})
        weights.stored_weights(following, store, instances=(0, 1, 2))


def test_graphs_of_wrong_types_are_found(toy, tmp_path):
    """A weight of another dtype without its Cast."""
    store = toy.store(tmp_path, torch.float16)
    write(toy, store, tmp_path / "graph.onnx", "inputs")
    proto = onnx.load(tmp_path / "graph.onnx")
    (cast,) = (n for n in proto.graph.node if n.op_type == "Cast" and n.input[0] == "first.weight")
    for node in proto.graph.node:
        node.input[:] = ["first.weight" if name == cast.output[0] else name for name in node.input]
    proto.graph.node.remove(cast)
    onnx.save(proto, tmp_path / "graph.onnx")
    with pytest.raises(BundleError, match="not a valid ONNX graph"):
        check_graph(tmp_path / "graph.onnx", tmp_path)


def test_bfloat16_graphs_are_verified_by_their_shadow(toy, tmp_path):
    """The shadow computes in float32 on the bfloat16 weights: it agrees better than bfloat16 ever could."""
    store = toy.store(tmp_path, torch.bfloat16)
    source, graph = write(toy, store, tmp_path / "graph.onnx", dtype=torch.bfloat16)
    bundle = Bundle(tmp_path, None, tmp_path)
    rows = verify_graph(bundle, graph, source, store, AXES)
    assert len(rows) == 3 and all(row.passed and row.difference.relative < 1e-6 for row in rows)
    shifted = replace(source, module=_Shifted(source.module))
    shifted = replace(shifted, weights={f"module.{k}": v for k, v in source.weights.items()})
    renamed = replace(graph, weights=tuple(replace(w, name=f"module.{w.name}") for w in graph.weights))
    assert not all(row.passed for row in verify_graph(bundle, renamed, shifted, store, AXES))


class _Shifted(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        first, *rest = self.module(*inputs)
        return first * 1.01, *rest
