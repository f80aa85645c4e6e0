"""Build hook of the wheel: compile the kernels where a C++ compiler is found, and go on without them where not.

WORLDRT_KERNELS=0   do not compile; 1: fail if it cannot be done
WORLDRT_CUDA=0      no CUDA kernels; 1: fail if they cannot be compiled. Unset: if nvcc is on PATH
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

PLACE = "worldrt/kernels/_lib"


def compiler() -> str | None:
    """The C++ compiler that CMake would take."""
    return os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)


def wanted(name: str) -> bool | None:
    """The switch in the environment: on, off, or not set."""
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
    return value == "1" if value else None


class KernelsHook(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        """CMake and Ninja from PyPI, for a machine with a compiler but without them."""
        if wanted("WORLDRT_KERNELS") is False or sys.platform == "win32" or not compiler():
            return []
        missing_cmake = [] if shutil.which("cmake") else ["cmake>=3.20"]
        return missing_cmake if shutil.which("ninja") or shutil.which("make") else [*missing_cmake, "ninja"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        libraries = self._build()
        if version == "editable":
            self._put_in_tree(libraries)
        elif libraries:
            build_data["force_include"].update({str(path): f"{PLACE}/{path.name}" for path in libraries})
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_work"):
            self._work.cleanup()

    def _put_in_tree(self, libraries: list[Path]) -> None:
        target = Path(self.root, "kernels", PLACE)
        target.mkdir(exist_ok=True)
        for library in libraries:
            staged = target / f"{library.name}.new"
            shutil.copy2(library, staged)
            staged.replace(target / library.name)  # a running process keeps the file it has mapped

    def _build(self) -> list[Path]:
        """The libraries, in a temporary folder; none if they cannot be made here."""
        required, cuda = wanted("WORLDRT_KERNELS"), wanted("WORLDRT_CUDA")
        if required is False:
            return []
        reason = self._obstacle()
        with_cuda = bool(cuda or (cuda is None and shutil.which("nvcc")))
        if not reason and with_cuda:
            reason = self._compile(cuda=True)
            if reason and not cuda:
                self.app.display_warning(f"CUDA kernels left out: {reason}")
                with_cuda, reason = False, ""
        if not reason and not with_cuda:
            reason = self._compile(cuda=False)
        if not reason:
            return sorted(Path(self._work.name, "out").iterdir())
        if required or cuda:
            raise RuntimeError(f"the kernels cannot be compiled: {reason}")
        self.app.display_warning(f"compiled kernels left out, numpy runs instead: {reason}")
        return []

    def _obstacle(self) -> str:
        if sys.platform == "win32":
            return "the build needs GCC or Clang"
        if not compiler():
            return "no C++ compiler on PATH"
        return "" if shutil.which("cmake") else "no cmake on PATH"

    def _compile(self, *, cuda: bool) -> str:
        """Configure, build and install into `self._work`; the reason why that failed, or ""."""
        self._work = tempfile.TemporaryDirectory(prefix="worldrt-kernels-")
        build, out = Path(self._work.name, "build"), Path(self._work.name, "out")
        configure = ["cmake", "-S", self.root, "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={out}"]
        configure += [f"-DWORLDRT_CUDA={'ON' if cuda else 'OFF'}", *(["-G", "Ninja"] if shutil.which("ninja") else [])]
        for command in (
            configure,
            ["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1)],
            ["cmake", "--install", str(build), "--strip"],
        ):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                self.app.display_warning(done.stdout[-4000:])
                return f"`{' '.join(command)}` failed with exit code {done.returncode}"
        return ""


def platform_tag() -> str:
    """`linux_x86_64` (not manylinux: the libraries link the C library of this machine) or `macosx_14_0_arm64`."""
    if sys.platform == "linux":
        return sysconfig.get_platform().replace("-", "_")
    return next(iter(platform_tags()))
