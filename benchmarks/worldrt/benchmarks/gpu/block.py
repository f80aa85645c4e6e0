"""One transformer block in the shape of the 2B model, with random weights: eager, compiled, and as a CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch

from worldrt.benchmarks.gpu._torch import plain_rope
from worldrt.benchmarks.gpu.base import Made, Samples, Setup, first_line, relative_error, row, timed
from worldrt.benchmarks.results import Table
from worldrt.export.families.cosmos.block import Block, Conditioning
from worldrt.export.families.cosmos.variants import DiTConfig

FULL = DiTConfig(blocks=1, width=2048, heads=16, rope_ratio=(1.0, 3.0, 3.0), condition_mask=True)
TINY = DiTConfig(1, 64, 4, (1.0, 1.0, 1.0), condition_mask=True, adaln_rank=16, text_width=32)
CASES = {"two latents 480p": (2, 1296), "text2image": (1, 4080), "480p, 16 latents": (16, 1296)}
TINY_CASES = {"tiny": (2, 12)}
TEXT_TOKENS = 512
Call = Callable[[], torch.Tensor]


def run(setup: Setup) -> Iterator[Made]:
    """A table for each case, then one for each that is compiled, which takes longer than all the rest; a mode that
    cannot be had is a line of it."""
    plain_rope()
    config = TINY if setup.dry else FULL
    torch.manual_seed(0)
    reference_block = Block(config).to(setup.device).eval()
    cases = TINY_CASES if setup.dry else CASES
    for modes in (("eager", "cuda graph"), ("compile",)):
        for case, (frames, tokens) in cases.items():
            given = _inputs(config, setup.device, frames, tokens)
            with torch.no_grad():
                yield _measured(setup, case, config, reference_block, given, modes)


def _measured(
    setup: Setup,
    case: str,
    config: DiTConfig,
    reference_block: Block,
    given: tuple[Any, ...],
    modes: tuple[str, ...],
) -> Made:
    """Compiled in bfloat16 alone."""
    reference = reference_block(*given)
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    for dtype in (torch.bfloat16,) if modes == ("compile",) else (torch.float32, torch.bfloat16):
        block, kind = copy.deepcopy(reference_block).to(dtype), str(dtype).removeprefix("torch.")
        arguments = _cast(given, dtype)
        for mode in modes:
            try:
                call = _prepared(setup, mode, block, arguments)
                error = relative_error(call(), reference)
                values = timed(setup, call)
            except Exception as failure:
                rows.append((kind, f"{mode}: {first_line(failure)}", *[None] * 5))
                continue
            samples[f"{case}/{kind}/{mode}_s"] = values
            rate = flops(config, given[0].shape[1] * given[0].shape[2]) / min(values) / 1e12
            rows.append((kind, mode, *row(values), rate, error))
    columns = ("dtype", "mode", "min_ms", "median_ms", "p90_ms", "TFLOP/s", "max_abs / max")
    notes = (
        "The error is against eager float32 on the same device. TFLOP/s counts multiply-adds of linear layers and "
        "attention as two.",
    )
    title = f"One block of width {config.width} on {setup.device}: {case}{', compiled' * (modes == ('compile',))}"
    return [Table(title, columns, tuple(rows), notes)], samples


def flops(config: DiTConfig, length: int) -> float:
    """Of one block over `length` tokens; modulation, once per frame, is left out."""
    width, text = config.width, TEXT_TOKENS
    linear = 2 * length * width * width * (6 + 2 * config.mlp_ratio) + 4 * text * config.text_width * width
    return float(linear + 4 * length * (length + text) * width)


def _inputs(config: DiTConfig, device: str, frames: int, tokens: int) -> tuple[Any, ...]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device)

    angles = torch.rand((1, frames * tokens, config.head_dim // 2), device=device) * 6
    cond = Conditioning(normal(1, frames, config.width), normal(1, frames, 3 * config.width))
    return (
        normal(1, frames, tokens, config.width),
        normal(1, TEXT_TOKENS, config.text_width),
        cond,
        angles.cos(),
        angles.sin(),
    )


def _cast(given: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """Everything but the RoPE tables, which stay float32."""
    hidden, text, cond, cos, sin = given
    return hidden.to(dtype), text.to(dtype), Conditioning(*(part.to(dtype) for part in cond)), cos, sin


def _prepared(setup: Setup, mode: str, block: torch.nn.Module, arguments: tuple[Any, ...]) -> Call:
    """A call without arguments. Raises what the mode raises where it is not to be had."""
    if mode == "eager":
        return lambda: block(*arguments)
    if setup.dry:
        raise RuntimeError("not tried without a CUDA device")
    if mode == "compile":
        compiled = torch.compile(block)
        return lambda: compiled(*arguments)
    return captured(lambda: block(*arguments))


def captured(call: Call) -> Call:
    """The call as a replay of one CUDA graph; its output is always the same memory."""
    make_stream: Any = torch.cuda.Stream
    side = make_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay
