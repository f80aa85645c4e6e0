"""Writes the `nano-opendwm` checkpoint: the real networks, very small, with seeded random weights.

    ctsd.pth    vae/    text_encoder/  text_encoder_2/  text_encoder_3/    tokenizer/  tokenizer_2/  tokenizer_3/

The transformer is a plain state dict, as published; the rest are the folders of Stable Diffusion 3.5, each with one
safetensors file (float32, official keys) and a `config.json`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldrt.export.families.opendwm.adapter import ImageAdapter
from worldrt.export.families.opendwm.dit import DiT
from worldrt.export.families.opendwm.graphs import ADAPTER
from worldrt.export.families.opendwm.vae import Decode, Encode
from worldrt.export.families.opendwm.variants import NANO, VAEConfig, variant
from worldrt.export.modules import clip_tokenizer, seeded
from worldrt.export.modules.clip import CLIPConfig, CLIPEncoder
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.nano_tokenizer import train
from worldrt.export.modules.t5 import T5Encoder

FILE = "ctsd.pth"


def make_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder` (made if it is missing) in seconds. The same tensors for the same seed."""
    nano = variant(NANO)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        dit, adapter, text = DiT(nano.dit), ImageAdapter(nano.dit), T5Encoder(nano.t5)
        coders: list[nn.Module] = [Encode(nano.vae), Decode(nano.vae)]
    tensors = seeded.random_tensors([dit], None, seed, "transformer", _distribution)
    layout = seeded.random_tensors([adapter], None, seed, "layout", _distribution)
    torch.save(tensors | {f"{ADAPTER}{name}": tensor for name, tensor in layout.items()}, folder / FILE)
    tensors = seeded.random_tensors(coders, None, seed, "vae", _distribution)
    seeded.write(folder / "vae", seeded.TRANSFORMER_FILE, _vae_config(nano.vae), tensors)
    for name, config in (("text_encoder", nano.clip), ("text_encoder_2", nano.clip2)):
        with torch.device("meta"):
            clip = CLIPEncoder(config)
        tensors = seeded.random_tensors([clip], None, seed, name, _distribution)
        seeded.write(folder / name, seeded.TEXT_FILE, _clip_config(config), tensors)
    clip_tokenizer.train(nano.clip.vocabulary, folder / "tokenizer")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2", dirs_exist_ok=True)
    tensors = seeded.random_tensors([text], text_keys(nano.t5.gated), seed, "text_encoder_3", seeded.distribution)
    seeded.write(folder / "text_encoder_3", seeded.TEXT_FILE, seeded.text_config(nano.t5), tensors)
    (folder / "tokenizer_3").mkdir(exist_ok=True)
    train(nano.t5.vocabulary).save(str(folder / "tokenizer_3" / "tokenizer.json"))
    sizes = json.loads(json.dumps(asdict(nano)))
    seeded.write_json(folder / "config.json", {"family": "opendwm", "seed": seed, "sizes": sizes})
    return folder


def _distribution(name: str, parameter: Tensor) -> tuple[float, float]:
    """Modulation and residuals are kept small but not zero; mixers are about in the middle."""
    mean, std = seeded.distribution(name, parameter)
    if name.endswith("mix_factor"):
        return 0.0, 0.5
    if name.endswith(("norm1.linear.weight", "norm1_context.linear.weight", "norm_out.linear.weight")):
        return mean, 0.3 * std
    if name.startswith("zero_convs"):
        return mean, 0.5 * std
    return (0.0, 0.05) if name.endswith("embedding.weight") else (mean, std)


def _vae_config(config: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": list(config.widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(config.widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(config.widths),
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "latent_channels": config.latent_channels,
        "scaling_factor": config.scaling,
        "shift_factor": config.shift,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def _clip_config(config: CLIPConfig) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "projection_dim": config.projection,
        "hidden_act": "quick_gelu" if config.quick else "gelu",
        "max_position_embeddings": config.tokens,
        "bos_token_id": config.vocabulary - 2,
        "eos_token_id": config.vocabulary - 1,
        "pad_token_id": config.padding,
    }
