"""Numbers that a graph carries in itself, as opposed to weights of the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float] | Sequence[int], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`values` as a vector on the device of `like`.

    Made on the CPU on purpose: in a module that is traced on the meta device these must be the only real numbers.
    """
    return torch.tensor(values, dtype=dtype, device="cpu").to(like.device)
