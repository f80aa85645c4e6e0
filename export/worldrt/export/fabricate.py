"""Checkpoints of the true shapes without their values: right safetensors headers over sparse files, of no size on disk.

For measuring and testing exports of models that are too large to keep at hand.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldrt.engine.tensors import Shape, size_bytes
from worldrt.export.plan import Model, Part

SHARD_BYTES = 10_000_000_000
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def fabricate(
    model: Model, root: Path, *, key_format: str = "diffusers", dtype: str = "bfloat16", shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the weights of every part of a model to the first place where they are looked for, all values zero.

    In the official format the transformer is one file with the prefix `net.`, else shards with an index.
    """
    for part in model.parts:
        shapes = parameter_shapes(part, key_format)
        place = root / _place(part, key_format)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix:
            prefix = "net." if part.task else ""
            write_sparse(place, {prefix + key: shape for key, shape in shapes.items()}, dtype)
        else:
            place.mkdir()
            _write_shards(place, shapes, dtype, shard_bytes)


def parameter_shapes(part: Part, key_format: str) -> dict[str, Shape]:
    """Checkpoint key -> shape of all parameters of a part."""
    return {
        source.weights[name]: tuple(parameter.shape)
        for source in part.graphs("whole", "bfloat16", key_format)
        for name, parameter in source.module.named_parameters()
    }


def _place(part: Part, key_format: str) -> str:
    plain = [place for place in part.wanted.places if "*" not in place]
    if key_format == "official" and part.task:
        return next(place for place in plain if place.endswith(".safetensors"))
    return next(place for place in plain if "." not in place.rpartition("/")[2])


def _write_shards(folder: Path, shapes: Mapping[str, Shape], dtype: str, shard_bytes: int) -> None:
    shards: list[dict[str, Shape]] = [{}]
    used = 0
    for key, shape in shapes.items():
        used += size_bytes(shape, dtype)
        if used > shard_bytes and shards[-1]:
            shards.append({})
            used = size_bytes(shape, dtype)
        shards[-1][key] = shape
    stem = "diffusion_pytorch_model"
    if len(shards) == 1:
        write_sparse(folder / f"{stem}.safetensors", shards[0], dtype)
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        write_sparse(folder / name, shard, dtype)
        index |= dict.fromkeys(shard, name)
    total = sum(size_bytes(shape, dtype) for shape in shapes.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def write_sparse(path: Path, shapes: Mapping[str, Shape], dtype: str) -> None:
    """A safetensors file whose values are a hole in the file: zeros that take no room."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * size_bytes((1,), dtype)
        header[key] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
