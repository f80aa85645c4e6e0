"""Which machine and which software a figure was measured on."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

PACKAGES = (
    *("worldrt", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "transformers"),
    *("onnx", "onnx-ir", "onnxscript", "tensorrt", "tensorrt-rtx", "cuda-python"),
)
SIMD = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)

ROOMS = ("engine", "export", "kernels", "runtime", "benchmarks")


@dataclass(frozen=True)
class Machine:
    """`cores` are those this process may use. `load` is the number of running processes, averaged over the last minute
    before the run. `gpus` are lines of name, driver, memory, limits.
    """

    date: str
    command: str
    commit: str | None
    dirty: bool
    cpu: str
    simd: tuple[str, ...]
    cores: int
    ram_bytes: int
    load: float
    gpus: tuple[str, ...]
    system: str
    python: str
    packages: Mapping[str, str]

    @property
    def slug(self) -> str:
        """A short name for files: `amd-epyc-2c`."""
        name = f"{self.gpus[0].split(',')[0] if self.gpus else self.cpu}-{self.cores}c"
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def identify(argv: Sequence[str]) -> Machine:
    """Look at this machine. `argv` are the arguments of the running `trt-bench`."""
    commit, dirty = _commit()
    model, flags = _cpu()
    return Machine(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["trt-bench", *argv]),
        commit=commit,
        dirty=dirty,
        cpu=model,
        simd=tuple(name for name in SIMD if name in flags),
        cores=available_cores(),
        ram_bytes=_ram_bytes(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        gpus=_gpus(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_packages(),
    )


def has_gpu() -> bool:
    """Whether NVIDIA's driver names one."""
    return bool(_gpus())


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> tuple[str, set[str]]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), set()
    text = info.read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine(), set(flags[1].split()) if flags else set()


def _ram_bytes() -> int:
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0


def _gpus() -> tuple[str, ...]:
    fields = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    text = _output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def _commit() -> tuple[str | None, bool]:
    """The commit of the checkout this module lies in, and whether its code is another one."""
    folder = str(Path(__file__).parent)
    top = _output("git", "-C", folder, "rev-parse", "--show-toplevel")
    if not top or not (Path(top.strip()) / "benchmarks" / "worldrt").is_dir():
        return None, False
    head = _output("git", "-C", folder, "rev-parse", "HEAD")
    code = (*ROOMS, ":(exclude)benchmarks/results")
    changes = _output("git", "-C", top.strip(), "status", "--porcelain", "--", *code)
    return (head or "").strip() or None, bool((changes or "").strip())


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
