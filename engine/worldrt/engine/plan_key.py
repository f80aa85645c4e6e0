"""The key of a plan: everything that changes its bytes, read from the files themselves and not from records of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.bundle import file_sha256
from worldrt.engine.content import ContentHashes, digest_of
from worldrt.engine.errors import BundleError
from worldrt.engine.external import external_tensors
from worldrt.engine.plans import BuildJob, BuildOptions, Gather, Library, Range, Target
from worldrt.engine.schema import encode
from worldrt.engine.tensors import TensorSpec

FORMAT = 1  # to be raised when the builder makes other plans of the same job


@dataclass(frozen=True)
class PlanKey:
    """What a plan was made of. Two jobs with equal keys have the same plan, whatever their files are called.

    `producer` is the version of worldrt, whose builder changes the network on its way. `inputs` are what the ranges
    of a profile are turned into shapes by. `weights_sha256` covers the values of every constant that the graph file
    does not hold itself; None where it has none, as a graph has that takes its weights as inputs. `gather` are outputs
    that the engine gathers itself.
    """

    format: int
    producer: str
    graph_sha256: str
    inputs: tuple[TensorSpec, ...]
    library: Library
    library_version: str
    precision: str
    profile: Mapping[str, Range]
    target: Target
    options: BuildOptions
    weights_sha256: str | None = None
    gather: Gather | None = None

    @property
    def digest(self) -> str:
        """64 hexadecimal digits: the name of the plan."""
        return digest_of(encode(self))


def plan_key(job: BuildJob, library_version: str, hashes: ContentHashes) -> PlanKey:
    """The key of a job's plan. Raises `BundleError` for a damaged graph, `CheckpointError` for missing weights."""
    return PlanKey(
        format=FORMAT,
        producer=importlib.metadata.version("worldrt"),
        graph_sha256=file_sha256(job.path),
        inputs=job.graph.inputs,
        weights_sha256=_weights_sha256(job, hashes),
        library=job.library,
        library_version=library_version,
        precision=job.precision,
        profile=dict(job.profile),
        target=job.target,
        options=job.options,
        gather=job.gather,
    )


def _weights_sha256(job: BuildJob, hashes: ContentHashes) -> str | None:
    """One hash of all constants by name. Where they lie, and under which key, makes no difference to a plan."""
    held: list[tuple[str, str, list[int], str]] = [
        (tensor.name, "", [], hashes.of(_place(job.weight_root, tensor.file), tensor.offset, tensor.nbytes))
        for tensor in external_tensors(job.path)  # their dtypes and shapes are in the graph file
    ]
    held += [
        (c.name, c.dtype, list(c.shape), hashes.of(_place(c.folder or job.weight_root, c.file), c.offset, c.nbytes))
        for c in job.constants
    ]
    return digest_of(sorted(held)) if held else None


def _place(root: Path, file: str) -> Path:
    """A checkpoint may hold links (model hubs do), but no path of a graph may climb out of its root."""
    if not file or "\0" in file or Path(file).is_absolute() or ".." in Path(file).parts:
        raise BundleError(f"external data {file!r}: a path must stay inside the weight root {root}")
    return root / file
