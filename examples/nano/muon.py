"""Muon: steepest descent in the spectral norm, for the matrices of a network (Jordan et al. 2024; arXiv 2502.16982).

The momentum of a matrix is replaced by the nearest orthogonal one. A convolution is the matrix that maps a patch to its
outputs. On the small networks here a step of it is worth about two of AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import team
import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ADAM_RMS = 0.2
"""Root mean square of an update of AdamW, so that both share their rates (arXiv 2502.16982, section 2.2)."""


class Muon(torch.optim.Optimizer):
    """`rate` and `weight_decay` as AdamW's; parameters of two or more dimensions."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along what the gradients say; each process of a team works out its share of the updates."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = [torch.zeros_like(parameter) for parameter in parameters]
            for number, (parameter, update) in enumerate(zip(parameters, updates, strict=True)):
                momentum = self._momentum(parameter)
                if number % team.size() == team.rank():
                    update.copy_(_update(parameter.grad.lerp(momentum, MOMENTUM)))
            team.add_up(updates)
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        momentum: Tensor = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return momentum


def _update(direction: Tensor) -> Tensor:
    matrix = direction.reshape(direction.shape[0], -1)
    return (orthogonal(matrix) * (ADAM_RMS * math.sqrt(max(matrix.shape)))).view(direction.shape)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all one: five steps of a Newton-Schulz iteration."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    out: Tensor = x.T if tall else x
    return out


def optimizers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices and convolutions, AdamW for what is left: embeddings, norms, biases."""
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in filter(lambda parameter: parameter.requires_grad, network.parameters()):
        is_matrix = parameter.dim() > 1 and min(parameter.shape[0], parameter[0].numel()) > 1
        (matrices if is_matrix and id(parameter) not in embeddings else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    return [Muon(matrices, rate), adam]
