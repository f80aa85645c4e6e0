"""What an engine plan is made of: everything that changes its bytes, and nothing else.

A job names a graph, the weights that become constants of it, a library, the ranges of its axes, the options of the
builder and the GPUs that it is for. `worldrt.engine.build` makes the plan, `worldrt.engine.cache` keeps it under a key
of the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from worldrt.engine.bundle import Graph
from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape

Library = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class Range:
    """Sizes that one axis may take: the least, the one to be fastest at, the largest. Raises `InputError`."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 0 < self.min <= self.opt <= self.max:
            raise InputError(f"axis range {self.min}:{self.opt}:{self.max}: expected 1 <= min <= opt <= max")


Profile = Mapping[str, Range]
"""The range of every named axis of a graph."""


@dataclass(frozen=True)
class Constant:
    """A tensor of a safetensors file in the place of the weight input `name`; `file` is below the weight root, or below
    `folder`. Values from such a folder are small, and are copied into the graph."""

    name: str
    dtype: str
    shape: Shape
    file: str
    offset: int
    nbytes: int
    folder: Path | None = None


@dataclass(frozen=True)
class BuildOptions:
    """What a builder can be told. A library that lacks one of them refuses it with `UnsupportedError`.

    `workspace_bytes` limits the scratch memory of an engine (None: the library's own limit). `strip` leaves the weights
    out of the plan, to be refitted when it is loaded; `refit` keeps them and lets them be replaced later.
    """

    optimization_level: int = 3
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strip: bool = False
    weight_streaming: bool = False


@dataclass(frozen=True)
class Target:
    """The GPUs that a plan is for. `gpu_name` and `sm_count` are those of the GPU it is built on, or empty and 0 for a
    plan that is built ahead of time for compute capabilities (`8.9`, `12.0`)."""

    compute_capabilities: tuple[str, ...]
    gpu_name: str = ""
    sm_count: int = 0


@dataclass(frozen=True)
class Gather:
    """Outputs that engines on `ranks` GPUs gather among themselves, along the first dimension and of equal size."""

    ranks: int
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class BuildJob:
    """One plan to make, in words that travel to another process.

    `path` is the graph's ONNX file. Its external data lies below `weight_root`. `block` is the instance of a block
    graph whose weights are `constants`. `gather` are outputs of the graph that the engine gathers itself.
    """

    library: Library
    graph: Graph
    path: Path
    weight_root: Path
    precision: str
    profile: Profile
    target: Target
    options: BuildOptions = field(default_factory=BuildOptions)
    constants: tuple[Constant, ...] = ()
    block: int | None = None
    gather: Gather | None = None

    @property
    def name(self) -> str:
        """`video2world/block`, `video2world/block 3`."""
        base = self.graph.file.removesuffix(".onnx")
        return base if self.block is None else f"{base} {self.block}"


@dataclass(frozen=True)
class BuildReport:
    """What a build took and made. `layers` are the compiled layers as the library describes them, one line each.

    `scratch_bytes` is the most that one layer needs besides its inputs and outputs, `activation_bytes` what a context
    of the plan needs in all at the largest sizes of its profile.
    """

    seconds: float
    plan_bytes: int
    peak_rss_bytes: int
    scratch_bytes: int | None = None
    activation_bytes: int | None = None
    weight_bytes: int | None = None
    layers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
