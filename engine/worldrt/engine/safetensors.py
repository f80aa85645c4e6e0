"""Reading safetensors files by memory map, without a package: header, fingerprint, tensors that are never copied."""

from __future__ import annotations

import hashlib
import math
import mmap
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.content import file_hash
from worldrt.engine.device import Buffer
from worldrt.engine.errors import CheckpointError
from worldrt.engine.schema import parse_json
from worldrt.engine.tensors import Shape, size_bytes

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_MAX_HEADER_BYTES = 100_000_000
_MAX_VALUES, _MAX_DIMENSIONS = 1 << 56, 32  # what numpy can describe


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file; `offset` counts bytes from the start of the file."""

    key: str
    dtype: str
    shape: Shape
    offset: int
    nbytes: int


@dataclass(frozen=True)
class SafetensorsFile:
    """One opened header. `tensors` maps a key to its place; reading a tensor maps the file, and copies nothing."""

    path: Path
    size_bytes: int
    header_sha256: str
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> SafetensorsFile:
        """Read and check the header. Raises `CheckpointError` where the file is missing, damaged or truncated."""
        try:
            found = path.stat()
            size = found.st_size
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointError(f"{path}: not a file")
            with path.open("rb") as file:
                raw = file.read(8)
                length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else 0
                if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                    raise CheckpointError(f"{path}: not a safetensors file, or cut short ({size} bytes)")
                header = file.read(length)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:  # a character 0
            raise CheckpointError(f"{str(path)!r}: not a name of a file: {error}") from error
        try:
            entries: dict[str, Any] = parse_json(header.decode())
            metadata = _texts(entries.pop("__metadata__", None))
            tensors = {key: _place(key, entry, 8 + length) for key, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: its safetensors header is damaged: {error}") from error
        end = max((t.offset + t.nbytes for t in tensors.values()), default=8 + length)
        if size != end:
            state = "cut short" if size < end else "longer than its header says"
            raise CheckpointError(f"{path}: {state}: expected {end} bytes, got {size}; fetch the file again")
        return cls(path, size, hashlib.sha256(header).hexdigest(), tensors, metadata)

    def __getitem__(self, key: str) -> Buffer:
        """The tensor's bytes in the mapped file, read-only. Raises `CheckpointError` for an unknown key."""
        if key not in self.tensors:
            raise CheckpointError(f"{self.path}: holds no tensor '{key}'")
        place = self.tensors[key]
        return Buffer(self._base + place.offset, place.shape, place.dtype, owner=self._view)

    @cached_property
    def _view(self) -> np.ndarray:
        with self.path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    @cached_property
    def _base(self) -> int:
        return int(self._view.ctypes.data)

    def content_sha256(self) -> str:
        """The hash of the whole file (reads it all)."""
        return file_hash(self.path)


def _texts(metadata: Any) -> dict[str, str]:
    """What the header holds besides tensors; the format has only texts there."""
    texts: dict[str, str] = {} if metadata is None else metadata
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("__metadata__: expected texts by name")
    return texts


def _place(key: str, entry: Mapping[str, Any], base: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    dtype, shape = DTYPES.get(entry["dtype"]), tuple(entry["shape"])
    if any(type(number) is not int for number in (begin, end, *shape)):
        raise ValueError(f"tensor '{key}': expected whole numbers, got {[begin, end, *shape]}"[:200])
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(1, n) for n in shape) > _MAX_VALUES:
        raise ValueError(f"tensor '{key}': no tensor has the shape {list(shape)}"[:200])
    if dtype is None:
        raise ValueError(f"tensor '{key}' has dtype {entry['dtype']}; known: {', '.join(DTYPES)}")
    if min(shape, default=0) < 0 or begin < 0 or end - begin != size_bytes(shape, dtype):
        raise ValueError(f"tensor '{key}': {math.prod(shape)} values of {dtype} do not fill bytes {begin} to {end}")
    return StoredTensor(key, dtype, shape, base + begin, end - begin)
