"""`trt-bench io`: frames into files and out of them, against PyAV as its manual has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from worldrt.benchmarks import figures, tables
from worldrt.benchmarks.results import Extra, Table
from worldrt.benchmarks.rounds import interleave
from worldrt.benchmarks.worker import Worker

OURS, BASELINE = "worldrt", "PyAV"
NOTES = (
    "Of one frame. convert: uint8 RGB to planes; write: converted, encoded by libx264 and muxed into an MP4 that is "
    "moved into its place; read: demuxed, decoded and converted back. worldrt converts by the matrix and the siting of "
    "BT.709 that it declares, and turns pictures upright; PyAV is told neither.",
)


def run(
    frames: int, rounds: int, threads: int, scratch: Path, progress: Callable[[str], None]
) -> tuple[list[Table], dict[str, list[float]], Extra]:
    """`frames` of each size in a round."""
    options = {"folder": str(scratch), "count": frames}
    with (
        Worker(OURS, "frames", {"ours": True, **options}, threads) as ours,
        Worker(BASELINE, "frames", {"ours": False, **options}, threads) as theirs,
    ):
        workers = {OURS: ours, BASELINE: theirs}
        samples = interleave(workers, rounds, progress=progress)
        peaks = {name: worker.peak_bytes for name, worker in workers.items()}
        opened = {name: worker.opened["open_s"] for name, worker in workers.items()}
    made = [
        tables.stages(samples, "Time of a frame", NOTES),
        tables.speedups(samples, BASELINE),
        tables.memory(peaks, opened, BASELINE),
    ]
    drawn = (figures.histogram(samples, "write 720p"), figures.memory(peaks))
    return made, tables.flat(samples), Extra(drawn)
