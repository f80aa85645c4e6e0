"""Export nano into the bundles that were not given, each by `trt-export` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from worldrt.benchmarks.gpu.base import ROOT, CheckError, Made, MissingError, Setup, absent
from worldrt.benchmarks.processes import CALL
from worldrt.benchmarks.results import Table

NEEDS = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "tokenizers")
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def run(setup: Setup) -> Iterator[Made]:
    """All at once; raises `MissingError` where the packages are not there, `CheckError` where an export fails."""
    missing = absent(*NEEDS)
    if missing:
        raise MissingError(f"{', '.join(missing)} not installed; give a bundle made elsewhere (BUNDLE=folder)")
    start = time.perf_counter()
    wanted = {name: path for name, path in setup.bundles.items() if not (path / "bundle.json").is_file()}
    running = {name: subprocess.Popen(_command(name, str(path)), cwd=ROOT) for name, path in wanted.items()}
    rows, failed = [], []
    for name, process in running.items():
        code = process.wait()
        rows.append((name, "exported" if code == 0 else "failed", time.perf_counter() - start))
        failed += [name] if code else []
        yield [], {f"{name}_s": [rows[-1][2]]}
    yield [Table("Exports of nano, side by side", ("precision", "outcome", "seconds"), tuple(rows))], {}
    if failed:
        raise CheckError(f"the export of {', '.join(failed)} failed")


def _command(precision: str, folder: str) -> list[str]:
    call = CALL.format(module="export")
    arguments = ["--model", "nano", "--no-verify", "--torch_program", "--precision", SHORT[precision]]
    return [sys.executable, "-c", call, *arguments, "--output", folder]
