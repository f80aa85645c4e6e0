"""The transformer against diffusers on the same weights, through both key formats."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import CosmosTransformer3DModel
from diffusers.models.transformers import transformer_cosmos

from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import DiTConfig, variants
from worldrt.export.families.cosmos.weights import dit_keys

CASES = [  # batch, frames, rows, columns, text tokens
    (1, 1, 2, 3, 5),
    (2, 1, 7, 4, 1),
    (1, 3, 5, 3, 8),
    (2, 6, 3, 5, 11),
    (1, 24, 1, 2, 4),
]


def reference(config: DiTConfig) -> CosmosTransformer3DModel:
    """diffusers' model with the official epsilon (it ships 1e-5) and weights that are nowhere zero."""
    model = CosmosTransformer3DModel(
        in_channels=config.latent_channels + config.condition_mask,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        num_layers=config.blocks,
        text_embed_dim=config.text_width,
        adaln_lora_dim=config.adaln_rank,
        rope_scale=config.rope_ratio,
        extra_pos_embed_type=None,
    )
    for name, module in model.named_modules():
        if name.endswith(("norm_q", "norm_k")):
            module.eps = 1e-6
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _nearest_resize(monkeypatch):
    """diffusers takes one function of torchvision, whose wheels need the same build of torch."""

    def resize(mask, size, interpolation):
        return torch.nn.functional.interpolate(mask, size=size, mode=interpolation)

    shim = SimpleNamespace(
        functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", shim, raising=False)


@pytest.mark.parametrize("condition_mask", [False, True])
@pytest.mark.parametrize(("batch", "frames", "rows", "columns", "tokens"), CASES)
def test_forward_is_that_of_diffusers(condition_mask, batch, frames, rows, columns, tokens):
    config = DiTConfig(2, 96, 4, (20 / 24, 2.0, 3.0), condition_mask, adaln_rank=16, text_width=40)
    model = reference(config)
    dit = DiT(config)
    state = {dit_keys().name(key, "diffusers"): value for key, value in model.state_dict().items()}
    dit.load_state_dict(state)

    x = torch.randn(batch, 16, frames, 2 * rows, 2 * columns)
    timestep, text = torch.rand(batch, frames), torch.randn(batch, tokens, 40)
    mask = (torch.rand(batch, frames) > 0.5).float() if condition_mask else None
    spread = None if mask is None else mask[:, None, :, None, None].expand(-1, 1, -1, 2 * rows, 2 * columns)
    expected = model(
        x,
        timestep[:, None, :, None, None],
        text,
        fps=None,
        condition_mask=spread,
        padding_mask=torch.zeros(1, 1, 16 * rows, 16 * columns),
    ).sample
    with torch.no_grad():
        got = dit(x, timestep, text, torch.arange(frames).float(), mask)
    assert (got - expected).norm() <= 1e-5 * expected.norm()
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_key_formats_agree(golden):
    """Official keys, with prefixes and training leftovers, lead to the same parameters as those of diffusers."""
    keys, g = dit_keys(), golden("dit_v2w_2b_t4")
    dit = g.dit()
    assert {keys.name(key, "official") for key in g.weights} - {None} == set(dit.state_dict())
    model = reference(g.dit_config())
    assert {keys.name(key, "diffusers") for key in model.state_dict()} == set(dit.state_dict())
    for name, tensor in dit.state_dict().items():
        official, diffusers = keys.key(name, "official"), keys.key(name, "diffusers")
        assert g.weights[official].shape == model.state_dict()[diffusers].shape == tensor.shape
        assert keys.name(f"net.{official}", "official") == keys.name(f"net_ema.{official}", "official") == name
    for ignored in ("net.pos_embedder.seq", "net.accum_iteration", "net.blocks.0.self_attn.q_norm._extra_state"):
        assert keys.name(ignored, "official") is None
    with pytest.raises(KeyError):
        keys.name("net.blocks.0.self_attn.unknown.weight", "official")
    assert keys.key("blocks.{j}.rest.mlp_in.weight", "diffusers") == "transformer_blocks.{j}.ff.net.0.proj.weight"


@pytest.mark.parametrize("variant", variants(), ids=lambda v: f"{v.size}-{v.task}")
def test_parameters_of_every_variant_are_those_of_diffusers(variant):
    with torch.device("meta"):
        own, model = (
            DiT(variant.dit),
            CosmosTransformer3DModel(
                in_channels=variant.dit.latent_channels + variant.dit.condition_mask,
                num_attention_heads=variant.dit.heads,
                attention_head_dim=variant.dit.head_dim,
                num_layers=variant.dit.blocks,
                text_embed_dim=variant.dit.text_width,
                adaln_lora_dim=variant.dit.adaln_rank,
                extra_pos_embed_type=None,
            ),
        )
    shapes = {dit_keys().name(k, "diffusers"): v.shape for k, v in model.state_dict().items()}
    assert shapes == {k: v.shape for k, v in own.state_dict().items()}
    for resolution in variant.sizes:
        for ratio in ("16:9", "4:3", "1:1", "3:4", "9:16"):
            width, height = variant.pixel_size(ratio, resolution)
            across, down = map(int, ratio.split(":"))
            assert width % 16 == height % 16 == 0
            assert abs(width / height / (across / down) - 1) < 0.12
