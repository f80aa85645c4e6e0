"""GPUs as data: what their makers say of them. Rates that are reached are measured, or fitted to published times."""

from __future__ import annotations

from dataclasses import dataclass

from worldrt.engine.errors import InputError


@dataclass(frozen=True)
class GPU:
    """`peak`: dense bfloat16 FLOP/s. `bandwidth`: of its memory, bytes/s. `link`: to each other GPU, bytes/s in one
    direction."""

    name: str
    peak: float
    bandwidth: float
    memory_bytes: float
    link: float


GPUS = (
    GPU("B200", 2250e12, 8.0e12, 180e9, 900e9),
    GPU("H200 SXM", 989e12, 4.8e12, 141e9, 450e9),
    GPU("H200 NVL", 835e12, 4.8e12, 141e9, 450e9),
    GPU("H100 SXM", 989e12, 3.35e12, 80e9, 450e9),
    GPU("H100 PCIe", 756e12, 2.0e12, 80e9, 64e9),
    GPU("H100 NVL", 835e12, 3.9e12, 94e9, 300e9),
)


def gpu(name: str) -> GPU:
    """`h200` is the first whose name begins so, whatever the case and what stands between the words. Raises
    `InputError` that lists what there is."""
    wanted = _plain(name)
    for candidate in GPUS:
        if wanted and _plain(candidate.name).startswith(wanted):
            return candidate
    raise InputError(f"--gpu {name}: there are {', '.join(g.name for g in GPUS)}")


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
