"""The two namings of a Cosmos transformer's tensors, official and diffusers', and prefixes that tools put before them.

The same facts as in the exporter's table, for weights that meet a bundle long after its export: LoRA files and
post-trained checkpoints in the other naming than the bundle's own checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PREFIX = re.compile(r"(base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.|net\.|model\.)*")

_TOP = (
    ("x_embedder.proj.1", "patch_embed.proj"),
    ("t_embedding_norm", "time_embed.norm"),
    ("t_embedder.1.linear_1", "time_embed.t_embedder.linear_1"),
    ("t_embedder.1.linear_2", "time_embed.t_embedder.linear_2"),
    ("final_layer.adaln_modulation.1", "norm_out.linear_1"),
    ("final_layer.adaln_modulation.2", "norm_out.linear_2"),
    ("final_layer.linear", "proj_out"),
)
_BLOCK = (
    ("mlp.layer1", "ff.net.0.proj"),
    ("mlp.layer2", "ff.net.2"),
    ("adaln_modulation_self_attn", "norm1"),
    ("adaln_modulation_cross_attn", "norm2"),
    ("adaln_modulation_mlp", "norm3"),
    ("self_attn", "attn1"),
    ("cross_attn", "attn2"),
)
_ATTENTION = {
    **{f"{x}_proj": f"to_{x}" for x in "qkv"},
    "q_norm": "norm_q",
    "k_norm": "norm_k",
    "output_proj": "to_out.0",
}
_MODULATION = {"1": "linear_1", "2": "linear_2"}


def plain(name: str) -> str:
    """The name of a module or tensor without the prefixes of the tool that wrote it."""
    return name[_PREFIX.match(name).end() :]  # type: ignore[union-attr]  # it matches nothing, too


def spellings(name: str) -> Iterator[str]:
    """A plain name, and the same one in the other naming where it has one."""
    yield name
    for ours, theirs in ((0, 1), (1, 0)):
        other = _translated(name, ours, theirs)
        if other is not None:
            yield other


def _translated(name: str, ours: int, theirs: int) -> str | None:
    blocks = ("blocks", "transformer_blocks")
    for row in _TOP:
        if name == row[ours] or name.startswith(f"{row[ours]}."):
            return row[theirs] + name[len(row[ours]) :]
    match = re.fullmatch(rf"{blocks[ours]}\.(\d+)\.(.+)", name)
    for row in _BLOCK if match else ():
        assert match is not None
        if match[2] == row[ours] or match[2].startswith(f"{row[ours]}."):
            rest = _inner(row[0], match[2][len(row[ours]) :].removeprefix("."), ours)
            return None if rest is None else ".".join(filter(None, (blocks[theirs], match[1], row[theirs], rest)))
    return None


def _inner(part: str, rest: str, ours: int) -> str | None:
    """What follows an attention or a modulation; the layers of an MLP have names of their own."""
    table = _ATTENTION if part.endswith("_attn") and "adaln" not in part else _MODULATION if "adaln" in part else {}
    if not table:
        return rest
    for pair in table.items():
        if rest == pair[ours] or rest.startswith(f"{pair[ours]}."):
            return pair[1 - ours] + rest[len(pair[ours]) :]
    return None
