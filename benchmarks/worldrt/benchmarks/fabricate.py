"""Checkpoints of real shape and no content: sparse files, so that 14B takes a few kilobytes of disk."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from worldrt.engine.tensors import Shape

SHARD_BYTES = 10_000_000_000
"""What diffusers writes at most into one file."""


def make_nano(folder: Path) -> None:
    """The nano checkpoint, with content."""
    from worldrt.export.families.cosmos.nano import make_checkpoint

    make_checkpoint(folder)


def sparse_transformer(folder: Path, size: str) -> int:
    """Write the video2world transformer of a model size (`2B`) in bfloat16, as diffusers lays it out. Its bytes."""
    from worldrt.export.families.cosmos.graphs import denoiser_graphs
    from worldrt.export.families.cosmos.variants import variant

    (source,) = denoiser_graphs(variant(size, "video2world").dit, "whole", key_format="diffusers")
    parameters = dict(source.module.named_parameters())
    return write_sparse(folder, {key: tuple(parameters[name].shape) for name, key in source.weights.items()})


def write_sparse(folder: Path, shapes: dict[str, Shape]) -> int:
    """safetensors shards of zeros that take no room on disk, and their index. Returns the bytes they stand for."""
    folder.mkdir(parents=True)
    shards: list[dict[str, Shape]] = [{}]
    filled = 0
    for key, shape in shapes.items():
        if filled and filled + _bytes(shape) > SHARD_BYTES:
            shards.append({})
            filled = 0
        shards[-1][key] = shape
        filled += _bytes(shape)
    names = [f"diffusion_pytorch_model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard)
    index = {"weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return sum(map(_bytes, shapes.values()))


def _write_shard(path: Path, shapes: dict[str, Shape]) -> None:
    entries, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + _bytes(shape)
        entries[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)


def _bytes(shape: Shape) -> int:
    return 2 * math.prod(shape)
