"""Find and load the compiled kernels.

`_lib/libworldrt_cpu.so` and `_lib/libworldrt_cuda.so` hold the same C functions, for host and for device memory.
Neither knows Python; both are optional. The CUDA library carries its own runtime and loads without a driver.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ABI = 2
"""The version of the C structs in `_arguments.py`; `kAbi` in `csrc/ops.cpp` says the same."""

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


@dataclass(frozen=True)
class Library:
    """The C functions of one library. The ops take a packed argument struct and a stream (0 on the CPU)."""

    path: Path
    counter_normal: Any
    multistep_update: Any
    rgb_to_yuv420: Any
    units: Any
    error_text: Any


@functools.cache
def load(kind: Literal["cpu", "cuda"]) -> tuple[Library | None, str]:
    """The library and "", or None and the reason why there is none."""
    if os.environ.get("WORLDRT_KERNELS") == "0":
        return None, "switched off by WORLDRT_KERNELS=0"
    path = Path(__file__).parent / "_lib" / f"libworldrt_{kind}{_SUFFIX}"
    if not path.exists():
        compiler = "a C++17 compiler" if kind == "cpu" else "nvcc"
        return None, f"not built ({path.name} is absent): reinstall with {compiler} on PATH to build it"
    try:
        library = ctypes.CDLL(str(path))
        abi = library.worldrt_abi()
    except (OSError, AttributeError) as error:
        return None, f"{path} cannot be loaded: {error}"
    if abi != ABI:
        return None, f"{path} is from another version (ABI {abi}, expected {ABI}): reinstall to rebuild it"
    ops = {
        name: getattr(library, f"worldrt_{name}") for name in ("counter_normal", "multistep_update", "rgb_to_yuv420")
    }
    for op in ops.values():
        op.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        op.restype = ctypes.c_int
    library.worldrt_error_text.argtypes = [ctypes.c_int]
    library.worldrt_error_text.restype = ctypes.c_char_p
    return Library(
        path=path,
        **ops,
        units=library.worldrt_units,
        error_text=library.worldrt_error_text,
    ), ""


@dataclass(frozen=True)
class Status:
    """What runs on this machine, and why something is missing."""

    implementation: Literal["native", "numpy"]
    """What the host ops run: the compiled library, or numpy (same results, slower)."""
    cpu_library: Path | None
    cuda_library: Path | None
    threads: int
    """OpenMP threads of the host ops; 1 without OpenMP."""
    devices: int
    """CUDA devices the CUDA ops can use."""
    notes: tuple[str, ...]
    """One line for each thing that is missing, with the reason."""


def status() -> Status:
    """What runs on this machine, and why something is missing."""
    cpu, cpu_reason = load("cpu")
    cuda, cuda_reason = load("cuda")
    notes = []
    threads = devices = 0
    if cpu is None:
        notes.append(f"CPU kernels: {cpu_reason}; numpy runs instead")
    else:
        threads = cpu.units()
        if threads == 0:
            notes.append("CPU kernels: built without OpenMP, they run on one thread")
    if cuda is None:
        notes.append(f"CUDA kernels: {cuda_reason}")
    else:
        devices = cuda.units()
        if devices < 0:
            notes.append(f"CUDA kernels: no device can be used: {cuda.error_text(-devices).decode()}")
        elif devices == 0:
            notes.append("CUDA kernels: no device found")
    return Status(
        implementation="native" if cpu else "numpy",
        cpu_library=cpu.path if cpu else None,
        cuda_library=cuda.path if cuda else None,
        threads=max(threads, 1),
        devices=max(devices, 0),
        notes=tuple(notes),
    )
