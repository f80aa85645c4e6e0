"""Two small things that traced modules need."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float] | Sequence[int], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`values` as a vector on the device of `like`.

    Made on the CPU on purpose: in a module that is traced on the meta device these must be the only real numbers.
    """
    return torch.tensor(values, dtype=dtype, device="cpu").to(like.device)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in `dtype`; nothing at all, not even a node of the graph, where it has it already."""
    return x if x.dtype == dtype else x.to(dtype)
