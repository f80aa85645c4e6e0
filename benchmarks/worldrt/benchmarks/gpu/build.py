"""Build the kernels in place, for the CPU, and with nvcc for the GPU: by cmake, or by the compilers alone."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from worldrt.benchmarks.gpu.base import ROOT, CheckError, Made, MissingError, Setup
from worldrt.benchmarks.results import Table

SOURCES = ROOT / "kernels" / "csrc"
LIBRARIES = ROOT / "kernels" / "worldrt" / "kernels" / "_lib"
Commands = list[list[str]]


def run(setup: Setup) -> Iterator[Made]:
    """Raises `MissingError` without cmake and compilers, `CheckError` where all ways fail."""
    wants_cuda = not setup.dry
    if wants_cuda and shutil.which("nvcc") is None:
        print("nvcc is not on PATH: only the CPU kernels are built", flush=True)
        wants_cuda = False
    ways = {"cmake": by_cmake(wants_cuda), "the compilers alone": directly(LIBRARIES, wants_cuda)}
    if not any(ways.values()):
        raise MissingError("neither cmake nor a compiler is on PATH; the kernels that are there are used")
    start, way = time.perf_counter(), ""
    for name, commands in ways.items():
        if commands and all(subprocess.run(command, cwd=ROOT).returncode == 0 for command in commands):
            way = name
            break
        print(f"by {name}: {'failed' if commands else 'not here'}", flush=True)
    from worldrt.kernels import status

    found = status()
    cuda = "built" if found.cuda_library else "not built"
    rows = ((way or "failed", time.perf_counter() - start, found.implementation, cuda, found.devices),)
    columns = ("by", "seconds", "CPU kernels", "CUDA kernels", "devices")
    yield [Table("Building the kernels", columns, rows, found.notes)], {}
    if not way:
        raise CheckError("no way to build the kernels worked")


def by_cmake(wants_cuda: bool) -> Commands:
    """None where there is no cmake."""
    cmake, preset = shutil.which("cmake"), "cuda" if wants_cuda else "default"
    return [[cmake, "--preset", preset], [cmake, "--build", "--preset", preset]] if cmake else []


def directly(folder: Path, wants_cuda: bool) -> Commands:
    """As kernels/CMakeLists.txt has it, for the GPU that is here; none where there is no compiler for C++."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    common = ["-O3", "-std=c++17", "-shared"]
    host = ["-fPIC", "-ffp-contract=off", "-fvisibility=hidden"]
    cpu = [compiler, *common, *host, "-fopenmp", str(SOURCES / "ops.cpp"), "-o", str(folder / "libworldrt_cpu.so")]
    if not wants_cuda:
        return [cpu]
    cuda = ["nvcc", *common, "--fmad=false", f"-Xcompiler={','.join(host)}", "-arch=native", "-cudart=static"]
    return [cpu, [*cuda, str(SOURCES / "ops.cu"), "-o", str(folder / "libworldrt_cuda.so")]]
