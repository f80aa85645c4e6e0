"""The queue of The Matrix equals the official one: windows, predictions, steps and frames, with the recorded noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.runtime import samplers_vp
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.noise import Use
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden" / "matrix"
TOLERANCE = 2e-6


class Run:
    """A recorded run: its tensors with frames at axis 2, its numbers, and the table of its sampler."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "np") as file:
            self.arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.meta = {key: value for key, value in file.metadata().items()}
        self.T, self.G, self.W, self.groups = (int(self.meta[key]) for key in ("T", "G", "W", "groups"))
        self.stage3 = "stage3" in name
        self.table = samplers_vp.dpm_sde(self.T) if self.stage3 else samplers_vp.phased_ddim(self.T, 4)
        self.row = 0

    def __getitem__(self, key: str) -> np.ndarray:
        array = self.arrays[key]
        return np.moveaxis(array, 1, 2) if array.ndim == 5 else array

    @property
    def at(self) -> str:
        group, step = divmod(self.row, self.T // self.G)
        return f"g{group:02}.s{step:02}"

    def noise(self, use, frames, levels, row):
        return np.stack([self.drawn(use, frame) for frame in frames])

    def drawn(self, use, frame):
        """What the official code drew for this; of two draws the second is the one it used."""
        group = self.row // (self.T // self.G)
        if use == Use.START:
            beginning = self["noise.init"].shape[2] - 1
            late = frame - beginning
            return (
                self["noise.init"][:, :, frame + 1]
                if late < 0
                else self[f"g{late // self.W:02}.append_noise"][:, :, late % self.W]
            )
        draws = [name for name in (f"{self.at}.step_noise.1", f"{self.at}.step_noise.0") if name in self.arrays]
        return self[draws[0]][:, :, frame - group * self.W]

    def feed(self, frame):
        indices = self["control_indices"]
        if frame + 1 >= len(indices):
            return None
        return Condition(frame + 1, {"control": self["control_table"][indices[frame + 1]]})

    def model(self, x, level, conditions):
        """x0 of the toy model, whose slots, timesteps and controls must be the recorded ones."""
        assert np.array_equal(level, self[f"{self.at}.timesteps"])
        np.testing.assert_allclose(x, self[f"{self.at}.window_in"], atol=TOLERANCE, rtol=0)
        x, t = x.astype(np.float64), level.astype(np.float64)[:, None, :, None, None]
        control = conditions["control"].mean(-1)[:, None, :, None, None]
        v = 0.6 * x + 0.3 * np.sin(1.7 * x) + 0.1 * np.cos(t / 300) + 0.05 * x.mean(2, keepdims=True)
        v += 0.2 * control + 0.02 * self["prompt_embeds"].mean()
        np.testing.assert_allclose(v, self[f"{self.at}.model_out"], atol=TOLERANCE, rtol=0)
        abar = self["alphas_cumprod"].astype(np.float64)[t.astype(int)]
        x0 = np.sqrt(abar) * x - np.sqrt(1 - abar) * v
        if self.stage3:
            np.testing.assert_allclose(x0[:, :, 1:], self[f"{self.at}.x0"], atol=TOLERANCE, rtol=0)
        return x0


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("scheduler_stage*")))
def test_a_run_equals_the_official_one(name):
    run = Run(name)
    queue = Queue(
        Plan(methods.swin_dpm(run.T, run.G, run.W)),
        run.table,
        run.model,
        run["clean_latents"][:, :, 0].shape,
        feed=run.feed,
        noise=run.noise,
    )
    queue.start(run["clean_latents"])
    emitted = []
    for row in range(run.groups * run.T // run.G):
        run.row = row
        frames = queue.run()
        after = queue.slots.latents[:, :, 1:]
        np.testing.assert_allclose(after, run[f"{run.at}.prev_sample"], atol=TOLERANCE, rtol=0)
        emitted += frames
    assert [frame.number for frame in emitted] == list(range(run.groups * run.W))
    stacked = np.stack([frame.latent for frame in emitted], axis=2)
    np.testing.assert_allclose(stacked, run["emitted_all"], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def tables():
    with safe_open(GOLDEN / "scheduler_tables.safetensors", "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["scheduler_config"])  # noqa: SIM118


def test_abar_is_the_official_one(tables):
    golden, config = tables
    numbers = config["beta_start"], config["beta_end"], config["snr_shift_scale"]
    double = samplers_vp.alphas_cumprod(*numbers)
    np.testing.assert_allclose(double, golden["stage3.alphas_cumprod"], atol=1e-12, rtol=0)
    single = samplers_vp.alphas_cumprod(*numbers, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, golden["stage4.alphas_cumprod"], atol=1.2e-7, rtol=0)


@pytest.mark.parametrize(
    ("key", "steps", "groups", "group"),
    [
        ("stage3.T20_G4_W4", 20, 4, 4),
        ("stage3.T4_G4_W1", 4, 4, 1),
        ("stage4.T4_G4_W1_orig40_phases4", 4, 4, 1),
        ("stage4.T4_G4_W2_orig40_phases4", 4, 4, 2),
        ("stage4.T8_G4_W1_orig40_phases4", 8, 4, 1),
        ("stage4.T8_G4_W1_orig40_phases8", 8, 4, 1),
    ],
)
def test_rows_show_the_official_timesteps(tables, key, steps, groups, group):
    golden, _ = tables
    phases = int(key.rpartition("phases")[2]) if "phases" in key else 0
    table = samplers_vp.phased_ddim(steps, phases) if phases else samplers_vp.dpm_sde(steps)
    assert table.labels[:0:-1].tolist() == golden[f"{key}.timesteps"].tolist()
    rows = Plan(methods.swin_dpm(steps, groups, group)).steady
    shown = [table.labels[list(row.calls[0].branches[0].read_label)].tolist() for row in rows]
    assert shown == golden[f"{key}.grouped"].tolist()


@pytest.mark.parametrize("phases", [4, 8])
def test_phases_end_where_the_official_ones_do(tables, phases):
    golden, _ = tables
    ends = samplers_vp.phase_end(np.arange(1000), phases)
    assert ends.tolist() == golden[f"stage4.all.phases{phases}.boundary"].tolist()


def test_a_phased_step_takes_the_official_coefficients(tables):
    golden, _ = tables
    rows = samplers_vp.phased_ddim(8, 8).steps[:0:-1]
    key = "stage4.T8_G4_W1_orig40_phases8"
    np.testing.assert_allclose(rows[:, 0], golden[f"{key}.c_skip"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(rows[:, 1], golden[f"{key}.c_out"], atol=1e-5, rtol=0)
    assert not rows[:, 3].any()


@pytest.mark.parametrize("stage", [3, 4])
def test_levels_are_noised_as_the_official_code_does(tables, stage):
    golden, _ = tables
    table = samplers_vp.dpm_sde(1000) if stage == 3 else samplers_vp.phased_ddim(1000, 1, 1000)
    level = {int(label): index for index, label in reversed(list(enumerate(table.labels)))}
    chosen = [level[t] for t in golden["add_noise.t"][0].tolist()]
    signal, spread = (part[chosen][:, None, None, None] for part in (table.signal, table.noise))
    noised = signal * golden["add_noise.x"] + spread * golden["add_noise.noise"]
    np.testing.assert_allclose(noised, golden[f"add_noise.stage{stage}"], atol=1e-6, rtol=0)
