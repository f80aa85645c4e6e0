"""Writes the `nano-matrix` checkpoint: the real networks, very small, with seeded random weights.

    transformer/  vae/  text_encoder/  tokenizer/tokenizer.json  control/embeddings.safetensors

Folders are as in a published stage: one safetensors file (float32, official keys) and a `config.json` each. The
embeddings of controls are random too.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worldrt.export.families.matrix.control import EMBEDDINGS, SYMBOLS
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import NANO, DiTConfig, VAEConfig, variant
from worldrt.export.modules import seeded
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.nano_tokenizer import train
from worldrt.export.modules.t5 import T5Encoder


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in seconds. The same bytes for the same seed."""
    nano = variant(NANO)
    with torch.device("meta"):
        dit, text = DiT(nano.dit), T5Encoder(nano.t5)
        coders: list[nn.Module] = [EncodeChunk(nano.vae), DecodeChunk(nano.vae)]
    tensors = seeded.random_tensors([dit], None, seed, "transformer", _distribution)
    seeded.write(folder / "transformer", seeded.TRANSFORMER_FILE, _dit_config(nano.dit), tensors)
    tensors = seeded.random_tensors(coders, None, seed, "vae", _distribution)
    seeded.write(folder / "vae", seeded.TRANSFORMER_FILE, _vae_config(nano.vae), tensors)
    tensors = seeded.random_tensors([text], text_keys(nano.t5.gated), seed, "text_encoder", seeded.distribution)
    seeded.write(folder / "text_encoder", seeded.TEXT_FILE, seeded.text_config(nano.t5), tensors)
    for name in ("tokenizer", "control"):
        (folder / name).mkdir(exist_ok=True)
    train(nano.t5.vocabulary).save(str(folder / "tokenizer" / "tokenizer.json"))
    table = torch.randn(len(SYMBOLS), nano.dit.control_width, generator=torch.Generator().manual_seed(seed))
    save_file({EMBEDDINGS: table}, folder / "control" / f"{EMBEDDINGS}.safetensors")
    seeded.write_json(folder / "config.json", {"family": "matrix", "seed": seed, "sizes": asdict(nano)})
    return folder


def _distribution(name: str, parameter: Tensor) -> tuple[float, float]:
    """Modulation is kept small but not zero, and places are scaled by about one."""
    mean, std = seeded.distribution(name, parameter)
    if name.endswith(("norm1.linear.weight", "norm2.linear.weight", "norm_out.linear.weight")):
        return mean, 0.3 * std
    return (1.0, std) if name.endswith("conv_y.conv.bias") else (mean, std)


def _dit_config(config: DiTConfig) -> dict[str, Any]:
    return {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.latent_channels,
        "out_channels": config.latent_channels,
        "time_embed_dim": config.time_width,
        "text_embed_dim": config.text_width,
        "num_layers": config.blocks,
        "spatial_interpolation_scale": config.spatial_scale,
        "temporal_interpolation_scale": config.temporal_scale,
        "control_dim": config.control_width,
        "control_start_layer": config.control_start,
        "control_end_layer": config.control_end,
    }


def _vae_config(config: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLCogVideoX",
        "block_out_channels": list(config.widths),
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "latent_channels": config.latent_channels,
        "temporal_compression_ratio": 2**config.temporal,
        "scaling_factor": config.scaling,
    }
