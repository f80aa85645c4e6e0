"""Names of parameters: ours, the official checkpoints', and diffusers'.

Each table row is one template per format. `{i}` is a number, or a placeholder such as `{i}` and `{j}` in graphs that are
traced once for many blocks.
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
    rows += [
        (f"{prefixes[0]}{a}.weight", f"{prefixes[1]}{b}.weight", f"{prefixes[2]}{c}.weight") for a, b, c in block
    ]
    return KeyMap(tuple(rows))
