"""Names of parameters: ours, the official checkpoints', and diffusers'.

Each table row is one template per format. `{i}` is a number, or a placeholder such as `{i}` and `{j}` in graphs that
are traced once for many blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

KeyFormat = Literal["official", "diffusers"]

IGNORED = re.compile(r"(^|\.)(pos_embedder\.|accum_|_extra_state$)")
"""Buffers and training counters of official checkpoints."""

Row = tuple[str, str, str]


@dataclass(frozen=True)
class KeyMap:
    """Rows of (our name, official key, diffusers key)."""

    rows: tuple[Row, ...]

    def key(self, name: str, key_format: KeyFormat) -> str:
        """The checkpoint key of our parameter `name`. Raises `KeyError` if there is no such parameter."""
        return _translate(name, ((row[0], row[_column(key_format)]) for row in self.rows))

    def name(self, key: str, key_format: KeyFormat) -> str | None:
        """Our name of a checkpoint key, or None for one that is not a parameter. `KeyError` if it is unknown."""
        key = re.sub(r"^(net|net_ema)\.", "", key)
        if IGNORED.search(key):
            return None
        return _translate(key, ((row[_column(key_format)], row[0]) for row in self.rows))


def _column(key_format: KeyFormat) -> int:
    return {"official": 1, "diffusers": 2}[key_format]


def _translate(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for source, target in pairs:
        match = re.fullmatch(re.escape(source).replace(r"\{i\}", r"(\d+|\{\w\})"), name)
        if match:
            return target.replace("{i}", match[1]) if match.groups() else target
    raise KeyError(name)


def dit_keys() -> KeyMap:
    """Keys of the diffusion transformer."""
    rows: list[Row] = [
        ("stem.patch.weight", "x_embedder.proj.1.weight", "patch_embed.proj.weight"),
        ("stem.time.norm.weight", "t_embedding_norm.weight", "time_embed.norm.weight"),
        ("stem.time.linear_1.weight", "t_embedder.1.linear_1.weight", "time_embed.t_embedder.linear_1.weight"),
        ("stem.time.linear_2.weight", "t_embedder.1.linear_2.weight", "time_embed.t_embedder.linear_2.weight"),
        ("final.modulation.down.weight", "final_layer.adaln_modulation.1.weight", "norm_out.linear_1.weight"),
        ("final.modulation.up.weight", "final_layer.adaln_modulation.2.weight", "norm_out.linear_2.weight"),
        ("final.linear.weight", "final_layer.linear.weight", "proj_out.weight"),
    ]
    block: list[Row] = [
        ("rest.mlp_in", "mlp.layer1", "ff.net.0.proj"),
        ("rest.mlp_out", "mlp.layer2", "ff.net.2"),
    ]
    for ours, official, diffusers in (
        ("modulation", "self_attn", "norm1"),
        ("rest.cross_modulation", "cross_attn", "norm2"),
        ("rest.mlp_modulation", "mlp", "norm3"),
    ):
        block.append((f"{ours}.down", f"adaln_modulation_{official}.1", f"{diffusers}.linear_1"))
        block.append((f"{ours}.up", f"adaln_modulation_{official}.2", f"{diffusers}.linear_2"))
    for ours, out, official, diffusers in (
        ("projection", "rest.output", "self_attn", "attn1"),
        ("rest.cross_attention", "rest.cross_attention.output", "cross_attn", "attn2"),
    ):
        block += [(f"{ours}.to_{x}", f"{official}.{x}_proj", f"{diffusers}.to_{x}") for x in "qkv"]
        block += [(f"{ours}.norm_{x}", f"{official}.{x}_norm", f"{diffusers}.norm_{x}") for x in "qk"]
        block.append((out, f"{official}.output_proj", f"{diffusers}.to_out.0"))
    prefixes = ("blocks.{i}.", "blocks.{i}.", "transformer_blocks.{i}.")
    rows += [(f"{prefixes[0]}{a}.weight", f"{prefixes[1]}{b}.weight", f"{prefixes[2]}{c}.weight") for a, b, c in block]
    return KeyMap(tuple(rows))


def vae_keys() -> KeyMap:
    """Keys of the VAE. Layers are one list here and in official files; diffusers groups them by stage."""
    rows: list[Row] = []
    for part in ("weight", "bias"):
        rows.append((f"quant.{part}", f"conv1.{part}", f"quant_conv.{part}"))
        rows.append((f"post_quant.{part}", f"conv2.{part}", f"post_quant_conv.{part}"))
        for coder in ("encoder", "decoder"):
            rows.append((f"{coder}.conv_in.{part}", f"{coder}.conv1.{part}", f"{coder}.conv_in.{part}"))
            rows.append((f"{coder}.conv_out.{part}", f"{coder}.head.2.{part}", f"{coder}.conv_out.{part}"))
    for coder in ("encoder", "decoder"):
        rows.append((f"{coder}.norm_out.gamma", f"{coder}.head.0.gamma", f"{coder}.norm_out.gamma"))
    return KeyMap((*rows, *_vae_layers()))


def _vae_layers() -> list[Row]:
    """All layer lists of a VAE with four stages, two residual blocks going down and three going up."""
    encoder = [(f"downsamples.{n}", f"down_blocks.{n}") for n in range(11)]
    decoder = [(f"upsamples.{n}", f"up_blocks.{n // 4}.{_UP_NAMES[n % 4]}") for n in range(15)]
    middle = [
        ("middle.0", "mid_block.resnets.0"),
        ("middle.1", "mid_block.attentions.0"),
        ("middle.2", "mid_block.resnets.1"),
    ]
    layers = [("encoder", [*encoder, *middle]), ("decoder", [*middle, *decoder])]
    return [
        (f"{coder}.layers.{n}.{a}", f"{coder}.{official}.{b}", f"{coder}.{diffusers}.{c}")
        for coder, names in layers
        for n, (official, diffusers) in enumerate(names)
        for a, b, c in _VAE_LAYER
    ]


_UP_NAMES = ("resnets.0", "resnets.1", "resnets.2", "upsamplers.0")

_VAE_LAYER: tuple[Row, ...] = (
    ("norm1.gamma", "residual.0.gamma", "norm1.gamma"),
    ("norm2.gamma", "residual.3.gamma", "norm2.gamma"),
    ("norm.gamma", "norm.gamma", "norm.gamma"),
    *(
        (f"{ours}.{part}", f"{official}.{part}", f"{diffusers}.{part}")
        for part in ("weight", "bias")
        for ours, official, diffusers in (
            ("conv1", "residual.2", "conv1"),
            ("conv2", "residual.6", "conv2"),
            ("shortcut", "shortcut", "conv_shortcut"),
            ("conv", "resample.1", "resample.1"),
            ("time_conv", "time_conv", "time_conv"),
            ("to_qkv", "to_qkv", "to_qkv"),
            ("proj", "proj", "proj"),
        )
    ),
)


def text_keys(gated: bool = False) -> KeyMap:
    """Keys of the T5 encoder: transformers' names in both formats."""
    layer = [
        *((f"{x}.weight", f"layer.0.SelfAttention.{x}.weight") for x in "qkvo"),
        ("norm_attention.weight", "layer.0.layer_norm.weight"),
        ("feed_forward.gate.weight", "layer.1.DenseReluDense.wi_0.weight"),
        ("feed_forward.wi.weight", f"layer.1.DenseReluDense.{'wi_1' if gated else 'wi'}.weight"),
        ("feed_forward.wo.weight", "layer.1.DenseReluDense.wo.weight"),
        ("norm_feed_forward.weight", "layer.1.layer_norm.weight"),
    ]
    first_bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    pairs = [
        ("embedding.weight", "shared.weight"),
        ("position_bias.weight", first_bias),
        ("norm_out.weight", "encoder.final_layer_norm.weight"),
        *((f"layers.{{i}}.{ours}", f"encoder.block.{{i}}.{theirs}") for ours, theirs in layer),
    ]
    return KeyMap(tuple((ours, theirs, theirs) for ours, theirs in pairs))


TEXT_ALIASES = {"encoder.embed_tokens.weight": "shared.weight"}
"""The token embedding has two names; a file holds either or both."""
