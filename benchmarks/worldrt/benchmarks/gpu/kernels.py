"""The kernels on device memory: the same bits as on the host, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from worldrt import kernels
from worldrt.benchmarks.gpu.base import CheckError, Made, MissingError, Samples, Setup, row, timed
from worldrt.benchmarks.results import Table
from worldrt.kernels import cuda

SHAPES = {"nano": (1, 16, 5, 10, 16), "480p": (1, 16, 24, 54, 96), "720p": (1, 16, 24, 88, 160)}
GUIDANCE = 7.0


def run(setup: Setup) -> Iterator[Made]:
    """Raises `MissingError` where the CUDA kernels are not built, `CheckError` where a bit differs."""
    if not setup.dry and kernels.status().cuda_library is None:
        raise MissingError("; ".join(note for note in kernels.status().notes if note.startswith("CUDA")))
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    cases = (("multistep_update", _update), ("counter_normal", _normal), ("rgb_to_yuv420", _yuv420))
    for size in ["nano"] if setup.dry else list(SHAPES):
        for name, case in cases:
            call, result, expected, moved_bytes = case(setup, SHAPES[size])
            call()
            different = int((result().cpu() != expected).sum())
            samples[f"{name} {size}_s"] = values = timed(setup, call)
            rows.append((name, size, expected.numel(), different, *row(values), moved_bytes / min(values) / 1e9))
    columns = ("kernel", "size", "values", "different bits", "min_ms", "median_ms", "p90_ms", "GB/s")
    notes = ("different bits: values that are not those of the same kernel on the host; 0 is expected.",)
    yield [Table(f"Kernels on {setup.device}", columns, tuple(rows), notes)], samples
    wrong = [f"{kernel} {size}" for kernel, size, _, different, *_ in rows if different]
    if wrong:
        raise CheckError(f"other bits than on the host: {', '.join(wrong)}")


Case = tuple[Callable[[], object], Callable[[], torch.Tensor], torch.Tensor, int]
"""The call, its result, the expected result, and the bytes it reads and writes."""


def _update(setup: Setup, shape: tuple[int, ...]) -> Case:
    """Not in place, so that it may be called again and again."""
    generator = torch.Generator().manual_seed(0)
    x, x0, uncond, prev = torch.randn((4, *shape), generator=generator)
    rows = torch.tensor([0.9, 0.1, 0.05, 0.0], dtype=torch.float64).repeat(shape[2], 1)
    given = {"uncond": uncond, "prev": prev}
    expected = kernels.multistep_update(
        x.numpy(), x0.numpy(), coefficients=rows.numpy(), guidance=GUIDANCE, **{n: t.numpy() for n, t in given.items()}
    )
    moved = 5 * x.nbytes
    if setup.dry:
        out = torch.empty_like(x)
        update = kernels.MultistepUpdate(
            x.numpy(), x0.numpy(), uncond=uncond.numpy(), prev=prev.numpy(), guidance=GUIDANCE, out=out.numpy()
        )
        return (lambda: update(rows.numpy())), (lambda: out), torch.from_numpy(expected), moved
    x, x0, rows, out = x.cuda(), x0.cuda(), rows.cuda(), torch.empty_like(x, device="cuda")
    there = {name: tensor.cuda() for name, tensor in given.items()}

    def call() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        cuda.multistep_update(x, x0, coefficients=rows, guidance=GUIDANCE, out=out, stream=stream, **there)

    return call, (lambda: out), torch.from_numpy(expected), moved


def _yuv420(setup: Setup, shape: tuple[int, ...]) -> Case:
    """Four frames of uint8 RGB to NV12."""
    height, width = 8 * shape[3], 8 * shape[4]
    frames = torch.randint(0, 256, (4, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(kernels.rgb_to_yuv420(frames.numpy(), layout="nv12"))
    moved = frames.nbytes + expected.nbytes
    out = torch.empty_like(expected, device=setup.device)
    if setup.dry:
        return (
            (lambda: kernels.rgb_to_yuv420(frames.numpy(), layout="nv12", out=out.numpy())),
            (lambda: out),
            expected,
            moved,
        )
    frames = frames.cuda()

    def call() -> None:
        cuda.rgb_to_yuv420(frames, layout="nv12", out=out, stream=torch.cuda.current_stream().cuda_stream)

    return call, (lambda: out), expected, moved


def _normal(setup: Setup, shape: tuple[int, ...]) -> Case:
    """Noise for all frames of a window."""
    frames, count = shape[2], shape[1] * shape[3] * shape[4]
    counters = np.array([(1, 999, frame, 0) for frame in range(frames)], np.int64)
    expected = torch.from_numpy(kernels.counter_normal(np.empty((frames, count), np.float32), counters, seed=1))
    out = torch.empty_like(expected, device=setup.device)
    if setup.dry:
        return (lambda: kernels.counter_normal(out.numpy(), counters, seed=1)), (lambda: out), expected, out.nbytes
    there = torch.from_numpy(counters).cuda()

    def call() -> None:
        cuda.counter_normal(out, there, seed=1, stream=torch.cuda.current_stream().cuda_stream)

    return call, (lambda: out), expected, out.nbytes
