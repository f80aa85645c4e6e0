"""Writes the `nano` checkpoint: the real networks, very small, with seeded random weights.

    text2image/ video2world/   transformers      vae/   text_encoder/   tokenizer/tokenizer.json

Each folder holds one safetensors file (float32, keys as diffusers and transformers write them) and a `config.json` that
those libraries can read.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep
from worldrt.export.families.cosmos.variants import DiTConfig, VAEConfig, variant
from worldrt.export.families.cosmos.weights import dit_keys, vae_keys
from worldrt.export.modules.keys import KeyMap, text_keys
from worldrt.export.modules.nano_tokenizer import train
from worldrt.export.modules.t5 import T5Config, T5Encoder

TRANSFORMER_FILE = "diffusion_pytorch_model.safetensors"
TEXT_FILE = "model.safetensors"


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in a few seconds. The same bytes for the same seed."""
    image, video = variant("nano", "text2image"), variant("nano", "video2world")
    for part in (image, video):
        with torch.device("meta"):
            dit = DiT(part.dit)
        _write(folder / part.task, TRANSFORMER_FILE, _dit_config(part.dit), _random([dit], dit_keys(), seed, part.task))
    with torch.device("meta"):
        coders: list[nn.Module] = [EncodeStep(image.vae), DecodeStep(image.vae)]
        text = T5Encoder(image.t5)
    _write(folder / "vae", TRANSFORMER_FILE, _vae_config(image.vae), _random(coders, vae_keys(), seed, "vae"))
    text_tensors = _random([text], text_keys(image.t5.gated), seed, "text_encoder")
    _write(folder / "text_encoder", TEXT_FILE, _text_config(image.t5), text_tensors)
    (folder / "tokenizer").mkdir(exist_ok=True)
    train(image.t5.vocabulary).save(str(folder / "tokenizer" / "tokenizer.json"))
    _write_json(folder / "config.json", {"family": "cosmos", "size": "nano", "seed": seed, "sizes": asdict(video)})
    return folder


def _random(modules: list[nn.Module], keys: KeyMap, seed: int, part: str) -> dict[str, Tensor]:
    """Weights that keep the scale of what they are given; every tensor has a seed of its own."""
    tensors = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{part}/{name}".encode()))
            mean, std = _distribution(name, parameter)
            tensors[keys.key(name, "diffusers")] = torch.randn(parameter.shape, generator=generator) * std + mean
    return tensors


def _distribution(name: str, parameter: Tensor) -> tuple[float, float]:
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


def _dit_config(config: DiTConfig) -> dict[str, Any]:
    return {
        "_class_name": "CosmosTransformer3DModel",
        "in_channels": config.latent_channels + config.condition_mask,
        "out_channels": config.latent_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.blocks,
        "mlp_ratio": float(config.mlp_ratio),
        "text_embed_dim": config.text_width,
        "adaln_lora_dim": config.adaln_rank,
        "patch_size": [1, 2, 2],
        "rope_scale": list(config.rope_ratio),
        "concat_padding_mask": True,
        "extra_pos_embed_type": None,
    }


def _vae_config(config: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.base,
        "z_dim": config.latent_channels,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.residual_blocks,
        "temperal_downsample": list(config.temporal),
        "latents_mean": list(config.latent_mean),
        "latents_std": list(config.latent_std),
    }


def _text_config(config: T5Config) -> dict[str, Any]:
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


def _write(folder: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    _write_json(folder / "config.json", config)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
