"""Tables of levels against diffusers' schedulers, the samplers of clips, and closed forms."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_dpm_cogvideox as cogvideox

from worldrt.engine.errors import InputError
from worldrt.runtime import samplers, samplers_vp
from worldrt.runtime.level_table import LevelTable, flow_euler, of_sampler
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.plan import Plan


def play(table, x, model, noises, history=True):
    """All steps of one frame, in float64; `model` gives x0 of x and level, `noises` the noise of each step."""
    states, previous = [], None
    for level, noise in zip(range(table.top, 0, -1), noises, strict=True):
        x0 = model(x, level)
        plain = previous is None or not history or (table.first_when_clean and level == 1)
        a, b, c, d = (table.first if plain else table.steps)[level]
        x = a * x + b * x0 + (0 if previous is None else c * previous) + d * noise
        previous = x0
        states.append(x)
    return states


def velocity(x, time):
    return 0.6 * x + 0.3 * np.sin(1.7 * x) + 0.1 * np.cos(time / 300)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20, 50, 64])
def test_dpm_sde_equals_diffusers(steps, monkeypatch):
    scheduler = diffusers.CogVideoXDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    table = samplers_vp.dpm_sde(steps)
    abar = samplers_vp.alphas_cumprod()
    assert scheduler.timesteps.tolist() == table.labels[:0:-1].astype(int).tolist()
    scheduler.alphas_cumprod = torch.from_numpy(abar)  # in float64, as The Matrix has it
    rng = np.random.default_rng(0)
    x, noises = rng.normal(size=(2, 3, 4)), rng.normal(size=(steps, 2, 3, 4))

    def x0(x, level):
        time = table.labels[level]
        here = abar[int(time)]
        return np.sqrt(here) * x - np.sqrt(1 - here) * velocity(x, time)

    ours = play(table, x, x0, noises)
    sample, old, times = torch.from_numpy(x), None, scheduler.timesteps.tolist()
    for index, time in enumerate(times):
        noise = torch.from_numpy(noises[index])
        monkeypatch.setattr(cogvideox, "randn_tensor", lambda *_, noise=noise, **__: noise)
        out = torch.from_numpy(velocity(sample.numpy(), time))
        back = times[index - 1] if index else None
        sample, old = scheduler.step(out, old, time, back, sample, return_dict=False)
        np.testing.assert_allclose(ours[index], sample.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 24, 30])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler_equals_diffusers(steps, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    table = flow_euler(steps, shift)
    np.testing.assert_allclose(table.labels[:0:-1], scheduler.timesteps.numpy(), rtol=2e-6)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4))

    def x0(x, level):
        return x - table.noise[level] * velocity(x, table.labels[level])

    ours = play(table, x, x0, np.zeros((steps, 2, 3, 4)))
    sample = torch.from_numpy(x).float()
    for index, time in enumerate(scheduler.timesteps):
        out = torch.from_numpy(velocity(sample.double().numpy(), float(time))).float()
        sample = scheduler.step(out, time, sample, return_dict=False)[0]
        np.testing.assert_allclose(ours[index], sample.numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("steps", "phases"), [(4, 4), (8, 8), (8, 4), (20, 5), (40, 1)])
def test_phased_steps_keep_the_ends_of_a_line(steps, phases):
    """With the true x0 and eps, a deterministic step lands on the line between them, and with noise keeps variance."""
    table = samplers_vp.phased_ddim(steps, phases)
    a, b, _, d = table.steps[1:].T
    signal, noise = table.signal[1:], table.noise[1:]
    same = d == 0
    np.testing.assert_allclose((a * signal + b)[same], table.signal[:-1][same], atol=1e-6)
    np.testing.assert_allclose((a * noise)[same], table.noise[:-1][same], atol=1e-6)
    if steps == phases:
        assert same.all()
    else:
        inner = ~same
        inner[: steps // phases] = False  # the last phase ends at abar = 1 for its noise, and at abar[0] else
        np.testing.assert_allclose((a * signal + b)[inner], table.signal[:-1][inner], atol=1e-6)
        np.testing.assert_allclose(((a * noise) ** 2 + d**2)[inner], table.noise[:-1][inner] ** 2, atol=1e-6)


def test_a_clip_on_the_queue_is_the_clip_of_its_sampler():
    rows = samplers.rectified_flow_ab2(7, 80.0, 0.002)
    table = of_sampler(rows)

    def model(x, level, conditions=None):
        return x / (1 + level[:, None, :, None]) + np.float32(0.5) * np.cos(x)

    queue = Queue(Plan(methods.full_clip(len(rows), 3)), table, model, (1, 2, 4), seed=3)
    frames = []
    while not frames:
        frames = queue.run()
    fresh = Queue(queue.plan, table, model, (1, 2, 4), seed=3)
    fresh.next_row()
    x, previous = fresh.slots.latents, np.zeros((1, 2, 3, 4))
    assert abs(x.std() / 80 - 1) < 0.5
    for sigma, (a, b, c, _) in zip(rows.levels, rows.coefficients, strict=True):
        x0 = model(x, np.full((1, 3), sigma, np.float32)).astype(np.float32)
        x = (a * x.astype(np.float64) + b * x0.astype(np.float64) + c * previous).astype(np.float32)
        previous = x0.astype(np.float64)
    assert np.array_equal(np.stack([frame.latent for frame in frames], axis=2), x)


def test_a_frame_without_history_takes_a_first_order_step():
    table = of_sampler(samplers.rectified_flow_ab2(5, 80.0, 0.002))
    euler = of_sampler(samplers.rectified_flow_euler(6, 80.0, 0.002))
    np.testing.assert_allclose(table.labels, euler.labels)
    np.testing.assert_allclose(table.first[1:], euler.steps[1:])
    assert table.needs_previous and not euler.needs_previous and not table.needs_noise
    distilled = of_sampler(samplers.distilled(4, 80.0, 0.002))
    assert np.array_equal(distilled.first, distilled.steps) and distilled.needs_noise


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: samplers_vp.dpm_sde(0), "steps: expected 1 to 1000"),
        (lambda: samplers_vp.phased_ddim(4, 8), "more phases than steps"),
        (lambda: samplers_vp.phased_ddim(50, 4), "original steps"),
        (lambda: samplers_vp.phased_ddim(4, 3), "make steps a multiple"),
        (lambda: flow_euler(0), "flow steps"),
        (lambda: flow_euler(4, -1.0), "flow steps"),
        (lambda: LevelTable(*(np.zeros(3) for _ in range(3)), np.zeros((2, 4)), np.zeros((3, 4))), "steps"),
        (lambda: LevelTable(*(np.zeros(3) for _ in range(3)), np.full((3, 4), np.nan), np.zeros((3, 4))), "finite"),
        (lambda: LevelTable(*(np.zeros(3) for _ in range(3)), np.zeros((3, 4)), np.ones((3, 4))), "c = 0"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()
