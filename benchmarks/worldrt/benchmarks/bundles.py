"""Bundles to measure with, exported on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldrt.benchmarks.export import run_cli


def nano(scratch: Path, progress: Callable[[str], None], quantize: str | None = None, like: Path | None = None) -> Path:
    """Export nano, in a process of its own, into `scratch`; with `like`, from the weights of that bundle."""
    folder = scratch / f"nano{'-' + quantize if quantize else ''}"
    arguments = ["--model", "nano", "--output", str(folder)]
    if like is not None:
        from worldrt.engine.bundle import read_manifest

        arguments += ["--checkpoint", read_manifest(like).weights.root]
    if quantize:
        arguments += ["--quantize", quantize]
    progress(f"export: trt-export {' '.join(arguments)}")
    run_cli("export", arguments)
    return folder
