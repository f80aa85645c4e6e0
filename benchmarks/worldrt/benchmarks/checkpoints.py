"""Checkpoints to measure with: nano, and files of the true shapes of larger models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from worldrt.engine.weights import WeightStore
from worldrt.runtime.probes import to_bits

POOL = 1 << 22
"""Random values are drawn once; every tensor begins at another of them."""


def make(size: str, root: Path, task: str = "all") -> None:
    """nano with its seeded weights; of others the transformer of a task, sparse files without values."""
    from worldrt.export.fabricate import fabricate
    from worldrt.export.families.cosmos.nano import make_checkpoint
    from worldrt.export.families.cosmos.parts import model
    from worldrt.export.plan import Options

    if size == "nano":
        make_checkpoint(root)
        return
    whole = model(Options(size, task=task))
    fabricate(replace(whole, parts=tuple(part for part in whole.parts if part.task)), root)


def randomise(store: WeightStore, keys: Iterable[str] | None = None) -> None:
    """Write values of standard deviation 0.02 into tensors of a checkpoint, all of them or some; no two are equal."""
    generator = np.random.default_rng(0)
    pool = generator.standard_normal(POOL, np.float32) * np.float32(0.02)
    for key in sorted(store.owner if keys is None else keys):
        file = store.owner[key]
        tensor = file.tensors[key]
        with file.path.open("r+b") as target:
            target.seek(tensor.offset)
            _write(target, to_bits(np.roll(pool, int(generator.integers(POOL))), tensor.dtype), tensor.nbytes)


def _write(target: IO[bytes], values: np.ndarray[Any, Any], nbytes: int) -> None:
    data = values.tobytes()
    for start in range(0, nbytes, len(data)):
        target.write(data[: nbytes - start])
