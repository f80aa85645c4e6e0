"""TensorRT and TensorRT-RTX: the one place that imports them."""

from __future__ import annotations

import importlib
from types import ModuleType

from worldrt.engine.errors import BackendError
from worldrt.engine.plans import Library, Target

LEAST = {"tensorrt": (10, 15), "tensorrt_rtx": (1, 4)}
_INSTALL = {"tensorrt": "worldrt[gpu]", "tensorrt_rtx": "worldrt[rtx]"}


def load_library(name: Library) -> ModuleType:
    """The module `tensorrt` or `tensorrt_rtx`. Raises `BackendError` where it is absent or too old."""
    install = f"pip install '{_INSTALL[name]}'"
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # a library beneath it that is missing is an OSError
        raise BackendError(f"{name} cannot be imported ({error}); {install}") from error
    version = str(getattr(module, "__version__", ""))
    least = LEAST[name]
    if version_numbers(version) < least:
        expected = ".".join(map(str, least))
        raise BackendError(f"{name}: expected version {expected} or newer, got {version or 'none'}; {install}")
    return module


def plan_target(library: Library, trt: ModuleType, gpu: Target) -> Target:
    """What plans for a GPU are built for: TensorRT measures on that GPU. TensorRT-RTX builds for its compute
    capability, so that a plan that was built elsewhere is found; where it knows that only of a present GPU (Hopper,
    B200), for that one."""
    (capability,) = gpu.compute_capabilities
    known = library == "tensorrt_rtx" and hasattr(trt.ComputeCapability, "SM" + capability.replace(".", ""))
    return Target((capability,)) if known else gpu


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.15.1.29` -> (10, 15, 1, 29), up to the first part that is no number."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
