"""Build the kernels in place: for the CPU, and with nvcc for the GPU."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

from worldrt.benchmarks.gpu.base import ROOT, CheckError, Made, MissingError, Setup
from worldrt.benchmarks.results import Table


def run(setup: Setup) -> Iterator[Made]:
    """Raises `MissingError` without cmake, `CheckError` where it fails."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise MissingError("cmake is not on PATH; the kernels that are there are used")
    preset = "cuda" if shutil.which("nvcc") and not setup.dry else "default"
    if preset == "default" and not setup.dry:
        print("nvcc is not on PATH: only the CPU kernels are built", flush=True)
    start = time.perf_counter()
    for command in ([cmake, "--preset", preset], [cmake, "--build", "--preset", preset]):
        if subprocess.run(command, cwd=ROOT).returncode:
            raise CheckError(f"{' '.join(command[1:])} failed")
    from worldrt.kernels import status

    found = status()
    cuda = "built" if found.cuda_library else "not built"
    rows = ((preset, time.perf_counter() - start, found.implementation, cuda, found.devices),)
    columns = ("preset", "seconds", "CPU kernels", "CUDA kernels", "devices")
    yield [Table("Building the kernels", columns, rows, found.notes)], {}
