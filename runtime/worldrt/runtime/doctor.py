"""`trt-run doctor`: what this machine has, and what each missing piece would bring."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from worldrt.kernels import status
from worldrt.runtime.request import memory_bytes
from worldrt.runtime.sidecar import version

# package -> what it brings
PACKAGES = {
    "numpy": "arrays",
    "onnxruntime": "runs bundles on the CPU",
    "tokenizers": "reads prompts",
    "av": "writes MP4, reads pictures and videos",
    "rich": "progress bars and tables",
    "onnxruntime-gpu": "runs bundles on NVIDIA GPUs: pip install 'worldrt[gpu]'",
    "cuda-python": "GPU memory and streams: pip install 'worldrt[gpu]'",
    "tensorrt": "the fastest engines on NVIDIA GPUs: pip install 'worldrt[gpu]'",
    "tensorrt-rtx": "engines for RTX GPUs, also built ahead of time: pip install 'worldrt[rtx]'",
    "torch": "exporting checkpoints, and the backend torch: pip install 'worldrt[export]'",
    "transformers": "a critic, a refiner or the guardrail's models here: pip install 'worldrt[reason,guardrail]'",
    "httpx": "a critic or refiner behind a server: pip install 'worldrt[critic]'",
    "jinja2": "the critic's reports: pip install 'worldrt[critic]'",
    "aiohttp": "a page to watch and steer a world, trt-run serve: pip install 'worldrt[serve]'",
    "pillow": "animated WebP, the guardrail's models, conditions of driving: pip install 'worldrt[images]'",
    "carla": "conditions from a CARLA simulator, --source carla: pip install 'worldrt[carla]'",
    "nvidia-dali-cuda130": "reads inputs on the GPU, --input_reader dali: pip install nvidia-dali-cuda130",
    "onnx": "exporting checkpoints: pip install 'worldrt[export]'",
    "safetensors": "exporting checkpoints: pip install 'worldrt[export]'",
}
CPU_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)
CODECS = {"libx264": "MP4 on the CPU", "h264_nvenc": "MP4 on the GPU's encoder"}


def doctor(*, as_json: bool) -> int:
    """Print the findings; always returns 0, for absence is a finding."""
    report = examine()
    print(json.dumps(report, indent=1)) if as_json else _print(report)
    return 0


def examine() -> dict[str, Any]:
    """The findings as plain data."""
    return {
        "cpu": _cpu(),
        "memory_bytes": memory_bytes(),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "packages": {name: {"version": version(name), "brings": brings} for name, brings in PACKAGES.items()},
        "codecs": {name: {"works": _codec(name), "brings": brings} for name, brings in CODECS.items()},
        "onnxruntime_providers": _providers(),
        "kernels": _kernels(),
    }


def _cpu() -> dict[str, Any]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        if key.strip() in ("flags", "Features"):
            flags |= set(value.split())
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"model": model, "cores": allowed, "flags": [flag for flag in CPU_FLAGS if flag in flags]}


def _gpus() -> dict[str, Any]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"found": [], "problem": f"no NVIDIA GPU: nvidia-smi does not run ({type(error).__name__})"}
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    keys = ("name", "memory", "driver", "compute_capability")
    return {"found": [dict(zip(keys, row, strict=False)) for row in rows], "problem": None}


def _codec(name: str) -> str:
    """`yes`, or why the encoder cannot be opened; that a name is present proves nothing."""
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        return f"no: {error}"
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    try:
        context = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt, context.framerate = 256, 256, "yuv420p", 16
        context.open()
    except (av.FFmpegError, ValueError) as error:
        return f"no: {error}"
    finally:
        av.logging.set_level(level)
    return "yes"


def _providers() -> list[str]:
    try:
        return list(importlib.import_module("onnxruntime").get_available_providers())
    except ImportError:
        return []


def _kernels() -> dict[str, Any]:
    found = status()
    return {
        "implementation": found.implementation,
        "threads": found.threads,
        "cuda_library": str(found.cuda_library) if found.cuda_library else None,
        "cuda_devices": found.devices,
        "notes": list(found.notes),
    }


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")

    def row(name: str, found: str, note: str = "") -> None:
        table.add_row(escape(name), escape(found), escape(note))

    cpu, memory, gpus = report["cpu"], report["memory_bytes"], report["gpus"]
    row("CPU", cpu["model"], f"{cpu['cores']} cores; {' '.join(cpu['flags'])}")
    row("memory", f"{memory / 2**30:.1f} GiB" if memory else "unknown")
    for gpu in gpus["found"]:
        row("GPU", gpu["name"], ", ".join(value for key, value in gpu.items() if key != "name"))
    if gpus["problem"]:
        row("GPU", "none", f"{gpus['problem']}; bundles run on the CPU")
    row("Python", report["python"])
    for name, package in report["packages"].items():
        row(name, package["version"] or "missing", package["brings"])
    for name, codec in report["codecs"].items():
        row(name, codec["works"], codec["brings"])
    row("providers", ", ".join(report["onnxruntime_providers"]) or "none", "of ONNX Runtime")
    kernels = report["kernels"]
    row("kernels", kernels["implementation"], f"{kernels['threads']} thread(s)")
    for note in kernels["notes"]:
        row("", "", note)
    Console(highlight=False).print(table)
