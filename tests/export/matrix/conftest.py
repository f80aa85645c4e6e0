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

from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import DiTConfig, VAEConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "matrix"


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors, its weights by official key, the configuration of the network."""

    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]
    config: dict[str, Any]

    def dit_config(self) -> DiTConfig:
        c = self.config
        return DiTConfig(
            blocks=c["num_layers"],
            heads=c["num_attention_heads"],
            head_dim=c["attention_head_dim"],
            latent_channels=c["in_channels"],
            time_width=c["time_embed_dim"],
            text_width=c["text_embed_dim"],
            control_width=c["control_dim"],
            control_start=c["control_start_layer"],
            control_end=c["control_end_layer"],
        )

    def dit(self) -> DiT:
        dit = DiT(self.dit_config())
        dit.load_state_dict(self.weights)
        return dit.requires_grad_(False)

    def vae_config(self) -> VAEConfig:
        """Golden latents are not scaled."""
        c = self.config
        widths, groups = tuple(c["block_out_channels"]), c["norm_num_groups"]
        return VAEConfig(widths, c["layers_per_block"], groups, c["latent_channels"], scaling=1.0)

    def decode(self) -> DecodeChunk:
        decode = DecodeChunk(self.vae_config(), pixel_format=None)
        decode.load_state_dict(self.weights)
        return decode.requires_grad_(False)

    def encode(self) -> EncodeChunk:
        encode = EncodeChunk(self.vae_config())
        encode.load_state_dict(self.weights)
        return encode.requires_grad_(False)


class Goldens:
    """Opens golden files by name."""

    def __call__(self, name: str) -> Golden:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        others = {k: v for k, v in tensors.items() if not k.startswith("weights.")}
        return Golden(others, weights, json.loads(metadata.get("config", "{}")))


@pytest.fixture(scope="session")
def golden() -> Goldens:
    return Goldens()


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
