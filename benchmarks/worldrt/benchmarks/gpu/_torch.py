"""Torch modules of the true size with random weights, made where they run, and as torch.compile likes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from worldrt.export.families.cosmos import block


def materialised(make: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> Any:
    """The module that `make` makes, without a copy on the host: weights of a small scale, norms of 1, biases of 0."""
    with torch.device("meta"):
        module = make().to(dtype)
    module = module.to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.numel() > parameter.shape[0]:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return module


def plain_rope() -> None:
    """Have this process write the rotary embedding out: torch.compile does not see into the ONNX operator that exports
    keep whole, and a baseline is to be a good one."""
    vars(block)["rotate"] = rotate


def rotate(x_BHLE: Tensor, cos_BLF: Tensor, sin_BLF: Tensor) -> Tensor:
    """What `rope.rotate` does, in operators that a compiler can fuse."""
    first, second = x_BHLE.float().chunk(2, dim=-1)
    cos, sin = cos_BLF.unsqueeze(1), sin_BLF.unsqueeze(1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BHLE.dtype)


def peak_gb(device: str) -> float | None:
    """The most memory that torch had on the GPU since this was last asked."""
    if device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak
