"""Pickled checkpoints become safetensors: the same values, once, safely, in little memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from worldrt.engine.errors import CheckpointError, OutputError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.export.convert import to_safetensors


@pytest.fixture
def source(tmp_path):
    """An official file: both weight sets, several dtypes, a dead entry, a view, a scalar."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    tensors = {
        "net.a": torch.randn(3, 5).bfloat16(),
        "net.b": torch.randn(7, dtype=torch.float64),
        "net.view": base.T,
        "net.steps": torch.tensor(7),
        "net.empty": torch.zeros(0, 4),
        "net.attn._extra_state": io.BytesIO(b"nothing"),
        "net_ema.a": torch.randn(3, 5).bfloat16(),
    }
    torch.save(tensors, tmp_path / "model.pt")
    return tmp_path / "model.pt", tensors


def test_same_values_without_prefix(source):
    path, tensors = source
    twin = to_safetensors(path)
    assert twin == path.with_suffix(".safetensors")
    loaded = load_file(twin)
    assert set(loaded) == {"a", "b", "view", "steps", "empty"}
    for key, value in loaded.items():
        assert value.dtype == tensors[f"net.{key}"].dtype and torch.equal(value, tensors[f"net.{key}"])
    for tensor in SafetensorsFile.open(twin).tensors.values():
        assert tensor.nbytes == 0 or tensor.offset % (tensor.nbytes // max(1, loaded[tensor.key].numel())) == 0


def test_averaged_weights(source):
    path, tensors = source
    assert torch.equal(load_file(to_safetensors(path, ema=True))["a"], tensors["net_ema.a"])
    assert to_safetensors(path) != to_safetensors(path, ema=True)
    torch.save({"net.a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="no averaged weights"):
        to_safetensors(path, ema=True)


def test_converted_once_until_the_source_changes(source):
    path, _ = source
    twin = to_safetensors(path)
    before = twin.stat().st_mtime_ns
    assert to_safetensors(path).stat().st_mtime_ns == before
    torch.save({"net.a": torch.ones(2)}, path)
    assert torch.equal(load_file(to_safetensors(path))["a"], torch.ones(2))


def test_wrapped_and_old_formats(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "step": 3}, tmp_path / "wrapped.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("wrapped.pth", "old.pt"):
        assert torch.equal(load_file(to_safetensors(tmp_path / name))["a"], torch.ones(2))


class _Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_code_in_a_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net.a": torch.ones(2), "net.b": _Evil()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        to_safetensors(tmp_path / "model.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_damaged_files_and_foreign_twins(source, tmp_path):
    path, _ = source
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged|more than tensors"):
            to_safetensors(path)
    path.write_bytes(whole)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="expected a dictionary"):
        to_safetensors(tmp_path / "list.pt")
    to_safetensors(path).rename(tmp_path / "mine.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, path.with_suffix(".safetensors"))
    with pytest.raises(OutputError, match="--convert_to"):
        to_safetensors(path)
    assert torch.equal(load_file(path.with_suffix(".safetensors"))["a"], torch.ones(1))


def test_another_folder_when_beside_is_not_writable(source, tmp_path, monkeypatch):
    path, _ = source
    (tmp_path / "out").mkdir()
    assert to_safetensors(path, folder=tmp_path / "out").parent.name == "out"
    import tempfile

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*--convert_to"):
        to_safetensors(path, ema=True)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """200 MB in pieces of 10 MB, in a process of its own."""
    torch.save(
        {f"net.{i}": torch.full((5_000_000,), i, dtype=torch.bfloat16) for i in range(20)}, tmp_path / "model.pt"
    )
    code = (
        "import resource, sys; from pathlib import Path; from worldrt.export.convert import to_safetensors\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); to_safetensors(Path(sys.argv[1])); print(peak() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt")], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 60_000, f"{run.stdout} kB above the imports"
