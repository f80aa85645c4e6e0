"""Pickled checkpoints to safetensors, once: tensor by tensor, with nothing of the file's size in memory."""

from __future__ import annotations

import ctypes
import io
import json
import mmap
import pickle
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from worldrt.engine.errors import CheckpointError, OutputError
from worldrt.engine.files import staged_file
from worldrt.engine.safetensors import SafetensorsFile

PICKLED = (".pt", ".pth", ".bin")
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_WRAPPERS = ("state_dict", "model", "module")


def to_safetensors(source: Path, *, ema: bool = False, folder: Path | None = None) -> Path:
    """The safetensors twin of a pickled checkpoint, made if it is not there yet, beside it or in `folder`.

    Of the two weight sets that official files may hold, `net.` or (with `ema`) `net_ema.` is taken, without its prefix.
    A twin is used again while size and time of the source agree with those it was made from. Raises `CheckpointError`
    for a file that cannot be loaded as plain tensors, `OutputError` where the twin cannot be written.
    """
    twin = (folder or source.parent) / f"{source.stem}{'.ema' if ema else ''}.safetensors"
    origin = _origin(source)
    if twin.exists():
        found = SafetensorsFile.open(twin).metadata
        if "source" not in found:
            raise OutputError(f"{twin} exists and was not made from {source}; give another place with --convert_to")
        if found == origin:
            return twin
    state, mapped = _load(source)
    tensors = _chosen(source, state, ema)
    need = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        with staged_file(twin, overwrite=True) as part, part.open("wb") as file:
            _check_space(twin, need)
            write(file, tensors, origin, mapped=mapped)
    except OutputError as error:
        raise OutputError(f"{error}. The converted weights can go elsewhere: --convert_to DIR") from error
    return twin


def _origin(source: Path) -> dict[str, str]:
    try:
        state = source.stat()
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read: {error.strerror}") from error
    return {"source": source.name, "source_bytes": str(state.st_size), "source_time_ns": str(state.st_mtime_ns)}


def _load(source: Path) -> tuple[Mapping[str, Any], bool]:
    """The state and whether its tensors lie in the mapped file.

    Tensors only (`weights_only`): a pickle that wants to run code is refused. io.BytesIO occurs as a dead entry.
    """
    mapped = True
    loading: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        with torch.serialization.safe_globals([io.BytesIO]):
            try:
                state = torch.load(source, mmap=True, **loading)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                mapped = False
                state = torch.load(source, **loading)  # the format before torch 1.6
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source}: refused: it holds more than tensors, and loading it could run code; get the official file"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: damaged, cut short, or no torch file: {_first_line(error)}") from error
    while isinstance(state, Mapping) and any(isinstance(state.get(name), Mapping) for name in _WRAPPERS):
        state = next(state[name] for name in _WRAPPERS if isinstance(state.get(name), Mapping))
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{source}: expected a dictionary of tensors, got {type(state).__name__}")
    return state, mapped


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _chosen(source: Path, state: Mapping[str, Any], ema: bool) -> dict[str, Tensor]:
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    prefix = "net_ema." if ema else "net."
    chosen = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if ema and not chosen:
        raise CheckpointError(f"{source}: holds no averaged weights (keys 'net_ema.'); leave --load_ema out")
    chosen = chosen or {key: value for key, value in tensors.items() if not key.startswith("net_ema.")}
    if not chosen:
        raise CheckpointError(f"{source}: holds no tensors")
    for key, value in chosen.items():
        if value.dtype not in _NAMES:
            raise CheckpointError(
                f"{source}: tensor '{key}' has dtype {value.dtype}; known: {', '.join(_NAMES.values())}"
            )
    return chosen


def _check_space(twin: Path, need_bytes: int) -> None:
    free = shutil.disk_usage(twin.parent).free
    if free < need_bytes:
        raise OutputError(f"{twin}: needs {need_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; nothing was kept")


def write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, mapped: bool = False) -> None:
    """Write a safetensors file. Of `mapped` tensors the pages are given back as soon as they are written."""
    # widest items first, so that every tensor is aligned to its own items
    order = sorted(tensors, key=lambda key: -tensors[key].element_size())
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for key in order:
        begin, end = end, end + tensors[key].numel() * tensors[key].element_size()
        header[key] = {
            "dtype": _NAMES[tensors[key].dtype],
            "shape": list(tensors[key].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for key in order:
        tensor = tensors[key].contiguous()
        if tensor.numel():
            file.write(tensor.view(-1).view(torch.uint8).numpy().data)
            if mapped:
                _forget_pages(tensors[key])


def _forget_pages(tensor: Tensor) -> None:
    """Drop the clean pages of a mapped file from this process; they can be read again. Other memory would be lost."""
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    begin = tensor.data_ptr() - tensor.data_ptr() % mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.numel() * tensor.element_size() - begin
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), advice)
