"""The rates that the cost model is made of: products of matrices, attention, convolutions, and copies, by torch.

In the shapes of 2B at 720p: linear layers over its tokens, attention of a shard of them, a layer of the VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from worldrt.benchmarks.costs.work import attention, linear
from worldrt.benchmarks.gpu.base import Made, Samples, Setup, first_line, row, timed
from worldrt.benchmarks.results import Table

TOKENS, WIDTH, HEADS = 84_480, 2048, 16
CONTEXT = 31_104
"""Tokens of the clip at 480p: the rate is the same, and this takes less time."""
TFLOPS = "TFLOP/s"
Case = tuple[Callable[[], object], float, float]
"""A call, its FLOPs, and the bytes that it moves."""


@torch.no_grad()
def run(setup: Setup) -> Iterator[Made]:
    """A line for each; one that fails says why."""
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    for name, make in CASES.items():
        try:
            call, flops, moved = make(setup)
            values = timed(setup, call)
        except Exception as failure:
            rows.append((f"{name}: {first_line(failure)}", *[None] * 5))
            continue
        samples[f"{name}_s"] = values
        best = min(values)
        rows.append((name, *row(values), flops / best / 1e12 if flops else None, moved / best / 1e9))
    columns = ("rate", "min_ms", "median_ms", "p90_ms", TFLOPS, "GB/s")
    notes = ("For trt-bench predict --rates FILE. GB/s counts each tensor that is read or written once.",)
    yield [Table(f"Rates of {setup.device} in {_dtype(setup)}", columns, tuple(rows), notes)], samples


def _dtype(setup: Setup) -> torch.dtype:
    return torch.float32 if setup.dry else torch.bfloat16


def _products(setup: Setup) -> Case:
    tokens, width = (64, 32) if setup.dry else (TOKENS, WIDTH)
    kind: dict[str, Any] = {"device": setup.device, "dtype": _dtype(setup)}
    x, weight = torch.randn(tokens, width, **kind), torch.randn(4 * width, width, **kind)
    moved = x.element_size() * (x.numel() + weight.numel() + 4 * x.numel())
    return (lambda: torch.nn.functional.linear(x, weight)), linear(tokens, width, 4 * width), moved


def _attention(setup: Setup) -> Case:
    tokens, width, heads = (64, 32, 2) if setup.dry else (CONTEXT, WIDTH, HEADS)
    shape = (1, heads, tokens, width // heads)
    q, k, v = (torch.randn(shape, device=setup.device, dtype=_dtype(setup)) for _ in range(3))
    call = torch.nn.functional.scaled_dot_product_attention
    return (lambda: call(q, k, v)), attention(1, tokens, tokens, width), 4 * q.nbytes


def _convolution(setup: Setup) -> Case:
    channels, rows, columns = (8, 16, 16) if setup.dry else (96, 704, 1280)
    kind: dict[str, Any] = {"device": setup.device, "dtype": _dtype(setup)}
    x, weight = torch.randn(4, 3 * channels, rows, columns, **kind), torch.randn(channels, 3 * channels, 3, 3, **kind)
    flops = 2.0 * 4 * rows * columns * channels * 3 * channels * 9
    return (lambda: torch.nn.functional.conv2d(x, weight, padding=1)), flops, 4 * x.nbytes / 3


def _copy(setup: Setup) -> Case:
    source = torch.ones(2**16 if setup.dry else 2**30, dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    return (lambda: target.copy_(source)), 0.0, 2.0 * source.nbytes


CASES: dict[str, Callable[[Setup], Case]] = {
    "matrix products": _products,
    "attention": _attention,
    "convolutions": _convolution,
    "copies": _copy,
}
