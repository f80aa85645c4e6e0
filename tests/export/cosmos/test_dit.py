"""The transformer against forwards of the official code, and its parts against each other."""

from __future__ import annotations

import pytest
import torch

from worldrt.export.families.cosmos.rope import Rope, rotate

FORWARDS = [
    "dit_t2i_hd16",
    "dit_t2i_hd32_pad",
    "dit_v2w_2b_t4",
    "dit_v2w_14b_t5",
    "dit_v2w_2b_hd24_t3_b1",
    "dit_v2w_image_t1",
    "dit_v2w_small_qk",
]


@pytest.mark.parametrize("name", FORWARDS)
def test_forward_is_the_official_one(golden, name):
    g = golden(name)
    x = g.tensors["in.x"]
    frames = x.shape[2]
    timestep = g.tensors["in.timesteps"].reshape(x.shape[0], -1).expand(-1, frames)
    mask = g.tensors["in.condition_mask"][:, 0, :, 0, 0] if "in.condition_mask" in g.tensors else None
    if mask is not None and g.meta["data_type"] == "image":
        mask = torch.zeros_like(mask)
    position = torch.arange(frames, dtype=torch.float32)
    out = g.dit()(x, timestep, g.tensors["in.crossattn_emb"], position, mask, g.tensors["in.padding_mask"])
    assert (out - g.tensors["out.x"]).abs().max() <= 3e-5
    if g.tensors["in.padding_mask"].any():
        unpadded = g.dit()(x, timestep, g.tensors["in.crossattn_emb"], position, mask)
        assert (unpadded - g.tensors["out.x"]).abs().max() > 0.1
    else:
        # the padding columns of the patch weight are sliced away without a trace
        unpadded = g.dit()(x, timestep, g.tensors["in.crossattn_emb"], position, mask)
        assert (unpadded - g.tensors["out.x"]).abs().max() <= 3e-5


@pytest.mark.parametrize("name", [n for n in FORWARDS if n not in ("dit_v2w_image_t1",)])
def test_rope_angles_of_the_small_networks(golden, name):
    g = golden(name)
    _, _, frames, rows, columns = g.tensors["in.x"].shape
    config = g.dit_config()
    rope = Rope(config.head_dim, config.rope_ratio)
    tables = rope.tables(torch.arange(frames).float(), rows // 2, columns // 2)
    angles = g.tensors["out.rope_angles"].chunk(2, dim=-1)[0]
    assert torch.allclose(tables.cos.flatten(0, 1), angles.cos(), atol=1e-6)
    assert torch.allclose(tables.sin.flatten(0, 1), angles.sin(), atol=1e-6)


@pytest.mark.parametrize(
    ("case", "head_dim", "ratio"), [("v2w_2b", 128, (1.0, 3.0, 3.0)), ("t2i_0p6b", 64, (1.0, 4.0, 4.0))]
)
def test_rope_angles_of_real_configurations(golden, case, head_dim, ratio):
    g = golden("rope_real_configs").tensors
    exact, rounded = Rope(head_dim, ratio), Rope(head_dim, ratio, "bfloat16")
    for axis, letter in enumerate("thw"):
        position = torch.arange(g[f"{case}.fp32.{letter}"].shape[0]).float()
        assert (exact.angles(axis, position) - g[f"{case}.fp32.{letter}"]).abs().max() <= 5e-6
        assert torch.equal(rounded.angles(axis, position), g[f"{case}.bf16.{letter}"].float())


def test_rope_takes_frames_from_position():
    rope = Rope(24, (0.8, 2.0, 2.0))
    whole = rope.tables(torch.arange(6).float(), 3, 5)
    shard = rope.tables(torch.tensor([2.0, 3.0]), 3, 5)
    assert torch.equal(whole.cos[2:4], shard.cos) and torch.equal(whole.sin[2:4], shard.sin)


def test_rotate_turns_pairs_of_the_two_halves():
    x, angle = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    got = rotate(x, angle.cos().float(), angle.sin().float())
    pairs = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * angle)[:, None]
    assert torch.allclose(got, torch.cat([pairs.real, pairs.imag], dim=-1), atol=1e-6)
