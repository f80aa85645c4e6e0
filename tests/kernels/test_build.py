"""The wheel with and without the compiled kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from worldrt.kernels._library import ABI

ROOT = Path(__file__).parents[2]
ROOMS = ("benchmarks", "engine", "export", "kernels", "runtime")

pytestmark = pytest.mark.skipif(not (ROOT / "hatch_build.py").exists(), reason="the tests are not inside a source tree")


def build(folder: Path, target: str = "wheel", root: Path = ROOT, **switches: str) -> Path:
    pytest.importorskip("hatchling")
    environment = {**os.environ, **switches}
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    (built,) = folder.iterdir()
    return built


def check_contents(wheel: Path) -> set[str]:
    """Every room is there and nothing but them; the names of the libraries."""
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[1] for name in names if name.startswith("worldrt/")}
    assert packages == set(ROOMS)
    assert {name.split("/")[0] for name in names} == {"worldrt", wheel.name.rsplit("-py3", 1)[0] + ".dist-info"}
    assert "worldrt/__init__.py" not in names
    return {Path(name).name for name in names if "/_lib/" in name}


def import_from(wheel: Path, folder: Path) -> str:
    """What the kernels of this wheel say they run, unpacked away from the source tree."""
    zipfile.ZipFile(wheel).extractall(folder)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import worldrt\n"
        "worldrt.__path__ = [sys.argv[1] + '/worldrt']\n"
        "from worldrt import kernels; assert kernels.__file__.startswith(sys.argv[1]);"
        "print(kernels.status().implementation)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WORLDRT_KERNELS"}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_wheel_without_kernels_is_pure(tmp_path: Path) -> None:
    wheel = build(tmp_path / "dist", WORLDRT_KERNELS="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert check_contents(wheel) == set()
    assert import_from(wheel, tmp_path / "unpacked") == "numpy"


def test_a_wheel_made_without_tools_is_pure(tmp_path: Path) -> None:
    wheel = build(tmp_path / "dist", PATH="/nowhere", CXX="")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert check_contents(wheel) == set()


def test_a_wheel_with_kernels_has_them_for_this_platform(tmp_path: Path) -> None:
    if not (shutil.which("c++") and shutil.which("cmake")):
        pytest.skip("no C++ compiler, or no cmake")
    wheel = build(tmp_path / "dist", WORLDRT_KERNELS="1", WORLDRT_CUDA="0")
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("any.whl")
    assert {name.split(".")[0] for name in check_contents(wheel)} == {"libworldrt_cpu"}
    assert import_from(wheel, tmp_path / "unpacked") == "native"


def test_the_source_archive_builds_the_same_wheel(tmp_path: Path) -> None:
    archive = build(tmp_path / "source", target="sdist")
    shutil.unpack_archive(archive, tmp_path)
    root = tmp_path / archive.name.removesuffix(".tar.gz")
    assert (root / "kernels" / "csrc" / "ops.cu").exists() and (root / "CMakeLists.txt").exists()
    ours = build(tmp_path / "ours", WORLDRT_KERNELS="0")
    theirs = build(tmp_path / "theirs", root=root, WORLDRT_KERNELS="0")
    assert zipfile.ZipFile(ours).namelist() == zipfile.ZipFile(theirs).namelist()


def test_cuda_kernels_compile(tmp_path: Path) -> None:
    """For one architecture: the wheel is for five."""
    if not shutil.which("nvcc"):
        pytest.skip("no nvcc")
    flags = ["-std=c++17", "--fmad=false", "-Xcompiler", "-fPIC", "-shared", "-arch=sm_90"]
    source, target = ROOT / "kernels" / "csrc" / "ops.cu", tmp_path / "libworldrt_cuda.so"
    subprocess.run(["nvcc", *flags, str(source), "-o", str(target)], check=True, capture_output=True, text=True)
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).worldrt_abi())"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=True, capture_output=True, text=True)
    assert int(done.stdout) == ABI
