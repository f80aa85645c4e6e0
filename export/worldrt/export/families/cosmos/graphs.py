"""The graphs of the Cosmos family, ready to trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.cosmos.cut import Attend, BlockCut, EmbedCut, HeadCut
from worldrt.export.families.cosmos.denoiser import BlockStep, Denoise, Embed, Head
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.rope import RopeDtype
from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep, cache_shapes
from worldrt.export.families.cosmos.variants import DiTConfig, VAEConfig
from worldrt.export.families.cosmos.weights import dit_keys, vae_keys
from worldrt.export.graphs import GraphSource
from worldrt.export.modules.keys import KeyFormat, KeyMap, text_keys
from worldrt.export.modules.pixels import PixelFormat
from worldrt.export.modules.streaming import cache_specs
from worldrt.export.modules.t5 import T5Config, T5Encoder

Form = Literal["whole", "block"]
Dtype = Literal["float32", "float16", "bfloat16"]


def denoiser_graphs(
    config: DiTConfig,
    form: Form = "whole",
    dtype: Dtype = "float32",
    key_format: KeyFormat = "official",
    rope_dtype: RopeDtype = "float32",
    device: str = "meta",
    attention_cut: bool = False,
) -> list[GraphSource]:
    """`denoise` alone (whole form) or `embed`, `block`, `head` (block form), computing in `dtype`. With `attention_cut`
    there is `attend` besides, and the others have no self-attention.

    `block` is blocks i and i + 1 of any i; the runtime runs it blocks - 1 times. Where blocks have windows there is a
    `block_12x24` for every kind of window that these have.
    """
    with torch.device(device):
        dit = DiT(config, rope_dtype).to(getattr(torch, dtype))
    return _whole(dit, key_format) if form == "whole" else _segments(dit, dtype, key_format, attention_cut)


def vae_graphs(
    config: VAEConfig,
    dtype: Dtype = "float32",
    pixel_format: PixelFormat = "rgb24",
    key_format: KeyFormat = "official",
    device: str = "meta",
) -> list[GraphSource]:
    """`encode_first`, `encode_next`, `decode_first`, `decode_next`. Rows and columns are those of latents.

    The modules take their caches as `*caches`.
    """
    with torch.device(device):
        encode = EncodeStep(config).to(getattr(torch, dtype))
        decode = DecodeStep(config, pixel_format).to(getattr(torch, dtype))
    latent = TensorSpec("latent", "float32", ("batch", config.latent_channels, 1, "rows", "columns"))

    def video(frames: int) -> TensorSpec:
        return TensorSpec("video", "float32", ("batch", 3, frames, "8*rows", "8*columns"))

    def pixels(frames: int) -> TensorSpec:
        shape = ("8*rows", "8*columns", 3) if pixel_format == "rgb24" else ("12*rows", "8*columns")
        return TensorSpec("frames", "uint8", ("batch", frames, *shape))

    def step(name: str, module: nn.Module, source: TensorSpec, result: TensorSpec) -> GraphSource:
        shapes = cache_shapes(config, module)
        caches = [cache_specs(prefix, dtype, shapes) for prefix in ("cache_in_", "cache_")]
        inputs = (source,) if name.endswith("first") else (source, *caches[0])
        weights = _keys(module, {"": ""}, vae_keys(), key_format)
        return GraphSource(name, module, inputs, (result, *caches[1]), weights)

    return [
        step("encode_first", encode, video(1), latent),
        step("encode_next", encode, video(4), latent),
        step("decode_first", decode, latent, pixels(1)),
        step("decode_next", decode, latent, pixels(4)),
    ]


def text_graphs(config: T5Config, dtype: Dtype = "float32", device: str = "meta") -> list[GraphSource]:
    """`encode`: ids and mask to text embeddings."""
    with torch.device(device):
        encoder = T5Encoder(config).to(getattr(torch, dtype))
    ids = TensorSpec("ids", "int64", ("batch", "text"))
    mask = TensorSpec("mask", "float32", ("batch", "text"))
    text = TensorSpec("text", "float32", ("batch", "text", config.width))
    weights = _keys(encoder, {"": ""}, text_keys(config.gated), "diffusers")
    return [GraphSource("encode", encoder, inputs=(ids, mask), outputs=(text,), weights=weights)]


def _whole(dit: DiT, key_format: KeyFormat) -> list[GraphSource]:
    x, level, position, conditions = _latent_specs(dit.config)
    denoise = Denoise(dit)
    return [
        GraphSource(
            "denoise",
            denoise,
            inputs=(x, level, _text_spec(dit.config), position, *conditions),
            outputs=(TensorSpec("x0", x.dtype, x.shape),),
            weights=_keys(denoise, {"dit.": ""}, dit_keys(), key_format),
        )
    ]


def _segments(dit: DiT, dtype: Dtype, key_format: KeyFormat, cut: bool) -> list[GraphSource]:
    config = dit.config
    x, level, position, conditions = _latent_specs(config)
    row = TensorSpec("row", "float32", ("frames", 2))
    head_dim, last = config.head_dim, config.blocks - 1
    tokens = config.frame_tokens
    hidden = TensorSpec("hidden", dtype, ("batch", "frames", tokens, config.width))
    q, kv = _projected(config, dtype, config.heads, cut)
    all_kv = replace(kv, shape=("context_frames", *kv.shape[1:]))
    attended = (TensorSpec("attended", dtype, q.shape),) if cut else (q, all_kv)
    cond = (
        TensorSpec("emb", dtype, ("batch", "frames", config.width)),
        TensorSpec("lora", dtype, ("batch", "frames", 3 * config.width)),
    )
    tables = tuple(TensorSpec(f"rope_{name}", "float32", ("frames", tokens, head_dim // 2)) for name in ("cos", "sin"))
    state = (hidden, *attended, _text_spec(config), *cond)

    embed = (EmbedCut if cut else Embed)(dit.stem, dit.block(0))
    step = BlockCut if cut else BlockStep
    blocks = {name: step(dit.block(i[0]), dit.block(i[0] + 1)) for name, i in block_instances(config).items()}
    head = (HeadCut if cut else Head)(dit.block(last), dit.final)
    prefixes: list[Mapping[str, str]] = [
        {"stem.": "stem.", "": "blocks.0."},
        {"next_": "blocks.{j}.", "": "blocks.{i}."},
        {"final.": "final.", "": f"blocks.{last}."},
    ]
    return [
        GraphSource(
            "embed",
            embed,
            inputs=(x, level, position, row, *conditions),
            outputs=(hidden, q, kv, *cond, *tables),
            weights=_keys(embed, prefixes[0], dit_keys(), key_format),
        ),
        *([_attend(config, dtype)] if cut else []),
        *(
            GraphSource(
                name,
                block,
                inputs=(*state, *tables),
                outputs=(hidden, q, kv),
                weights=_keys(block, prefixes[1], dit_keys(), key_format),
            )
            for name, block in blocks.items()
        ),
        GraphSource(
            "head",
            head,
            inputs=(*state, x, level, *conditions),
            outputs=(TensorSpec("x0", x.dtype, x.shape),),
            weights=_keys(head, prefixes[2], dit_keys(), key_format),
        ),
    ]


def _projected(config: DiTConfig, dtype: str, heads: int | str, cut: bool) -> tuple[TensorSpec, TensorSpec]:
    """q and kv of some heads."""
    e, tokens = config.head_dim, config.frame_tokens
    q = ("frames", "batch", heads, tokens, e) if cut else ("batch", heads, "frames", tokens, e)
    return TensorSpec("q", dtype, q), TensorSpec("kv", dtype, ("frames", 2, "batch", heads, tokens, e))


def _attend(config: DiTConfig, dtype: Dtype) -> GraphSource:
    q, kv = _projected(config, dtype, "heads", cut=True)
    all_kv = replace(kv, shape=("context_frames", *kv.shape[1:]))
    return GraphSource("attend", Attend(), (q, all_kv), (TensorSpec("attended", dtype, q.shape),), {})


def block_instances(config: DiTConfig) -> dict[str, list[int]]:
    """The graphs of blocks in block form, and the blocks that each is run for. The last block is in `head`."""
    names = ["block"] * config.blocks if config.windows is None else [f"block_{w}" for w in config.windows.names()]
    return {name: [i for i in range(config.blocks - 1) if names[i] == name] for name in dict.fromkeys(names[:-1])}


def _latent_specs(config: DiTConfig) -> tuple[TensorSpec, TensorSpec, TensorSpec, tuple[TensorSpec, ...]]:
    """x, level, position, and the conditions of the variant."""
    shape = ("batch", config.latent_channels, "frames", *config.latent_size)
    x = TensorSpec("x", "float32", shape)
    level = TensorSpec("level", "float32", ("batch", "frames"))
    position = TensorSpec("position", "float32", ("frames",))
    clean = TensorSpec("clean", "float32", shape)
    mask = TensorSpec("mask", "float32", ("batch", "frames"))
    return x, level, position, (clean, mask) if config.condition_mask else ()


def _text_spec(config: DiTConfig) -> TensorSpec:
    return TensorSpec("text", "float32", ("batch", "text", config.text_width))


def _keys(module: nn.Module, prefixes: Mapping[str, str], key_map: KeyMap, key_format: KeyFormat) -> dict[str, str]:
    """Parameter of a graph -> checkpoint key; the first prefix that fits turns it into a name of the whole network."""

    def whole_name(name: str) -> str:
        prefix = next(p for p in prefixes if name.startswith(p))
        return prefixes[prefix] + name.removeprefix(prefix)

    return {name: key_map.key(whole_name(name), key_format) for name, _ in module.named_parameters()}
