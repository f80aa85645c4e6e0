"""Writes the `nano-matrix` checkpoint: the real networks, very small, with seeded random weights or others.

    transformer/  vae/  text_encoder/  tokenizer/tokenizer.json  control/embeddings.safetensors

Folders are as in a published stage: one safetensors file (float32, official keys) and a `config.json` each. Without
trained weights the embeddings of controls are random too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldrt.engine.packaged import CHECKPOINT, packaged
from worldrt.export.families.matrix.control import EMBEDDINGS, SYMBOLS
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import NANO, DiTConfig, VAEConfig, variant
from worldrt.export.modules import seeded
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.nano_tokenizer import train
from worldrt.export.modules.t5 import T5Encoder

PARTS = {
    "transformer": f"transformer/{seeded.TRANSFORMER_FILE}",
    "vae": f"vae/{seeded.TRANSFORMER_FILE}",
    "text_encoder": f"text_encoder/{seeded.TEXT_FILE}",
    "control": f"control/{EMBEDDINGS}.safetensors",
}
"""Where the weights of each part lie."""
TRAINED = {"trained": "examples/nano"}
"""What the checkpoint says of its origin."""


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in seconds. The same bytes for the same seed."""
    nano = variant(NANO)
    with torch.device("meta"):
        dit, text = DiT(nano.dit), T5Encoder(nano.t5)
        coders: list[nn.Module] = [EncodeChunk(nano.vae), DecodeChunk(nano.vae)]
    keys = text_keys(nano.t5.gated)
    table = torch.randn(len(SYMBOLS), nano.dit.control_width, generator=torch.Generator().manual_seed(seed))
    weights = {
        "transformer": seeded.random_tensors([dit], None, seed, "transformer", _distribution),
        "vae": seeded.random_tensors(coders, None, seed, "vae", _distribution),
        "text_encoder": seeded.random_tensors([text], keys, seed, "text_encoder", seeded.distribution),
        "control": {EMBEDDINGS: table},
    }
    return write_checkpoint(folder, weights, {"seed": seed})


def write_checkpoint(folder: Path, weights: Mapping[str, dict[str, Tensor]], origin: Mapping[str, Any]) -> Path:
    """Write `weights` by part (`PARTS`), with official keys. `origin` is noted."""
    nano = variant(NANO)
    configs = {
        "transformer": _dit_config(nano.dit),
        "vae": _vae_config(nano.vae),
        "text_encoder": seeded.text_config(nano.t5),
    }
    for part, config in configs.items():
        seeded.write(folder / part, Path(PARTS[part]).name, config, weights[part])
    for name in ("tokenizer", "control"):
        (folder / name).mkdir(exist_ok=True)
    train(nano.t5.vocabulary).save(str(folder / "tokenizer" / "tokenizer.json"))
    save_file(weights["control"], folder / PARTS["control"])
    seeded.write_json(folder / "config.json", {"family": "matrix", **origin, "sizes": asdict(nano)})
    return folder


def copy_trained(folder: Path) -> bool:
    """Write the trained checkpoint that comes with the package, as float32, into `folder`; False where none does."""
    bundle = packaged(NANO)
    if bundle is None:
        return False
    stored = {part: load_file(bundle / CHECKPOINT / file) for part, file in PARTS.items()}
    wide = {part: {key: tensor.float() for key, tensor in tensors.items()} for part, tensors in stored.items()}
    write_checkpoint(folder, wide, TRAINED)
    return True


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
