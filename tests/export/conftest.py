"""A module small enough to trace in a blink, and its checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import WeightStore
from worldrt.export.graphs import GraphSource


class Toy(nn.Module):
    """Two linear layers over rows of tokens, folded and unfolded, so that shapes are computed in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 8, bias=False)

    def forward(self, state: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        folded = state.to(self.first.weight.dtype).unflatten(2, (-1, 2)).sum(3)
        hidden = self.second(torch.sin(self.first(folded)))
        return state + hidden.repeat_interleave(2, 2).to(state.dtype), *(c.flip(1) for c in caches)


def toy_source(dtype: torch.dtype = torch.float32) -> GraphSource:
    """Names that traps lie in: an output like an input, an input like an operator."""
    with torch.device("meta"):
        module = Toy().to(dtype)
    state = TensorSpec("state", "float32", ("batch", "rows", "2*columns", 8))
    caches = tuple(TensorSpec(name, "float32", ("batch", "frames", "4*rows")) for name in ("sin", "val_0"))
    outputs = (state, *(TensorSpec(f"{c.name}_out", c.dtype, c.shape) for c in caches))
    return GraphSource("toy", module, (state, *caches), outputs, {n: f"net.{n}" for n, _ in module.named_parameters()})


def toy_store(folder: Path, dtype: torch.dtype = torch.float32) -> WeightStore:
    """Seeded weights of the toy in `folder/sub/toy.safetensors`, behind another tensor."""
    torch.manual_seed(0)
    tensors = {f"net.{name}": value.to(dtype) for name, value in Toy().state_dict().items()}
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    path = folder / "sub" / "toy.safetensors"
    save_file({"aaa": torch.ones(3, dtype=torch.float64)} | tensors, path)
    file = SafetensorsFile.open(path)
    return WeightStore(folder, dict.fromkeys(file.tensors, file))


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    """`Module`, `source(dtype)`, `store(folder, dtype)`"""
    return SimpleNamespace(Module=Toy, source=toy_source, store=toy_store)
