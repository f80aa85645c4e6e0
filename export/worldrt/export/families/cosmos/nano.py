"""Writes the `nano` checkpoint: the real networks, very small, with seeded random weights.

    text2image/ video2world/   transformers      vae/   text_encoder/   tokenizer/tokenizer.json

Each folder holds one safetensors file (float32, keys as diffusers and transformers write them) and a `config.json` that
those libraries can read.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep
from worldrt.export.families.cosmos.variants import DiTConfig, VAEConfig, variant
from worldrt.export.families.cosmos.weights import dit_keys, vae_keys
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.nano_tokenizer import train
from worldrt.export.modules.seeded import (
    TEXT_FILE,
    TRANSFORMER_FILE,
    distribution,
    random_tensors,
    text_config,
    write,
    write_json,
)
from worldrt.export.modules.t5 import T5Encoder


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in a few seconds. The same bytes for the same seed."""
    image, video = variant("nano", "text2image"), variant("nano", "video2world")
    for part in (image, video):
        with torch.device("meta"):
            dit = DiT(part.dit)
        tensors = random_tensors([dit], dit_keys(), seed, part.task, distribution)
        write(folder / part.task, TRANSFORMER_FILE, _dit_config(part.dit), tensors)
    with torch.device("meta"):
        coders: list[nn.Module] = [EncodeStep(image.vae), DecodeStep(image.vae)]
        text = T5Encoder(image.t5)
    coder_tensors = random_tensors(coders, vae_keys(), seed, "vae", distribution)
    write(folder / "vae", TRANSFORMER_FILE, _vae_config(image.vae), coder_tensors)
    text_tensors = random_tensors([text], text_keys(image.t5.gated), seed, "text_encoder", distribution)
    write(folder / "text_encoder", TEXT_FILE, text_config(image.t5), text_tensors)
    (folder / "tokenizer").mkdir(exist_ok=True)
    train(image.t5.vocabulary).save(str(folder / "tokenizer" / "tokenizer.json"))
    write_json(folder / "config.json", {"family": "cosmos", "size": "nano", "seed": seed, "sizes": asdict(video)})
    return folder


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
