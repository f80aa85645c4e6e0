"""What runs, and what is said where something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldrt.kernels import _library, status


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    _library.load.cache_clear()
    yield
    _library.load.cache_clear()


def test_status_names_the_library_that_runs() -> None:
    state = status()
    if state.implementation == "numpy":
        assert state.cpu_library is None
        assert any(note.startswith("CPU kernels: ") for note in state.notes)
    else:
        assert state.cpu_library and state.cpu_library.exists()
        assert state.threads >= 1


def test_the_environment_switches_the_libraries_off() -> None:
    code = (
        "import numpy as np; from worldrt.kernels import multistep_update, status; s = status();"
        "z = np.ones((1, 1, 1, 2), np.float32); out = multistep_update(z, z, coefficients=[[1, 2, 0, 0]]);"
        "print(s.implementation, s.cpu_library, s.cuda_library, out.ravel().tolist(), *s.notes, sep='|')"
    )
    environment = {**os.environ, "WORLDRT_KERNELS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("numpy|None|None|[3.0, 3.0]|CPU kernels: switched off by WORLDRT_KERNELS=0")


def test_an_absent_library_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    assert _library.load("cpu") == (
        None,
        f"not built (libworldrt_cpu{_library._SUFFIX} is absent): reinstall with a C++17 compiler on PATH to build it",
    )
    assert status().implementation == "numpy"


def test_a_broken_library_is_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    (tmp_path / "_lib").mkdir()
    (tmp_path / "_lib" / f"libworldrt_cpu{_library._SUFFIX}").write_bytes(b"not a library")
    library, reason = _library.load("cpu")
    assert library is None and "cannot be loaded" in reason


def test_a_library_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    (tmp_path / "_lib").mkdir()
    target = tmp_path / "_lib" / f"libworldrt_cpu{_library._SUFFIX}"
    (tmp_path / "old.c").write_text(f"int worldrt_abi(void) {{ return {_library.ABI + 1}; }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(tmp_path / "old.c")], check=True)
    library, reason = _library.load("cpu")
    assert library is None and f"(ABI {_library.ABI + 1}, expected {_library.ABI})" in reason
