"""Training of the Matrix nano: that a latent, a control and a row of the queue mean what the runtime takes them for."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "nano"))
import distill_world
import drives
import encode_drives
import evaluate_world
import package_world
import scene
import train_matrix_vae
import train_world
import world_levels
import world_net
import world_windows
from render import render

from worldrt.engine import packaged
from worldrt.engine.diffusion import alphas_cumprod
from worldrt.export.families.matrix.control import SYMBOLS
from worldrt.export.families.matrix.nano import PARTS, copy_trained, make_checkpoint, write_checkpoint
from worldrt.runtime.samplers_vp import phased_ddim


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two encoded drives, of noise."""
    root = tmp_path_factory.mktemp("drives")
    latents = np.random.default_rng(0).standard_normal((2, 16, encode_drives.LATENTS, 10, 16))
    np.save(root / "drives-0003.npy", latents.astype(np.float16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drives, "SHARD", 2)
        yield root


def test_a_latent_is_four_frames_and_the_control_that_moved_the_car_in_them():
    there = encode_drives.drive_of(11)
    frames = render(there, 4 * encode_drives.LATENTS + 1)
    assert np.array_equal(drives.frames_of(there, 3, 2), frames[13:21])
    for number, window in enumerate(encode_drives.windows(11)):
        assert np.array_equal(window[1:], drives.frames_of(there, number, 1))
    for first in range(encode_drives.LATENTS - world_levels.WINDOW + 1):
        for number, control in enumerate(world_windows.controls(there, first), first):
            moved = {scene.action_of_frame(there.actions, frame) for frame in range(4 * number + 1, 4 * number + 5)}
            assert moved == {SYMBOLS[control]}


def test_every_latent_is_encoded_from_its_own_frames_alone():
    class Mean:
        def encode(self, frames):
            assert frames.shape == (5, 80, 128, 3)
            return np.full((1, 16, 2, 10, 16), frames[1:].mean())

    made = encode_drives.encoded(Mean(), 4)
    drawn = drives.frames_of(encode_drives.drive_of(4), 0, encode_drives.LATENTS)
    assert np.allclose(made[0, :, 0, 0], drawn.reshape(encode_drives.LATENTS, -1).mean(1))


def test_the_scene_of_a_drive_is_that_of_its_number_in_the_shards_that_are_there(folder):
    there = drives.Drives(folder)
    assert len(there) == 2
    assert there.scene(1) == encode_drives.drive_of(3 * 2 + 1)
    assert there.latents(1, 4, 3).shape == (16, 3, 10, 16)


def test_steps_of_whole_phases_are_the_sampler_of_the_packaged_model():
    table = phased_ddim(4, 4, abar=alphas_cumprod(dtype=np.float32))
    level = world_levels.of_queue(0)[None]
    assert level[0].tolist() == table.labels.tolist()
    keep, add = (v.flatten() for v in world_levels.shares(level, world_levels.below(level, 5)))
    assert np.allclose(keep[1:], table.steps[1:, 0], atol=1e-6) and np.allclose(add[1:], table.steps[1:, 1], atol=1e-6)
    assert (keep[0], add[0]) == (1, 0)


def test_small_steps_end_where_their_phase_does():
    level = world_levels.LEVELS
    for _ in range(4):
        level = world_levels.below(level, 1)
    assert level[[5, 10, 15, 20]].tolist() == [49, 299, 549, 799]
    assert world_levels.below(world_levels.LEVELS, 5)[[0, 1, 5, 6, 10, 20]].tolist() == [0, 0, 0, 249, 249, 749]
    assert world_levels.of_queue(2).tolist() == [0, 149, 399, 649, 899]


@pytest.mark.parametrize("steps", (1, 5))
def test_a_queue_that_is_told_the_truth_has_the_truth_at_every_level(folder, steps):
    """What is left beyond the truth is noise, as much as the sampler says, row after row; and then it is clean."""
    there, rng = drives.Drives(folder), np.random.default_rng(0)
    queues = world_windows.Queues(there, 3, 6, steps=steps)
    for row in range(35 // steps):
        batch = queues.batch(rng)
        assert batch.x.shape == batch.x0.shape == (3, 16, 5, 10, 16)
        assert torch.equal(batch.level, world_levels.of_queue(row * steps % 5).expand(3, -1))
        signal, noise = world_levels.scales(batch.level)
        rest = (batch.x - signal * batch.x0).std((0, 1, 3, 4))
        assert rest[0] < 0.07
        assert torch.allclose(rest[1:], noise[0, 0, 1:, 0, 0], rtol=0.1)
        queues.advance(batch.x0, rng)


def test_a_queue_may_go_on_where_its_drive_ends(folder):
    rng = np.random.default_rng(2)
    queues = world_windows.Queues(drives.Drives(folder), 1, 40, steps=5, leave=True)
    queues.batch(rng)
    queues._states[0] = replace(queues._states[0], left=30)
    for _ in range(29):
        batch = queues.batch(rng)
        assert batch.control.shape == (1, 5) and batch.level[0, 1] == 249
        queues.advance(batch.x, rng)
    assert not batch.x0.any() and queues._states[0].left == 1


def test_windows_are_queues_with_clean_history_or_clips_of_one_level(folder):
    there, rng = drives.Drives(folder), np.random.default_rng(1)
    batch = world_windows.windows_of(there, rng, 40)
    is_clip = batch.level[:, 0] > 0
    assert 5 < is_clip.sum() < 35
    assert (batch.level[is_clip] == batch.level[is_clip, :1]).all()
    offsets = batch.level[~is_clip, 1:] - torch.tensor([249.0, 499, 749, 999])
    assert (offsets == offsets[:, :1]).all() and set(offsets[:, 0].tolist()) == {0, -50, -100, -150, -200}
    error = (batch.x - batch.x0)[~is_clip, :, 0].std((1, 2, 3))
    assert error.max() < 0.4 and error.min() < 0.2
    on_grid = world_windows.windows_of(there, rng, 40, on_grid=True).level
    assert set(on_grid.flatten().tolist()) <= set(world_levels.LEVELS.tolist())


def test_the_student_is_held_to_where_the_small_steps_of_the_teacher_lead(folder, monkeypatch):
    """A teacher that knows the truth leads to the truth at the end of each phase; a student that does, too, is right,
    and one that is wrong by d in v has a loss of d squared."""
    there, rng = drives.Drives(folder), np.random.default_rng(3)
    batch = world_windows.windows_of(there, rng, 12, on_grid=True)

    class Knows:
        def __init__(self, wrong=0.0):
            self.wrong = wrong

        def read(self, prompts):
            return torch.zeros(len(prompts), 1, 1)

        def velocity(self, x, level, text, control):
            signal, noise = world_levels.scales(level)
            x0 = torch.cat([batch.x0, torch.zeros(len(x) - 12, *x.shape[1:])])
            return (signal * x - x0) / noise + self.wrong

    end = world_levels.below(batch.level, 5)
    signal, noise = world_levels.scales(end)
    begun = (batch.x - world_levels.scales(batch.level)[0] * batch.x0) / world_levels.scales(batch.level)[1]
    assert torch.allclose(distill_world.ends(Knows(), batch, None), signal * batch.x0 + noise * begun, atol=1e-4)

    monkeypatch.setattr(distill_world, "windows_of", lambda *_, **__: batch)
    for wrong in (0.0, 0.5):
        queues = world_windows.Queues(there, 2, 40, steps=5, leave=True)
        loss, numbers = distill_world.loss_of(Knows(wrong), Knows(), there, queues, 0, 12)
        assert loss == pytest.approx(wrong**2, abs=1e-4) and np.isfinite(list(numbers.values())).all()


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Runs of two steps each."""
    root = tmp_path_factory.mktemp("world-runs")
    few = ("--drives", folder, "--steps", 2)
    _main(train_matrix_vae, *few, "--part", "decoder", "--out", root / "decoder", "--batch", 1, "--crops", 1)
    _main(train_matrix_vae, *few, "--part", "encoder", "--out", root / "encoder", "--batch", 1)
    _main(train_world, *few, "--out", root / "teacher", "--windows", 2, "--queues", 1)
    _main(distill_world, *few, "--teacher", root / "teacher", "--out", root / "world", "--windows", 1, "--queues", 1)
    return root


def _main(script, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()


def test_what_was_trained_has_the_layout_of_the_seeded_checkpoint_and_is_written_out_of_the_package(
    trained, tmp_path, monkeypatch
):
    made = package_world.weights(trained / "decoder", trained / "encoder", trained / "world")
    monkeypatch.setattr(packaged, "PLACE", tmp_path / "models")
    assert not copy_trained(tmp_path / "out")
    home = tmp_path / "models" / "nano-matrix"
    write_checkpoint(home / packaged.CHECKPOINT, made, {})
    (home / "bundle.json").write_text("{}")
    assert copy_trained(tmp_path / "out")
    seeded = make_checkpoint(tmp_path / "seeded")
    for part, file in PARTS.items():
        stored, copied, theirs = (load_file(root / file) for root in (home / "checkpoint", tmp_path / "out", seeded))
        assert {key: t.shape for key, t in copied.items()} == {key: t.shape for key, t in theirs.items()}, part
        assert {t.dtype for t in copied.values()} == {torch.float32}
        assert all(torch.equal(copied[key], tensor.float()) for key, tensor in stored.items())


def test_symbols_that_the_world_does_not_know_are_the_nearest_that_it_does():
    table = dict(zip(SYMBOLS, world_net.control_table(8), strict=True))
    assert torch.equal(table["NL"], table["DL"]) and torch.equal(table["B"], table["N"])
    assert len({tuple(table[symbol].tolist()) for symbol in scene.ACTIONS}) == len(scene.ACTIONS)


def test_delay_and_obedience_are_those_of_a_road_that_is_known():
    signal = evaluate_world.signal_of(3, 80)
    told = evaluate_world.wheel(signal, 320).astype(float)
    seen = np.concatenate([np.zeros(7), told[:-7]]) + 0.1 * np.random.default_rng(0).standard_normal(320)
    assert evaluate_world.best_delay([(signal, seen)]) == 7
    assert evaluate_world.obeyed([(signal, seen)], 7) > 0.99
    assert evaluate_world.obeyed([(signal, -seen)], 7) < 0.01
    assert {"D", "DL", "DR"} == set(signal)


def test_a_drive_is_in_clear_weather_and_its_prompt_says_nothing_of_turns():
    there = encode_drives.drive_of(5)
    assert there.weather == "clear" and len(there.actions) == encode_drives.LATENTS + 1
    still = replace(there, actions=())
    assert still.caption.count(".") == 1
