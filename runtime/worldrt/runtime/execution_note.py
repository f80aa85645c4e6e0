"""What a sidecar says of where and how graphs ran, and the flags that ask for the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worldrt.engine.graphs import Mode
from worldrt.kernels import status
from worldrt.runtime.components import Execution
from worldrt.runtime.engines import BACKENDS, BlockWeightsAs, Engines

# Flags that mean nothing, and are refused, without an engine or a GPU.
OF_GPU = ("gpu_memory", "use_cuda_graphs")
OF_ENGINES = ("profile", "block_weights", "optimization_level", "workspace_gb", "strip_plan")


@dataclass(frozen=True)
class EnginesNote:
    """How engines were built: ranges of axes (least, best, most) that were not the model's own, and options."""

    block_weights: BlockWeightsAs
    profile: Mapping[str, tuple[int, int, int]]
    optimization_level: int
    workspace_bytes: int | None = None
    strip: bool = False


@dataclass(frozen=True)
class ExecutionNote:
    """`Execution` in a sidecar."""

    backend: str
    device: str
    guidance: Literal["batched", "sequential"]
    options: Mapping[str, int | float | bool | str]
    kernels: str
    offload_text: bool = False
    offload: bool = False
    gpu_memory_gb: float | None = None
    cuda_graphs: Mode = "auto"
    engines: EnginesNote | None = None


def note_of(execution: Execution) -> ExecutionNote:
    """What a sidecar says of a run's execution."""
    return ExecutionNote(
        execution.backend,
        execution.device,
        "sequential" if execution.guidance == "sequential" else "batched",
        dict(execution.options),
        status().implementation,
        execution.offload_text,
        execution.offload,
        execution.gpu_memory_gb,
        execution.cuda_graphs,
        _engines(execution.engines) if execution.backend in BACKENDS else None,
    )


def _engines(engines: Engines) -> EnginesNote:
    profile = {axis: (sizes.min, sizes.opt, sizes.max) for axis, sizes in engines.profile.items()}
    build = engines.build
    return EnginesNote(
        engines.block_weights, profile, build.optimization_level, build.workspace_bytes, strip=build.strip
    )


def flags_of(note: ExecutionNote) -> dict[str, Any]:
    """The values of the flags, by name of the parsed argument."""
    values: dict[str, Any] = {
        "backend": note.backend,
        "device": note.device,
        "cfg": note.guidance,
        "threads": note.options.get("threads", 0),
        "offload_text_encoder": note.offload_text,
        "offload": note.offload,
        "gpu_memory": note.gpu_memory_gb,
        "use_cuda_graphs": note.cuda_graphs,
    }
    if note.engines is not None:
        values |= {
            "block_weights": note.engines.block_weights,
            "profile": [f"{axis}={':'.join(map(str, sizes))}" for axis, sizes in note.engines.profile.items()],
            "optimization_level": note.engines.optimization_level,
            "workspace_gb": None if note.engines.workspace_bytes is None else note.engines.workspace_bytes / 1e9,
            "strip_plan": note.engines.strip,
        }
    return values
