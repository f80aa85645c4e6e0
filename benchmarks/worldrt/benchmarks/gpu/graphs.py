"""CUDA graphs: that a replay gives the result of the eager run and reads new values, and what it saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from worldrt.benchmarks.gpu._torch import materialised
from worldrt.benchmarks.gpu.base import (
    CheckError,
    Made,
    MissingError,
    Samples,
    Setup,
    absent,
    first_line,
    relative_error,
)
from worldrt.benchmarks.gpu.block import TEXT_TOKENS, captured
from worldrt.benchmarks.results import Table
from worldrt.engine.device import Buffer
from worldrt.engine.errors import BackendError
from worldrt.export.families.cosmos.block import Block, Conditioning
from worldrt.export.families.cosmos.variants import variant

COLUMNS = ("graph", "as eager", "with new values", "eager_us", "replay_us")
NOTE = (
    "As eager: bit for bit with the engine's own graphs, to 1e-5 of the largest with torch, whose libraries may choose "
    "other kernels in a capture. Microseconds from the call to the end of the work, the median."
)
BLOCKS = 8
TORCH_LIMIT = 1e-5
Result = tuple[bool, bool, list[float], list[float]]
"""Equal, equal with new values, seconds of eager runs and of replays."""


def run(setup: Setup) -> Iterator[Made]:
    """Raises `CheckError` where a replay differs; `MissingError` without a GPU, and after torch's graphs where there is
    nothing for ours."""
    if setup.dry:
        raise MissingError("a CUDA graph needs a GPU")
    wrong: list[str] = []
    lacks = _lacks()
    ours = [] if lacks else [("the engine's own, 8 updates", _engine)]
    for name, measure in [("torch, 8 blocks of nano", _torch), *ours]:
        samples: Samples = {}
        try:
            same, fresh, eager, replay = measure(setup)
        except (BackendError, RuntimeError) as failure:
            wrong.append(name)
            line: tuple[Any, ...] = (name, first_line(failure), None, None, None)
        else:
            samples = {f"{name}/eager_s": eager, f"{name}/replay_s": replay}
            times = (1e6 * float(np.median(values)) for values in (eager, replay))
            line = (name, "yes" if same else "NO", "yes" if fresh else "NO", *times)
            wrong += [] if same and fresh else [name]
        yield [Table(f"CUDA graphs: {name}", COLUMNS, (line,), (NOTE,))], samples
    if wrong:
        raise CheckError(", ".join(wrong))
    if lacks:
        raise MissingError(f"the engine's own graphs were not tried: {lacks}")


def _lacks() -> str | None:
    """What the engine's own graphs need and is not here."""
    from worldrt.kernels import cuda

    reason = cuda.missing()
    return "cuda-python is not installed" if absent("cuda.bindings") else reason and f"CUDA kernels: {reason}"


@torch.no_grad()
def _torch(setup: Setup) -> Result:
    """Small blocks: the host is slower than the GPU, which is where graphs pay."""
    config = variant("nano", "video2world").dit
    blocks = [materialised(lambda: Block(config), "cuda", torch.float32) for _ in range(BLOCKS)]
    with torch.device("cuda"):
        x = torch.randn(1, 2, 40, config.width)
        text = torch.randn(1, TEXT_TOKENS, config.text_width)
        cond = Conditioning(torch.randn(1, 2, config.width), torch.randn(1, 2, 3 * config.width))
        angles = torch.rand(1, 80, config.head_dim // 2)

    def call() -> torch.Tensor:
        state = x
        for block in blocks:
            state = block(state, text, cond, angles.cos(), angles.sin())
        return state

    replay = captured(call)
    same = relative_error(call(), replay()) <= TORCH_LIMIT
    x.normal_()
    fresh = relative_error(call(), replay()) <= TORCH_LIMIT
    return same, fresh, _clocked(setup, call), _clocked(setup, replay)


def _engine(setup: Setup) -> Result:
    """`worldrt.engine.graphs` around the update kernel and copies, through cuda-python."""
    from worldrt import kernels
    from worldrt.engine.cuda import CudaDevice
    from worldrt.engine.graphs import StepGraphs
    from worldrt.kernels import cuda

    device = CudaDevice()
    shape = (1, 16, 5, 10, 16)
    generator = np.random.default_rng(0)
    first, x0 = (generator.standard_normal(shape, np.float32) for _ in range(2))
    x, target, out = (device.empty(shape, "float32") for _ in range(3))
    rows = device.empty((shape[2], 4), "float64")
    device.upload(target, x0)

    def coefficients(a: float) -> np.ndarray[Any, Any]:
        return np.tile(np.array([a, 0.25, 0.0, 0.0]), (shape[2], 1))

    def body() -> None:
        for _ in range(BLOCKS):
            cuda.multistep_update(x, target, coefficients=rows, out=out, stream=device.stream)
            device.copy(x, out)

    def done(run: Callable[[], None], a: float) -> np.ndarray[Any, Any]:
        device.upload(x, first)
        device.upload(rows, coefficients(a))
        run()
        return device.download(x)

    def expected(a: float) -> np.ndarray[Any, Any]:
        state = first
        for _ in range(BLOCKS):
            state = kernels.multistep_update(state, x0, coefficients=coefficients(a))
        return state

    graphs = StepGraphs(device, mode="on")

    def step() -> None:
        graphs.run(_key(x, out), body)

    results = [done(step, 0.5) for _ in range(3)]  # eager, captured, launched
    if graphs.off is not None:
        raise RuntimeError(graphs.off)
    same = all(np.array_equal(result, expected(0.5)) for result in results)
    fresh = bool(np.array_equal(done(step, 0.75), expected(0.75)))
    return same, fresh, _clocked(setup, body, device.synchronize), _clocked(setup, step, device.synchronize)


def _key(*buffers: Buffer) -> tuple[int, ...]:
    return tuple(buffer.pointer for buffer in buffers)


def _clocked(
    setup: Setup, call: Callable[[], object], wait: Callable[[], object] = torch.cuda.synchronize
) -> list[float]:
    """Seconds by the host's clock, until the work is done."""
    values = []
    for _ in range(max(20, setup.rounds)):
        wait()
        start = time.perf_counter()
        call()
        wait()
        values.append(time.perf_counter() - start)
    return values
