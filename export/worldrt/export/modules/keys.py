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
