"""What several rooms test with: nano bundles, exported once for all test processes."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

# a run in the background ignores Ctrl-C and a closed terminal, and hands that on to the processes that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("SYMPY_CACHE_SIZE", "100000")  # as trt-export does; read when torch is imported


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of one run, whose own folders lie side by side in it."""
    base = tmp_path_factory.getbasetemp()
    return base if base.name.startswith("pytest-") else base.parent


@pytest.fixture(scope="session", params=["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def half_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nano model in a half precision, whole form, as engines take it. Do not change it."""
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    folder = shared_folder(tmp_path_factory) / f"nano-{request.param}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            options = Options("nano", precision=request.param)
            export_bundle(options, folder, verified=False, torch_program=False, workers=2)
    return folder


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the nano model: whole form, float32, torch programs, its checkpoint inside. Do not change it."""
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    shared = shared_folder(tmp_path_factory)
    folder = shared / "nano"
    with (shared / "nano.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            report = export_bundle(Options("nano"), folder, verified=True, torch_program=True)
            assert all(row.passed for row in report.verified), [row for row in report.verified if not row.passed]
            assert {row.graph for row in report.verified} == {
                "text2image/denoise",
                "video2world/denoise",
                *(f"vae/{coder}_{step}" for coder in ("encode", "decode") for step in ("first", "next")),
                "text/encode",
            }
    return folder


@pytest.fixture(scope="session")
def opendwm_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of `nano-opendwm`: float32, its checkpoint inside. Do not change it."""
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    shared = shared_folder(tmp_path_factory)
    folder = shared / "opendwm"
    with (shared / "opendwm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            options = Options("nano-opendwm")
            export_bundle(options, folder, family="opendwm", verified=False, torch_program=False)
    return folder
