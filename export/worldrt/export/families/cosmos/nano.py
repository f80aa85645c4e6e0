"""Writes the `nano` checkpoint: the real networks, very small, with seeded random weights or others.

    text2image/ video2world/   transformers      vae/   text_encoder/   tokenizer/tokenizer.json

Each folder holds one safetensors file (float32, keys as diffusers and transformers write them) and a `config.json` that
those libraries can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from worldrt.engine.packaged import CHECKPOINT, packaged
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

PARTS = {
    "text2image": f"text2image/{TRANSFORMER_FILE}",
    "video2world": f"video2world/{TRANSFORMER_FILE}",
    "vae": f"vae/{TRANSFORMER_FILE}",
    "text_encoder": f"text_encoder/{TEXT_FILE}",
}
"""Where the weights of each part lie."""
TRAINED = {"trained": "examples/nano"}
"""What the checkpoint says of its origin."""


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in a few seconds. The same bytes for the same seed."""
    image, video = variant("nano", "text2image"), variant("nano", "video2world")
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for part in (image, video):
        with torch.device("meta"):
            dit = DiT(part.dit)
        weights[part.task] = random_tensors([dit], dit_keys(), seed, part.task, distribution)
    with torch.device("meta"):
        coders: list[nn.Module] = [EncodeStep(image.vae), DecodeStep(image.vae)]
        text = T5Encoder(image.t5)
    weights["vae"] = random_tensors(coders, vae_keys(), seed, "vae", distribution)
    weights["text_encoder"] = random_tensors([text], text_keys(image.t5.gated), seed, "text_encoder", distribution)
    return write_checkpoint(folder, weights, {"seed": seed})


def write_checkpoint(folder: Path, weights: Mapping[str, dict[str, torch.Tensor]], origin: Mapping[str, Any]) -> Path:
    """Write `weights` by part (`PARTS`), with keys as diffusers and transformers have them. `origin` is noted."""
    image, video = variant("nano", "text2image"), variant("nano", "video2world")
    configs = {
        image.task: _dit_config(image.dit),
        video.task: _dit_config(video.dit),
        "vae": _vae_config(image.vae),
        "text_encoder": text_config(image.t5),
    }
    for part, file in PARTS.items():
        write(folder / part, Path(file).name, configs[part], weights[part])
    (folder / "tokenizer").mkdir(exist_ok=True)
    train(image.t5.vocabulary).save(str(folder / "tokenizer" / "tokenizer.json"))
    write_json(folder / "config.json", {"family": "cosmos", "size": "nano", **origin, "sizes": asdict(video)})
    return folder


def copy_trained(folder: Path) -> bool:
    """Write the trained checkpoint that comes with the package, as float32, into `folder`; False where none does."""
    bundle = packaged("nano")
    if bundle is None:
        return False
    stored = {part: load_file(bundle / CHECKPOINT / file) for part, file in PARTS.items()}
    wide = {part: {key: tensor.float() for key, tensor in tensors.items()} for part, tensors in stored.items()}
    write_checkpoint(folder, wide, TRAINED)
    return True


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
