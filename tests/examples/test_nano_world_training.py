"""Training of the Matrix nano: that a latent, a control and a row of the queue mean what the runtime takes them for."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "nano"))
import drives
import encode_drives
import evaluate_world
import package_world
import scene
import train_matrix_vae
import train_world
from render import render

from worldrt.engine import packaged
from worldrt.export.families.matrix.nano import PARTS, copy_trained, make_checkpoint, write_checkpoint


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
    for first in range(encode_drives.LATENTS - train_world.WINDOW + 1):
        for number, control in enumerate(train_world.controls(there, first), first):
            moved = {scene.action_of_frame(there.actions, frame) for frame in range(4 * number + 1, 4 * number + 5)}
            assert moved == {train_world.SYMBOLS[control]}


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


def test_a_queue_that_is_told_the_truth_has_the_truth_at_every_level(folder):
    """What is left beyond the truth is noise, as much as the sampler says, row after row; and then it is clean."""
    there, rng = drives.Drives(folder), np.random.default_rng(0)
    queues = train_world.Queues(there, 3)
    for _ in range(7):
        batch = queues.batch(rng)
        assert batch.x.shape == batch.x0.shape == (3, 16, 5, 10, 16)
        signal, noise = (torch.from_numpy(v).float()[:, None, None] for v in train_world.QUEUE_SCALES)
        rest = (batch.x - signal * batch.x0).std((0, 1, 3, 4))
        assert rest[0] < 0.07
        assert torch.allclose(rest[1:], noise[1:, 0, 0], rtol=0.1)
        queues.advance(batch.x0, rng)


def test_windows_are_queues_with_clean_history_or_clips_of_one_level(folder):
    there, rng = drives.Drives(folder), np.random.default_rng(1)
    batch = train_world.windows_of(there, rng, 40)
    is_clip = batch.level[:, 0] > 0
    assert 5 < is_clip.sum() < 35
    assert (batch.level[is_clip] == batch.level[is_clip, :1]).all()
    assert (batch.level[~is_clip] == torch.tensor([0.0, 249, 499, 749, 999])).all()
    error = (batch.x - batch.x0)[~is_clip, :, 0].std((1, 2, 3))
    assert error.max() < 0.4 and error.min() < 0.2


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Runs of two steps each."""
    root = tmp_path_factory.mktemp("world-runs")
    few = ("--drives", folder, "--steps", 2)
    _main(train_matrix_vae, *few, "--part", "decoder", "--out", root / "decoder", "--batch", 1, "--crops", 1)
    _main(train_matrix_vae, *few, "--part", "encoder", "--out", root / "encoder", "--batch", 1)
    _main(train_world, *few, "--out", root / "world", "--windows", 2, "--queues", 1)
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
    table = dict(zip(train_world.SYMBOLS, train_world.control_table(8), strict=True))
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
