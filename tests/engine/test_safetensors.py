import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldrt.engine.errors import CheckpointError
from worldrt.engine.safetensors import SafetensorsFile


@pytest.fixture
def stored(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "a.weight": torch.randn(3, 5),
        "b": torch.randn(7).to(torch.bfloat16),
        "empty": torch.empty(0, 4),
        "ids": torch.arange(4),
        "scalar": torch.tensor(2.5, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors", tensors


def test_tensors_are_those_that_the_library_wrote(stored):
    path, tensors = stored
    file = SafetensorsFile.open(path)
    assert set(file.tensors) == set(tensors)
    assert file.metadata == {"format": "pt"}
    for key, tensor in tensors.items():
        expected = (
            tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
        )
        np.testing.assert_array_equal(file[key].numpy(), expected)
    assert file["b"].dtype == "bfloat16"


def test_mapped_tensors_are_read_only_and_outlive_their_file_object(stored):
    path, tensors = stored
    view = SafetensorsFile.open(path)["a.weight"].numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    np.testing.assert_array_equal(view, tensors["a.weight"].numpy())


def test_unknown_key(stored):
    with pytest.raises(CheckpointError, match="holds no tensor 'c'"):
        SafetensorsFile.open(stored[0])["c"]


def test_a_truncated_file_says_so(stored):
    path, _ = stored
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"cut short: expected {len(whole)} bytes, got {len(whole) - 1}"):
        SafetensorsFile.open(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(CheckpointError, match="longer than its header says"):
        SafetensorsFile.open(path)
    path.write_bytes(whole[:20])
    with pytest.raises(CheckpointError, match="not a safetensors file, or cut short"):
        SafetensorsFile.open(path)


@pytest.mark.parametrize(
    "header",
    [
        b"[1, 2]",
        b"{nonsense",
        json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0], "data_offsets": [0, 0]}}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}).encode(),
        json.dumps({"a": 1, "__metadata__": 5}).encode(),
        json.dumps({"__metadata__": 5}).encode(),
        json.dumps({"__metadata__": {"format": 5}}).encode(),
        json.dumps({"__metadata__": ["format"]}).encode(),
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "I32", "shape": [1], '
        b'"data_offsets": [0, 4]}}',
        b"[" * 50_000,
    ],
)
def test_a_damaged_header_says_so(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(CheckpointError, match="header is damaged"):
        SafetensorsFile.open(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", "."):
        with pytest.raises(CheckpointError, match="not a file"):
            SafetensorsFile.open(tmp_path / name)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="not a name of a file"):
        SafetensorsFile.open(tmp_path / "a\0b.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        SafetensorsFile.open(tmp_path / "none.safetensors")
