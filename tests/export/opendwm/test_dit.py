"""The transformer and its adapter against the official code, its joint blocks against diffusers."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.models.adapter import AdapterBlock

from worldrt.export.families.opendwm.adapter import ImageAdapter
from worldrt.export.families.opendwm.denoiser import Denoise
from worldrt.export.families.opendwm.dit import Conditioning, DiT, Switches
from worldrt.export.families.opendwm.variants import DiTConfig

CASES = [("dit_a", "t3"), ("dit_a", "t6_cfg"), ("dit_a", "t3_disable"), ("dit_b", "t6"), ("dit_b", "t3_mask")]


def switches(case):
    mask = case.get("in.crossview_attention_mask")
    off = (case[f"in.disable_{kind}"].float() for kind in ("crossview", "temporal"))
    return Switches(*off, None if mask is None else mask.float())


@pytest.mark.parametrize(("file", "name"), CASES)
def test_the_network_is_the_official_one(golden, file, name):
    g = golden(file)
    made = g.dit(*g.inputs(name), switches(g.case(name)))
    assert (made.permute(0, 2, 3, 1, 4, 5) - g.case(name)["out"]).abs().max() <= 5e-5


@pytest.mark.parametrize(("file", "name"), CASES)
def test_residuals_are_the_official_ones(golden, file, name):
    """Made frame by frame, as a stream makes them."""
    g = golden(file)
    image, residual = g.image(name), g.inputs(name)[5]
    for frame in range(image.shape[1]):
        assert (g.adapter(image[:, frame]) - residual[:, frame]).abs().max() <= 1e-5


def test_inner_tensors_are_the_official_ones(golden):
    g = golden("dit_a")
    case, inputs = g.case("t3"), g.inputs("t3")
    mid = {name.removeprefix("mid."): value for name, value in case.items() if name.startswith("mid.")}
    x, timestep, text, pooled, camera, residual, position, view = inputs
    streams, *known = g.dit.prepare(x, timestep, text, pooled, camera)
    cond = Conditioning(*known, position, view)
    found = {
        "patch_embed": streams.hidden,
        "context_embed": streams.text,
        "temb": cond.emb,
        "view_cam_emb": cond.camera.squeeze(3),
    }
    for number, block in enumerate(g.dit.transformer_blocks):
        hidden = g.dit.add(streams.hidden, residual[:, :, number])
        streams = block(type(streams)(hidden, streams.text), cond.emb)
        found[f"joint{number}.hidden"] = streams.hidden
        if number == 0:
            found["joint0.context"] = streams.text
        hidden = g.dit.temporal(number, streams.hidden, cond)
        found[f"temporal{number}.mixed"] = hidden
        if number == 1:
            hidden = g.dit.crossview(0, hidden, cond, x.shape[5] // 2)
            found["crossview0.mixed"] = hidden
        streams = type(streams)(hidden, streams.text)
    assert found.keys() <= mid.keys()
    for name, value in found.items():
        assert (value.flatten() - mid[name].flatten()).abs().max() <= 5e-5, name


def test_each_frame_has_a_level_of_its_own_and_x0_follows_from_the_velocity(golden):
    """x0 = x - sigma v, with the golden v of a queue's timesteps."""
    g = golden("dit_b")
    x, timestep, *rest = g.inputs("t6")
    level = timestep[:, :, 0]
    assert level.unique().numel() == 6
    velocity = g.case("t6")["out"].permute(0, 3, 1, 2, 4, 5)
    expected = x - level[:, None, :, None, None, None] / 1000 * velocity
    assert (Denoise(g.dit)(x, level, *rest) - expected).abs().max() <= 5e-5


def test_without_blocks_between_the_network_is_that_of_diffusers():
    """Stable Diffusion 3.5 on every picture."""
    config = DiTConfig(
        layers=3, heads=2, head_dim=16, latent_channels=4, text_width=20, pooled_width=12, dual=(0, 1), temporal=(),
        crossview=(), stages=0, position_grid=12, position_base=8,
    )  # fmt: skip
    reference = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=20, caption_projection_dim=32, pooled_projection_dim=12, out_channels=4,
        pos_embed_max_size=12, dual_attention_layers=(0, 1), qk_norm="rms_norm",
    ).eval()  # fmt: skip
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    dit = DiT(config)
    state = reference.state_dict()
    missing, _ = dit.load_state_dict(state, strict=False)
    assert all(name.startswith("view_embedding.") for name in missing)
    x, text, pooled = torch.randn(1, 4, 2, 2, 8, 12), torch.randn(1, 2, 2, 5, 20), torch.randn(1, 2, 2, 12)
    timestep, none = torch.tensor([[[999.0, 20.0], [500.0, 3.0]]]), torch.zeros(0)
    with torch.no_grad():
        made = dit(x, timestep, text, pooled, torch.randn(1, 2, 2, 11), none, torch.arange(2.0), torch.arange(2.0))
        pictures = x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        expected = reference(pictures, text.flatten(0, 2), pooled.flatten(0, 2), timestep.flatten()).sample
    scale = expected.abs().max()
    assert (made.permute(0, 2, 3, 1, 4, 5).flatten(0, 2) - expected).abs().max() <= 2e-5 * scale


def test_a_stage_of_the_adapter_is_that_of_diffusers():
    config = DiTConfig(layers=2, heads=2, head_dim=8, stages=2, image_channels=6, temporal=(), crossview=(), dual=())
    adapter = ImageAdapter(config)
    stages = [AdapterBlock(384, 16, 2, down=True), AdapterBlock(16, 16, 2)]
    for ours, theirs in zip(adapter.body, stages, strict=True):
        ours.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 6, 32, 48)
    with torch.no_grad():
        x = torch.nn.functional.pixel_unshuffle(image[0], 8)
        expected = []
        for stage, conv in zip(stages, adapter.zero_convs, strict=True):
            x = stage(x)
            expected.append(conv(x).flatten(2).transpose(1, 2))
        assert (adapter(image)[0] - torch.stack(expected)).abs().max() <= 1e-5


def test_views_that_are_masked_are_not_seen(golden):
    """With a mask that lets each view see itself alone, other views change nothing in it before time is mixed."""
    g = golden("dit_b")
    *inputs, position, view = g.inputs("t3_mask")
    _, *known = g.dit.prepare(*inputs[:5])
    cond = Conditioning(*known, position, view)
    hidden = torch.randn(1, 3, 3, 6, 64)
    changed = hidden.clone()
    changed[:, :, 1:] += torch.randn(1, 3, 2, 6, 64)
    alone = torch.eye(3)[None]
    first, second = (g.dit.crossview(0, h, cond, 3, None, alone)[:, :, 0] for h in (hidden, changed))
    assert torch.equal(first, second)
    free = [g.dit.crossview(0, h, cond, 3)[:, :, 0] for h in (hidden, changed)]
    assert (free[0] - free[1]).abs().max() > 1e-3
