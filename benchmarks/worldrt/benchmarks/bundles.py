"""Bundles to measure with: that of the package, or made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldrt.benchmarks.processes import run_cli
from worldrt.engine.packaged import packaged

PROMPTS = (
    "A red car drives along the coast of a blue sea at sunset. The road bends to the left.",
    "A white car drives through a green forest under a clear sky at noon. The road runs straight ahead.",
    "A blue car drives across a sandy desert under a clear sky at noon. The road bends to the right.",
    "A yellow car drives through meadows below snowy mountains in heavy rain. The traffic slows down.",
)
"""In the words that nano was trained on."""


def nano(scratch: Path, progress: Callable[[str], None]) -> Path:
    """The nano of the package, or else an export of it, in a process of its own, into `scratch`. Raises `BackendError`
    where that fails."""
    return packaged("nano") or exported(scratch / "nano", "fp32", progress)


def exported(folder: Path, precision: str, progress: Callable[[str], None]) -> Path:
    """nano in a precision, with the torch programs that bfloat16 needs on a CPU. Raises `BackendError`."""
    progress(f"export nano in {precision}")
    more = ["--torch_program"] if precision == "bf16" else []
    run_cli("export", ["--model", "nano", "--precision", precision, "--no-verify", *more, "--output", str(folder)])
    return folder


def int8(bundle: Path, scratch: Path, progress: Callable[[str], None]) -> Path:
    """The same bundle with quantised denoisers."""
    from worldrt.export.quantize.dynamic import quantize_bundle

    progress("quantise")
    quantize_bundle(bundle, scratch / "int8")
    return scratch / "int8"
