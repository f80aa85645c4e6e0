"""Hashes of weights: remembered while a file is the same, and only then; and which bytes a graph refers to."""

import hashlib
import json
import os
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from worldrt.engine import content
from worldrt.engine.content import ContentHashes
from worldrt.engine.errors import BundleError, CheckpointError
from worldrt.engine.external import ExternalTensor, external_tensors
from worldrt.engine.protobuf import varint


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(range(256)) * 8)
    return path


@pytest.fixture
def later(monkeypatch):
    """As if it were a minute later: the file is no longer fresh."""
    now = content.time.time
    monkeypatch.setattr(content.time, "time", lambda: now() + 60)


@pytest.fixture
def reads(monkeypatch):
    """How often a range was read."""
    count = []
    real = content._hash
    monkeypatch.setattr(content, "_hash", lambda *args: count.append(1) or real(*args))
    return count


def test_a_hash_is_of_the_bytes_themselves(weights, monkeypatch):
    raw = weights.read_bytes()
    monkeypatch.setattr(content, "_CHUNK_BYTES", 100)
    hashes = ContentHashes()
    for offset, nbytes in ((0, 2048), (3, 1), (5, 0), (100, 777), (2000, 48), (7, None)):
        expected = hashlib.sha256(raw[offset:] if nbytes is None else raw[offset : offset + nbytes]).hexdigest()
        assert hashes.of(weights, offset, nbytes) == expected


def test_a_known_hash_is_not_read_again_by_the_next_process(weights, tmp_path, later, reads):
    first = ContentHashes(tmp_path / "memo.json")
    made = [first.of(weights, offset, 10) for offset in (0, 0, 300)]
    assert len(reads) == 2
    first.save()
    second = ContentHashes(tmp_path / "memo.json")
    assert [second.of(weights, offset, 10) for offset in (0, 0, 300)] == made
    assert len(reads) == 2


def test_two_processes_keep_what_both_have_learnt(weights, tmp_path, later, reads):
    one, two = ContentHashes(tmp_path / "memo.json"), ContentHashes(tmp_path / "memo.json")
    one.of(weights, 0, 10)
    two.of(weights, 10, 10)
    one.save()
    two.save()
    three = ContentHashes(tmp_path / "memo.json")
    three.of(weights, 0, 10)
    three.of(weights, 10, 10)
    assert len(reads) == 2


@pytest.mark.parametrize("how", ["in place, times put back", "replaced, times put back", "longer", "touched"])
def test_a_file_that_changed_is_read_again(weights, tmp_path, later, how):
    memo = tmp_path / "memo.json"
    hashes = ContentHashes(memo)
    hashes.of(weights, 0, 100)
    hashes.save()
    times, raw = weights.stat(), bytearray(weights.read_bytes())
    raw[50] ^= 1
    if how == "in place, times put back":
        with weights.open("r+b") as file:
            file.write(raw)
    elif how == "replaced, times put back":
        (tmp_path / "new").write_bytes(raw)
        os.replace(tmp_path / "new", weights)
    elif how == "longer":
        weights.write_bytes(raw + b"more")
    else:
        raw[50] ^= 1
    if how.endswith("back"):
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert ContentHashes(memo).of(weights, 0, 100) == hashlib.sha256(raw[:100]).hexdigest()


def test_a_file_that_was_written_just_now_is_not_remembered(weights, tmp_path, reads):
    """It may change again within one tick of the clock of its file system, and look the same."""
    hashes = ContentHashes(tmp_path / "memo.json")
    hashes.of(weights, 0, 10)
    hashes.of(weights, 0, 10)
    hashes.save()
    assert len(reads) == 2
    assert not (tmp_path / "memo.json").exists()


def test_a_file_that_changes_while_it_is_read_is_an_error(weights, monkeypatch):
    real = content._hash

    def slow(file, offset, nbytes):
        weights.write_bytes(b"x" * 5000)
        return real(file, offset, nbytes)

    monkeypatch.setattr(content, "_hash", slow)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        ContentHashes().of(weights, 0, 10)


def test_what_cannot_be_read_is_named(weights, tmp_path):
    with pytest.raises(CheckpointError, match="missing.bin: cannot be read"):
        ContentHashes().of(tmp_path / "missing.bin", 0, 1)
    with pytest.raises(CheckpointError, match="weights.bin: cut short"):
        ContentHashes().of(weights, 2000, 49)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"/x": 1}', '{"/x": {"identity": [1], "ranges": {}}}', "\0", "[" * 50_000]
)
def test_a_damaged_memory_is_forgotten(weights, tmp_path, later, text):
    memo = tmp_path / "memo.json"
    memo.write_text(text)
    hashes = ContentHashes(memo)
    assert hashes.of(weights, 0, 4) == hashlib.sha256(bytes([0, 1, 2, 3])).hexdigest()
    hashes.save()
    assert list(json.loads(memo.read_text())) == [str(weights)]


def test_files_that_are_gone_are_forgotten(weights, tmp_path, later):
    memo, other = tmp_path / "memo.json", tmp_path / "other.bin"
    other.write_bytes(b"other")
    for path in (weights, other):
        hashes = ContentHashes(memo)
        hashes.of(path, 0, 4)
        hashes.save()
        assert str(path) in json.loads(memo.read_text())
        weights.unlink(missing_ok=True)
    assert list(json.loads(memo.read_text())) == [str(other)]


def test_a_memory_that_cannot_be_written_is_no_error(weights, tmp_path, later):
    (tmp_path / "file").write_text("")
    hashes = ContentHashes(tmp_path / "file" / "memo.json")
    hashes.of(weights, 0, 4)
    hashes.save()


def external(name, **facts):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_all_external_tensors_are_found_wherever_a_graph_has_them(tmp_path):
    inline = helper.make_tensor("inline", TensorProto.FLOAT, [300], np.ones(300))
    inner = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])], "inner", [], [], [external("c", location="c")]
    )
    nodes = [
        helper.make_node("Constant", [], ["a"], value=external("a", location="a.bin", offset=1 << 40, length=16)),
        helper.make_node("If", ["p"], ["e"], then_branch=inner, else_branch=inner),
        helper.make_node("Scale", ["a"], ["b"], alpha=1.5, beta=[1, 2, -3]),
    ]
    sparse = helper.make_sparse_tensor(external("s", location="s"), external("i", location="i"), [4, 4])
    graph = helper.make_graph(nodes, "g", [], [], [inline, external("w", location="x/w", length=16)])
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    body = [helper.make_node("Constant", [], ["o"], value=external("f", location="f"))]
    model.functions.append(helper.make_function("d", "F", [], ["o"], body, model.opset_import))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert set(external_tensors(tmp_path / "m.onnx")) == {
        ExternalTensor("a", "a.bin", 1 << 40, 16),
        ExternalTensor("c", "c", 0, None),
        ExternalTensor("w", "x/w", 0, 16),
        *(ExternalTensor(name, name, 0, None) for name in "sif"),
    }


def graph_of(path, *tensors):
    graph = helper.make_graph([], "g", [], [], tensors)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())
    return path


def test_a_length_of_0_means_up_to_the_end_as_it_does_to_the_parsers(tmp_path):
    path = graph_of(tmp_path / "m.onnx", external("w", location="w", length=0))
    assert external_tensors(path) == (ExternalTensor("w", "w", 0, None),)


@pytest.mark.parametrize(
    "facts",
    [
        *({"offset": number} for number in ("-1", "x", "1_0", "9" * 30, "0x10")),
        *({"length": number} for number in ("-1", "x", "1_0", "9" * 30, " 16")),
    ],
    ids=str,
)
def test_places_that_cannot_be_are_refused(tmp_path, facts):
    path = graph_of(tmp_path / "m.onnx", external("w", location="w", **facts))
    with pytest.raises(BundleError, match="whole number"):
        external_tensors(path)


def test_a_tensor_in_two_places_is_refused(tmp_path):
    tensor = external("w", location="w")
    tensor.external_data.add(key="location", value="v")
    with pytest.raises(BundleError, match="'w' has two places"):
        external_tensors(graph_of(tmp_path / "m.onnx", tensor))


def test_graphs_that_are_nested_too_deeply_are_refused(tmp_path):
    raw = b""
    for _ in range(1000):
        for number in (6, 5, 1):  # attribute.g, node.attribute, graph.node
            raw = bytes([number << 3 | 2]) + varint(len(raw)) + raw
    (tmp_path / "m.onnx").write_bytes(bytes([7 << 3 | 2]) + varint(len(raw)) + raw)
    with pytest.raises(BundleError, match="recursion"):
        external_tensors(tmp_path / "m.onnx")


def test_of_a_real_graph_all_weights_are_found(bundle_folder):
    path = bundle_folder / "text" / "encode.onnx"
    initializers = onnx.load(path, load_external_data=False).graph.initializer
    assert [tensor.name for tensor in external_tensors(path)] == [tensor.name for tensor in initializers]


@pytest.mark.parametrize("cut", [0, 1, 5, 20, -1, -7])
def test_a_damaged_graph_is_an_error_of_one_line(bundle_folder, tmp_path, cut):
    raw = (bundle_folder / "text" / "encode.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(raw[:cut] if cut else b"")
    with pytest.raises(BundleError, match=re.escape(str(tmp_path / "m.onnx"))):
        external_tensors(tmp_path / "m.onnx")


def test_a_file_that_is_no_graph_is_an_error(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 4000)
    with pytest.raises(BundleError, match="not an ONNX file"):
        external_tensors(tmp_path / "m.onnx")
    with pytest.raises(BundleError, match="cannot be read"):
        external_tensors(tmp_path / "missing.onnx")
