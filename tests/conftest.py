"""What several rooms test with: one nano bundle, exported once for all test processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

os.environ.setdefault("SYMPY_CACHE_SIZE", "100000")  # as trt-export does; read when torch is imported


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the nano model: whole form, float32, torch programs, its checkpoint inside. Do not change it."""
    from worldrt.export.plan import Options
    from worldrt.export.run import export_bundle

    base = tmp_path_factory.getbasetemp()
    shared = base if base.name.startswith("pytest-") else base.parent  # processes of one run have folders side by side
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
