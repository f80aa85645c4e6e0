"""Names of the parameters of Cosmos-Predict2: ours, the official checkpoints', and diffusers'."""

from __future__ import annotations

from worldrt.export.modules.keys import KeyMap, Row


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
