"""Bundles to measure with, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldrt.benchmarks.processes import run_cli


def nano(scratch: Path, progress: Callable[[str], None]) -> Path:
    """Export nano, in a process of its own, into `scratch`. Raises `BackendError` where that fails."""
    folder = scratch / "nano"
    progress("export nano")
    run_cli("export", ["--model", "nano", "--no-verify", "--output", str(folder)])
    return folder


def int8(bundle: Path, scratch: Path, progress: Callable[[str], None]) -> Path:
    """The same bundle with quantised denoisers."""
    from worldrt.export.quantize.dynamic import quantize_bundle

    progress("quantise")
    quantize_bundle(bundle, scratch / "int8")
    return scratch / "int8"
