"""The graphs of the Matrix family, ready to trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from worldrt.engine.bundle import Chunk, Diffusion
from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.matrix.block import Block, ControlBlock
from worldrt.export.families.matrix.cut import Attend, BlockCut, EmbedCut, HeadCut
from worldrt.export.families.matrix.denoiser import BlockStep, Denoise, Embed, Head, Schedule
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import DiTConfig, VAEConfig
from worldrt.export.graphs import GraphSource, renamed
from worldrt.export.modules.padded import encode_graph
from worldrt.export.modules.pixels import PixelFormat
from worldrt.export.modules.streaming import cache_specs
from worldrt.export.modules.t5 import T5Config

Form = Literal["whole", "block"]
STATE = ("hidden", "text_hidden", "q", "text_q", "kv", "text_kv")
CONTROL = ("control_hidden", "control_bias")
ATTENDED = ("attended", "text_attended")

CHUNKS = {
    "encode_first": Chunk(3, 9),
    "encode_next": Chunk(2, 8),
    "decode_first": Chunk(2, 8),
    "decode_first_3": Chunk(3, 9),
    "decode_next": Chunk(1, 4),
    "decode_next_2": Chunk(2, 8),
}
"""The chunks of official pipelines. Clips of 17, 33 or 65 frames are encoded as nine frames, then eights. A clip of an
odd number of latents is decoded as three, then pairs; a stream as two, then one at a time."""


def denoiser_graphs(
    config: DiTConfig,
    diffusion: Diffusion,
    form: Form = "whole",
    dtype: str = "float32",
    levels: tuple[int, ...] | None = None,
    device: str = "meta",
    attention_cut: bool = False,
) -> list[GraphSource]:
    """`denoise` alone (whole form) or `embed`, `block`, `block_control`, `head` (block form), computing in `dtype`.

    `block` is blocks i and i + 1 of any i that has no control block, `block_control` of any other. With `levels`, the
    noise levels of a window's frames are part of the graph, and what follows from them alone is made constant. With
    `attention_cut` there is `attend` besides, and the others have no attention to video and text.
    """
    with torch.device(device):
        dit = DiT(config).to(getattr(torch, dtype))
    specs, schedule = tensor_specs(config, dtype), Schedule.of(diffusion)
    if form == "block":
        return _segments(dit, schedule, specs | cut_specs(config, dtype) if attention_cut else specs)
    inputs = ["x", "text", "control", "position"] + (["level"] if levels is None else [])
    source = _source("denoise", Denoise(dit, schedule, levels), {"dit.": ""}, specs, inputs, ["x0"])
    return [source if levels is None else replace(_of_frames(source, len(levels)), fold=True)]


def block_instances(config: DiTConfig) -> dict[str, list[int]]:
    """The graphs of blocks in block form, and the blocks that each is run for. The last block is in `head`."""
    names = ["block_control" if config.has_control(i) else "block" for i in range(config.blocks - 1)]
    return {name: [i for i, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}


def _segments(dit: DiT, schedule: Schedule, specs: Mapping[str, TensorSpec]) -> list[GraphSource]:
    config = dit.config
    whole = {"dit.": ""}
    is_cut = "attended" in specs
    embed, step, last = (EmbedCut, BlockCut, HeadCut) if is_cut else (Embed, BlockStep, Head)
    embed_inputs = ["x", "level", "last_level", "text", "context_control", "position", "row"]
    embed_outputs = [*STATE, "emb", "text_emb", *CONTROL]
    looks = ["q", "text_q", "context_kv", "text_kv"]
    state = ["hidden", "text_hidden", *(ATTENDED if is_cut else looks), "emb", "text_emb"]
    attend = [f"some {name}" for name in (*looks, *ATTENDED)]
    head_control = CONTROL if config.has_control(config.blocks - 1) else ()
    blocks = []
    for name, numbers in block_instances(config).items():
        here, following = (dit.transformer_blocks[i] for i in (numbers[0], numbers[0] + 1))
        control = dit.control_blocks[0] if name == "block_control" else None
        assert isinstance(here, Block) and isinstance(following, Block)
        assert control is None or isinstance(control, ControlBlock)
        prefixes = {
            "here.": "transformer_blocks.{i}.",
            "following.": "transformer_blocks.{j}.",
            "control.": f"control_blocks.{{i-{config.control_start}}}.",
        }
        inputs = state if control is None else [*state, *CONTROL]
        blocks.append(_source(name, step(here, following, control), prefixes, specs, inputs, STATE))
    head_inputs = [*state, "x", "level", *head_control]
    return [
        _source("embed", embed(dit), whole, specs, embed_inputs, embed_outputs),
        *([_source("attend", Attend(), {}, specs, attend[:4], attend[4:])] if is_cut else []),
        *blocks,
        _source("head", last(dit, schedule), whole, specs, head_inputs, ["x0"]),
    ]


def _source(
    name: str,
    module: nn.Module,
    prefixes: Mapping[str, str],
    specs: Mapping[str, TensorSpec],
    inputs: list[str],
    outputs: list[str] | tuple[str, ...],
) -> GraphSource:
    ins, outs = (tuple(specs[name] for name in names) for names in (inputs, outputs))
    return GraphSource(name, module, ins, outs, renamed(module, prefixes))


def _of_frames(source: GraphSource, frames: int) -> GraphSource:
    """The same for windows of one length."""

    def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(s, shape=tuple(frames if e == "frames" else e for e in s.shape)) for s in specs)

    return replace(source, inputs=fixed(source.inputs), outputs=fixed(source.outputs))


def tensor_specs(config: DiTConfig, dtype: str) -> dict[str, TensorSpec]:
    """All that enters, leaves and passes between the graphs of a denoiser."""
    heads, width, e = config.heads, config.width, config.head_dim
    latents = ("batch", config.latent_channels, "frames", "2*rows", "2*columns")
    kv = (2, "batch", heads, "tokens", e)
    shapes: dict[str, tuple[str, tuple[int | str, ...]]] = {
        "x": ("float32", latents),
        "x0": ("float32", latents),
        "level": ("float32", ("batch", "frames")),
        "last_level": ("float32", ("batch", 1)),
        "text": ("float32", ("batch", "text", config.text_width)),
        "control": ("float32", ("batch", "frames", config.control_width)),
        "context_control": ("float32", ("batch", "window_frames", config.control_width)),
        "position": ("float32", ("frames",)),
        "row": ("float32", ("frames", 2)),
        "hidden": (dtype, ("batch", "frames", "tokens", width)),
        "text_hidden": (dtype, ("batch", "text", width)),
        "q": (dtype, ("batch", heads, "frames", "tokens", e)),
        "text_q": (dtype, ("batch", heads, "text", e)),
        "kv": (dtype, ("frames", *kv)),
        "context_kv": (dtype, ("context_frames", *kv)),
        "text_kv": (dtype, (2, "batch", heads, "text", e)),
        "emb": (dtype, ("batch", "frames", config.time_width)),
        "text_emb": (dtype, ("batch", 1, config.time_width)),
        "control_hidden": (dtype, ("batch", "window_frames", width)),
        "control_bias": ("float32", ("frames", "tokens", "window_frames")),
    }
    return {key: TensorSpec(key.removeprefix("context_"), kind, shape) for key, (kind, shape) in shapes.items()}


def cut_specs(config: DiTConfig, dtype: str) -> dict[str, TensorSpec]:
    """What `tensor_specs` has otherwise where attention is cut out; `some` of all that `attend` takes and gives, for
    any number of heads."""
    e, made = config.head_dim, {}
    for some, heads in (("", config.heads), ("some ", "heads")):
        shapes: dict[str, tuple[int | str, ...]] = {
            "q": ("frames", "batch", heads, "tokens", e),
            "text_q": (heads, "batch", "text", e),
            "context_kv": ("context_frames", 2, "batch", heads, "tokens", e),
            "text_kv": (heads, 2, "batch", "text", e),
            "attended": ("frames", "batch", heads, "tokens", e),
            "text_attended": (heads, "batch", "text", e),
        }
        for key, shape in shapes.items():
            made[some + key] = TensorSpec(key.removeprefix("context_"), dtype, shape)
    return made


def vae_graphs(
    config: VAEConfig, dtype: str = "float32", pixel_format: PixelFormat = "rgb24", device: str = "meta"
) -> list[GraphSource]:
    """A graph for each of `CHUNKS`. Rows and columns are those of latents; modules take their caches as `*caches`."""
    with torch.device(device):
        encode = EncodeChunk(config).to(getattr(torch, dtype))
        decode = DecodeChunk(config, pixel_format).to(getattr(torch, dtype))
    return [
        _chunk(name, encode if name.startswith("encode") else decode, config, dtype, pixel_format) for name in CHUNKS
    ]


def _chunk(
    name: str, module: EncodeChunk | DecodeChunk, config: VAEConfig, dtype: str, pixel_format: PixelFormat
) -> GraphSource:
    chunk = CHUNKS[name]
    latents = (1, config.latent_channels, chunk.latents, "rows", "columns")
    caches = [cache_specs(prefix, dtype, _cache_shapes(module), 1) for prefix in ("cache_in_", "cache_")]
    source: TensorSpec
    results: tuple[TensorSpec, ...]
    if isinstance(module, EncodeChunk):
        source = TensorSpec("video", "float32", (1, 3, chunk.frames, "8*rows", "8*columns"))
        results = tuple(TensorSpec(kind, "float32", latents) for kind in ("latent", "deviation"))
    else:
        picture = ("8*rows", "8*columns", 3) if pixel_format == "rgb24" else ("12*rows", "8*columns")
        source = TensorSpec("latent", "float32", latents)
        results = (TensorSpec("frames", "uint8", (1, chunk.frames, *picture)),)
    inputs = (source,) if "first" in name else (source, *caches[0])
    return GraphSource(name, module, inputs, (*results, *caches[1]), renamed(module, {"": ""}))


def _cache_shapes(module: EncodeChunk | DecodeChunk) -> list[tuple[int, int, int]]:
    """Frames, channels and scale of each cache: those of a latent of one pixel."""
    device = next(module.parameters()).device
    config = module.config
    scale = 2 ** (len(config.widths) - 1)
    shape = (1, 3, 1, scale, scale) if isinstance(module, EncodeChunk) else (1, config.latent_channels, 1, 1, 1)
    with torch.no_grad():
        made: tuple[Tensor, ...] = module(torch.empty(shape, device=device))
    caches = made[2:] if isinstance(module, EncodeChunk) else made[1:]
    return [(c.shape[1], c.shape[2], c.shape[3]) for c in caches]


def text_graphs(config: T5Config, dtype: str = "float32", device: str = "meta") -> list[GraphSource]:
    """`encode`: ids and mask to text embeddings."""
    return [encode_graph(config, dtype, device)]
