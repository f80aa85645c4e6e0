"""`trt-bench kernels`: the compiled kernels against their numpy twins."""

from __future__ import annotations

from collections.abc import Callable

from worldrt.benchmarks import tables
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.rounds import interleave
from worldrt.benchmarks.worker import Worker

BASELINE = "numpy"


def run(rounds: int, threads: int, progress: Callable[[str], None]) -> tuple[list[Table], dict[str, list[float]]]:
    """Raises `BackendError` where the kernels are not built."""
    with (
        Worker("native", "kernels", {"native": True}, threads) as native,
        Worker(BASELINE, "kernels", {"native": False}, threads) as twin,
    ):
        samples = interleave({"native": native, BASELINE: twin}, rounds, progress=progress)
    notes = (
        "update: guided two-step update in place, and the guided x0 kept. yuv420: four frames of uint8 RGB to NV12.",
    )
    return [tables.stages(samples, "Time of a call", notes), tables.speedups(samples, BASELINE)], tables.flat(samples)
