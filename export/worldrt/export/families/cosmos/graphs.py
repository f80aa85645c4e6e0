"""The graphs of the Cosmos family, ready to trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.cosmos.denoiser import BlockStep, Denoise, Embed, Head
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.rope import RopeDtype
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.export.families.cosmos.weights import KeyFormat, dit_keys
from worldrt.export.graphs import GraphSource

Form = Literal["whole", "block"]
Dtype = Literal["float32", "float16", "bfloat16"]


def denoiser_graphs(
    config: DiTConfig,
    form: Form = "whole",
    dtype: Dtype = "float32",
    key_format: KeyFormat = "official",
    rope_dtype: RopeDtype = "float32",
    device: str = "meta",
) -> list[GraphSource]:
    """`denoise` alone (whole form) or `embed`, `block`, `head` (block form), computing in `dtype`.

    `block` is blocks i and i + 1 of any i; the runtime runs it blocks - 1 times.
    """
    with torch.device(device):
        dit = DiT(config, rope_dtype).to(getattr(torch, dtype))
    return _whole(dit, key_format) if form == "whole" else _segments(dit, dtype, key_format)


def _whole(dit: DiT, key_format: KeyFormat) -> list[GraphSource]:
    x, level, position, conditions = _latent_specs(dit.config)
    return [
        GraphSource(
            name="denoise",
            module=Denoise(dit),
            inputs=(x, level, _text_spec(dit.config), position, *conditions),
            outputs=(TensorSpec("x0", x.dtype, x.shape),),
            weights=_keys(Denoise(dit), {"dit.": ""}, key_format),
        )
    ]


def _segments(dit: DiT, dtype: Dtype, key_format: KeyFormat) -> list[GraphSource]:
    config = dit.config
    x, level, position, conditions = _latent_specs(config)
    head_dim, last = config.head_dim, config.blocks - 1
    hidden = TensorSpec("hidden", dtype, ("batch", "frames", "tokens", config.width))
    q = TensorSpec("q", dtype, ("batch", config.heads, "frames", "tokens", head_dim))
    kv = TensorSpec("kv", dtype, ("frames", 2, "batch", config.heads, "tokens", head_dim))
    all_kv = TensorSpec("kv", dtype, ("context_frames", *kv.shape[1:]))
    cond = (
        TensorSpec("emb", dtype, ("batch", "frames", config.width)),
        TensorSpec("lora", dtype, ("batch", "frames", 3 * config.width)),
    )
    tables = tuple(
        TensorSpec(f"rope_{name}", "float32", ("frames", "tokens", head_dim // 2)) for name in ("cos", "sin")
    )
    state = (hidden, q, all_kv, _text_spec(config), *cond)

    first, final = dit.blocks[0], dit.blocks[last]
    here, following = dit.blocks[0], dit.blocks[min(1, last)]
    embed, block, head = Embed(dit.stem, first), BlockStep(here, following), Head(final, dit.final)
    prefixes: list[Mapping[str, str]] = [
        {"stem.": "stem.", "": "blocks.0."},
        {"next_": "blocks.{j}.", "": "blocks.{i}."},
        {"final.": "final.", "": f"blocks.{last}."},
    ]
    return [
        GraphSource(
            "embed",
            embed,
            inputs=(x, level, position, *conditions),
            outputs=(hidden, q, kv, *cond, *tables),
            weights=_keys(embed, prefixes[0], key_format),
        ),
        GraphSource(
            "block",
            block,
            inputs=(*state, *tables),
            outputs=(hidden, q, kv),
            weights=_keys(block, prefixes[1], key_format),
        ),
        GraphSource(
            "head",
            head,
            inputs=(*state, x, level, *conditions),
            outputs=(TensorSpec("x0", x.dtype, x.shape),),
            weights=_keys(head, prefixes[2], key_format),
        ),
    ]


def _latent_specs(config: DiTConfig) -> tuple[TensorSpec, TensorSpec, TensorSpec, tuple[TensorSpec, ...]]:
    """x, level, position, and the conditions of the variant."""
    shape = ("batch", config.latent_channels, "frames", "2*rows", "2*columns")
    x = TensorSpec("x", "float32", shape)
    level = TensorSpec("level", "float32", ("batch", "frames"))
    position = TensorSpec("position", "float32", ("frames",))
    clean = TensorSpec("clean", "float32", shape)
    mask = TensorSpec("mask", "float32", ("batch", "frames"))
    return x, level, position, (clean, mask) if config.condition_mask else ()


def _text_spec(config: DiTConfig) -> TensorSpec:
    return TensorSpec("text", "float32", ("batch", "text", config.text_width))


def _keys(module: nn.Module, prefixes: Mapping[str, str], key_format: KeyFormat) -> dict[str, str]:
    """Parameter of a segment -> checkpoint key; the first prefix that fits turns it into a name of the whole DiT."""
    keys: Callable[[str, KeyFormat], str] = dit_keys().key

    def whole_name(name: str) -> str:
        prefix = next(p for p in prefixes if name.startswith(p))
        return prefixes[prefix] + name.removeprefix(prefix)

    return {name: keys(whole_name(name), key_format) for name, _ in module.named_parameters()}
