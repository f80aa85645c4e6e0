"""Checkpoints with seeded random weights, as `nano` models have them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldrt.export.modules.keys import KeyMap
from worldrt.export.modules.t5 import T5Config

TRANSFORMER_FILE = "diffusion_pytorch_model.safetensors"
TEXT_FILE = "model.safetensors"
Distribution = Callable[[str, Tensor], tuple[float, float]]
"""Mean and standard deviation by name and parameter."""


def random_tensors(
    modules: list[nn.Module], keys: KeyMap | None, seed: int, part: str, distribution: Distribution
) -> dict[str, Tensor]:
    """Weights by checkpoint key (without `keys`, by name); every tensor has a seed of its own."""
    tensors = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{part}/{name}".encode()))
            mean, std = distribution(name, parameter)
            values = torch.randn(parameter.shape, generator=generator) * std + mean
            tensors[name if keys is None else keys.key(name, "diffusers")] = values
    return tensors


def distribution(name: str, parameter: Tensor) -> tuple[float, float]:
    """Mean and standard deviation. Norms are near one; the last layer of a modulation is kept small but not zero."""
    leaf = name.rpartition(".")[2]
    if leaf == "bias":
        return 0.0, 0.02
    if leaf == "gamma" or parameter.dim() == 1:
        return 1.0, 0.05
    fan_in = math.prod(parameter.shape[1:])
    if name.startswith("embedding."):
        return 0.0, 1.0
    if name.endswith(("modulation.up.weight", "position_bias.weight")):
        return 0.0, 0.3 / math.sqrt(fan_in)
    if name.startswith("layers.") and name.endswith(".q.weight"):  # T5 does not scale its attention
        return 0.0, 0.2 / math.sqrt(fan_in)
    return 0.0, 1.0 / math.sqrt(fan_in)


def text_config(config: T5Config) -> dict[str, Any]:
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.head_dim,
        "d_ff": config.feed_forward,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.max_distance,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def write(folder: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """One safetensors file and a `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
