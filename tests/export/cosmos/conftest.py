"""Golden tensors of the official code, and small networks that carry their weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.export.families.cosmos.weights import dit_keys

GOLDEN = Path(__file__).parents[2] / "golden" / "cosmos"


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors, its weights by official key, its metadata."""

    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]
    meta: dict[str, Any]

    def dit_config(self) -> DiTConfig:
        c = self.meta["config"]
        return DiTConfig(
            blocks=c["num_blocks"],
            width=c["model_channels"],
            heads=c["num_heads"],
            rope_ratio=tuple(c[f"rope_{axis}_extrapolation_ratio"] for axis in "thw"),
            # 16 latent channels, the padding mask, and the rest of the patch vector
            condition_mask=self.weights["x_embedder.proj.1.weight"].shape[1] == 4 * 18,
            adaln_rank=c["adaln_lora_dim"],
            text_width=c["crossattn_emb_channels"],
        )

    def dit(self) -> DiT:
        dit = DiT(self.dit_config())
        names = {key: dit_keys().name(key, "official") for key in self.weights}
        dit.load_state_dict({name: self.weights[key] for key, name in names.items() if name is not None})
        return dit.requires_grad_(False)


class Goldens:
    """Opens golden files by name."""

    def __call__(self, name: str) -> Golden:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = json.loads(file.metadata()["meta"])
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        return Golden({k: v for k, v in tensors.items() if not k.startswith("weights.")}, weights, meta)


@pytest.fixture(scope="session")
def golden() -> Goldens:
    return Goldens()


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
