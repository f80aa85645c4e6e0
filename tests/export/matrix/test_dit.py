"""The transformer against the official code, diffusers, and controls attended to by brute force."""

from __future__ import annotations

from itertools import pairwise

import diffusers
import pytest
import torch
from torch.nn import functional

from worldrt.engine.bundle import Diffusion
from worldrt.export.families.matrix.block import ControlBlock, Streams, control_bias
from worldrt.export.families.matrix.denoiser import BlockStep, Denoise, Embed, Head, Schedule
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.variants import DiTConfig

SMALL = DiTConfig(
    blocks=3, heads=2, head_dim=16, latent_channels=4, time_width=24, text_width=20, control_width=12, control_start=1,
    control_end=3,
)  # fmt: skip


def case(golden, name):
    """x, level, text, control, position, and what the official network makes of them."""
    file = golden("transformer_stage4_tiny").tensors
    x = file[f"case_{name}.in.hidden_states"].transpose(1, 2)
    level = file[f"case_{name}.in.timestep"].float().expand(x.shape[0], x.shape[2])
    text, control = (file[f"case_{name}.in.{kind}"] for kind in ("encoder_hidden_states", "control_emb"))
    position = torch.arange(x.shape[2], dtype=torch.float32)
    return (x, level, text, control, position), file[f"case_{name}.out"].transpose(1, 2)


@pytest.mark.parametrize("name", "abcde")
def test_the_network_is_the_official_one(golden, name):
    inputs, expected = case(golden, name)
    assert (golden("transformer_stage4_tiny").dit()(*inputs) - expected).abs().max() <= 2e-5


def test_the_network_is_that_of_diffusers_where_all_frames_have_one_level_and_controls_are_silent():
    dit = random_dit(SMALL)
    for block in dit.control_blocks:
        block.norm1.linear.weight.zero_()
        block.norm1.linear.bias.zero_()
    reference = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=24,
        text_embed_dim=20, num_layers=3, sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=6,
    ).eval()  # fmt: skip
    reference.load_state_dict({k: v for k, v in dit.state_dict().items() if not k.startswith("control_")})
    x, text, level = torch.randn(2, 4, 3, 8, 12), torch.randn(2, 6, 20), torch.tensor([999, 249])
    with torch.no_grad():
        expected = reference(x.transpose(1, 2), text, level).sample.transpose(1, 2)
    position = torch.arange(3, dtype=torch.float32)
    got = dit(x, level.float()[:, None].expand(2, 3), text, torch.randn(2, 3, 12), position)
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("frames", "first"), [(5, 0), (3, 2)])
def test_few_keys_with_a_bias_are_many_copies_under_a_causal_mask(frames, first):
    """In float64; a part of a window from frame `first` on sees the controls before it."""
    tokens, window = 7, frames + first
    block = ControlBlock(SMALL).double().requires_grad_(False)
    for parameter in block.parameters():
        parameter.normal_()
    x, control = torch.randn(1, window, tokens, 32).double(), torch.randn(1, window, 32).double()
    cond = torch.randn(1, window, 24).double()
    parts = block.norm1.parts((cond, cond[:, -1:]))
    normed = block.norm1(Streams(x, control), parts)
    q, k, v = block.attn1.project(normed.video.flatten(1, 2), normed.text.repeat_interleave(tokens, 1))
    many = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    expected = x + parts.gate * block.attn1.output(many).view_as(x)

    position = torch.arange(first, window, dtype=torch.float32)
    bias = exact_bias(position, tokens, window)
    assert (control_bias(position, tokens, window).double() - bias.clamp_min(-1e9)).abs().max() <= 1e-6
    got = block(x[:, first:], control, (cond[:, first:], cond[:, -1:]), bias)
    # scores are rounded to float32 before the softmax
    assert (got - expected[:, first:]).abs().max() <= 2e-5 * expected.abs().max()


def exact_bias(position, tokens, window):
    ahead = torch.arange(window) - position[:, None]
    own = torch.arange(1, tokens + 1).double().log()
    bias = torch.where(ahead < 0, torch.tensor(float(tokens)).double().log(), float("-inf"))
    return torch.where(ahead[:, None] == 0, own[:, None], bias[:, None].expand(-1, tokens, -1))


def test_the_text_follows_the_level_of_the_last_frame_alone():
    dit = random_dit(SMALL)
    x, text, control = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 5, 20), torch.randn(1, 3, 12)
    position = torch.arange(3, dtype=torch.float32)

    def of_text(*levels):
        level = torch.tensor([levels], dtype=torch.float32)
        made = dit.prepare(x, level, level[:, -1:], text, control, position)
        block = dit.transformer_blocks[0]
        return block.norm1(made.streams, block.norm1.parts(made.cond)).text

    assert torch.equal(of_text(0, 10, 500), of_text(3, 4, 500)) and not torch.allclose(
        of_text(0, 1, 5), of_text(0, 1, 6)
    )


def test_clean_latents_come_from_v_by_the_official_table(golden):
    """x0 = sqrt(abar) x - sqrt(1 - abar) v, with v of the official scheduler."""
    file = golden("scheduler_tables").tensors
    x, t = file["add_noise.x"], file["add_noise.t"]
    schedule = Schedule.of(Diffusion())
    x0 = schedule.to_x0(*(file[n].transpose(1, 2) for n in ("velocity.stage3", "add_noise.stage3")), t.float())
    assert (x0 - x.transpose(1, 2)).abs().max() <= 2e-6
    for stage, precision in ((3, "float64"), (4, "float32")):
        table, abar = Schedule.of(Diffusion(precision=precision)), file[f"stage{stage}.alphas_cumprod"].double()
        assert (torch.tensor(table.signal).double() ** 2 - abar).abs().max() <= 2e-7
        assert (torch.tensor(table.noise).double() ** 2 - (1 - abar)).abs().max() <= 2e-7


@pytest.mark.parametrize("cuts", [(0, 4), (0, 1, 4), (0, 2, 3, 4)])
def test_blocks_on_parts_of_a_window_are_the_whole(cuts):
    """Each part has its own frames; keys and values of video are gathered, all else is local or given to every part."""
    config, schedule = SMALL, Schedule.of(Diffusion())
    dit = random_dit(config)
    x, text, control = torch.randn(2, 4, 4, 8, 4), torch.randn(2, 5, 20), torch.randn(2, 4, 12)
    level, position = torch.tensor([[0.0, 249, 499, 999]] * 2), torch.arange(4, dtype=torch.float32)
    expected = Denoise(dit, schedule)(x, text, control, position, level)

    parts = [slice(a, b) for a, b in pairwise(cuts)]
    last = level[:, -1:]
    embed = Embed(dit)
    states = [embed(x[:, :, p], level[:, p], last, text, control, position[p]) for p in parts]
    constants = [state[6:] for state in states]
    for number in range(config.blocks - 1):
        steer = dit.control_blocks[number - config.control_start] if config.has_control(number) else None
        step = BlockStep(dit.transformer_blocks[number], dit.transformer_blocks[number + 1], steer)
        states = [step(*state, *c[: 4 if steer else 2]) for state, c in zip(gathered(states), constants, strict=True)]
    head = Head(dit, schedule)
    made = [
        head(*state, *c[:2], x[:, :, p], level[:, p], *c[2:])
        for state, c, p in zip(gathered(states), constants, parts, strict=True)
    ]
    assert (torch.cat(made, dim=2) - expected).abs().max() <= 2e-5


def gathered(states):
    kv = torch.cat([state[4] for state in states])
    return [(*state[:4], kv, state[5]) for state in states]


def random_dit(config):
    dit = DiT(config).requires_grad_(False)
    for name, parameter in dit.named_parameters():
        parameter.normal_(std=0.15)
        if "norm" in name and name.endswith("weight") and parameter.dim() == 1:
            parameter.add_(1)
    return dit
