"""The first question: what it costs at run time that a block takes its weights as inputs, instead of constants.

As inputs, one small engine serves all blocks and every fine-tune; as constants, a library may lay them out as its
kernels like them. Asked of every engine that is here, and of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from worldrt.benchmarks.gpu import _engines
from worldrt.benchmarks.gpu._torch import plain_rope
from worldrt.benchmarks.gpu.base import Made, Samples, Setup, first_line, row, timed
from worldrt.benchmarks.results import Table
from worldrt.export.families.cosmos.block import Block, Conditioning
from worldrt.export.families.cosmos.variants import DiTConfig, variant

CASES = {
    "2B, 24 latents of 480p": ("2B", 24, 27, 48),
    "2B, 2 latents of 480p": ("2B", 2, 27, 48),
    "14B, 2 latents of 480p": ("14B", 2, 27, 48),
}
TINY_CASES = {"nano": ("nano", 2, 5, 8)}
COLUMNS = ("case", "where", "weights", "min_ms", "median_ms", "p90_ms", "inputs / constants")
NOTE = "inputs / constants: the ratio of the medians; above 1, constants are faster."
TEXT = 512
Call = Callable[[], object]


def run(setup: Setup) -> Iterator[Made]:
    """Engines first; one that cannot be had is a line of the table."""
    plain_rope()
    for case, (size, frames, rows, columns) in (TINY_CASES if setup.dry else CASES).items():
        shape = (frames, rows, columns)
        for where in _engines.backends(setup):
            try:
                calls = _engines.calls(setup, where, size, shape)
                yield _measured(setup, case, where, calls)
            except Exception as failure:
                yield _line(case, where, first_line(failure)), {}
        try:
            compiled = case == next(iter(CASES))  # compiling takes longer than all the rest
            config = variant(size, "video2world").dit
            yield _measured(setup, case, "torch", _torch_calls(setup, config, shape, compiled=False))
            if compiled:
                compiled_calls = _torch_calls(setup, config, shape, compiled=True)
                yield _measured(setup, case, "compiled torch", compiled_calls)
        except Exception as failure:
            yield _line(case, "torch", first_line(failure)), {}


def _line(case: str, where: str, reason: str) -> list[Table]:
    return [Table(f"Weights as inputs or constants: {case}, {where}", COLUMNS, ((case, where, reason, *[None] * 4),))]


def _measured(setup: Setup, case: str, where: str, calls: dict[str, Call]) -> Made:
    """Pairs of calls named `... constants` and `... inputs`."""
    samples: Samples = {}
    rows: list[tuple[Any, ...]] = []
    for name, call in calls.items():
        try:
            values = timed(setup, call)
        except Exception as failure:
            rows.append((case, where, f"{name}: {first_line(failure)}", *[None] * 4))
            continue
        samples[f"{case}/{where}/{name}_s"] = values
        ratio = None
        against = samples.get(f"{case}/{where}/{name.replace('inputs', 'constants')}_s")
        if name.endswith("inputs") and against:
            ratio = row(values)[1] / row(against)[1]
        rows.append((case, where, name, *row(values), ratio))
    title = f"Weights as inputs or constants: {case}, {where}"
    return [Table(title, COLUMNS, tuple(rows), (NOTE,))], samples


def _torch_calls(setup: Setup, config: DiTConfig, shape: tuple[int, int, int], *, compiled: bool) -> dict[str, Call]:
    """A block as a module, and as a function of its weights; compiled too, where constants are frozen."""
    frames, tokens = shape[0], shape[1] * shape[2]
    dtype = torch.float32 if setup.dry else torch.bfloat16
    torch.manual_seed(0)
    with torch.device(setup.device):
        block = Block(config).to(dtype).eval().requires_grad_(False)
        cond = Conditioning(
            torch.randn(1, frames, config.width, dtype=dtype), torch.randn(1, frames, 3 * config.width, dtype=dtype)
        )
        angles = torch.rand(1, frames * tokens, config.head_dim // 2) * 6
        given = (
            torch.randn(1, frames, tokens, config.width, dtype=dtype),
            torch.randn(1, TEXT, config.text_width, dtype=dtype),
            cond,
            angles.cos(),
            angles.sin(),
        )
    state = dict(block.named_parameters())

    def as_function(weights: dict[str, Any], *arguments: Any) -> Any:
        return torch.func.functional_call(block, weights, arguments)

    def without_grad(call: Call) -> Call:
        return torch.no_grad()(call)

    calls: dict[str, Call] = {
        "eager, constants": lambda: block(*given),
        "eager, inputs": lambda: as_function(state, *given),
    }
    if compiled:
        frozen = torch.compile(block, options={"freezing": True})
        free = torch.compile(as_function)
        calls = {
            "compiled, constants": lambda: frozen(*given),
            "compiled, inputs": lambda: free(state, *given),
        }
    return {name: without_grad(call) for name, call in calls.items()}
