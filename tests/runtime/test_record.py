"""`--record_inputs`: what the denoiser was given, and the frames that came of it."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.cli import main
from worldrt.runtime.record import Recording
from worldrt.runtime.samplers import rectified_flow_ab2

RUN = ("text2world", "--prompt", "a red car", "--num_frames", "5", "--width", "48", "--height", "32", "--quiet")


@pytest.fixture
def here(nano, nano_by_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    return tmp_path


def load(path):
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


@pytest.mark.parametrize("cfg", ["batched", "sequential"])
def test_inputs_of_both_texts_are_kept_at_rows_over_the_whole_run(here, cfg):
    assert main([*RUN, "--steps", "4", "--record_inputs", "kept", "--record_steps", "3", "--cfg", cfg,
                 "--save_path", "png:frames"]) == 0  # fmt: skip
    names = {path.name for path in Path("kept").glob("*.npz")}
    assert names == {
        f"{task}-{row:04}-{branch}.npz"
        for task in ("text2image", "video2world")
        for row in (0, 2, 4)  # 4 steps and the clean one
        for branch in ("cond", "uncond")
    }
    cond, uncond = (load(f"kept/video2world-0002-{branch}.npz") for branch in ("cond", "uncond"))
    assert {name: value.shape for name, value in cond.items()} == {
        "x": (1, 16, 2, 4, 6), "clean": (1, 16, 2, 4, 6), "level": (1, 2), "mask": (1, 2), "position": (2,),
        "row": (2, 2), "text": (1, *cond["text"].shape[1:]),
    }  # fmt: skip
    assert all(value.dtype == np.float32 for value in cond.values())
    table = rectified_flow_ab2(4, 80, 0.002)
    np.testing.assert_allclose(cond["level"], table.levels[2], rtol=1e-6)
    np.testing.assert_array_equal(cond["mask"], [[1, 0]])
    assert all((cond[name] == uncond[name]).all() for name in cond if name != "text")
    assert (cond["text"] != uncond["text"]).any()
    first = load("kept/video2world-0000-cond.npz")["x"]
    assert first.std() == pytest.approx(80, rel=0.1) and (first != cond["x"]).any()


def test_frames_are_those_of_the_result(here):
    assert main([*RUN, "--steps", "2", "--record_inputs", "kept", "--save_path", "png:frames"]) == 0
    for index in range(5):
        with av.open(f"frames/frame_{index:04}.png") as container:
            shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
        np.testing.assert_array_equal(np.load(f"kept/frame-{index:04}.npy"), shown)
    assert not Path("kept/frame-0005.npy").exists()


def test_recording_changes_nothing(here):
    assert main([*RUN, "--steps", "2", "--record_inputs", "a", "--save_path", "null:"]) == 0
    assert main([*RUN, "--steps", "2", "--save_path", "png:frames"]) == 0
    with av.open("frames/frame_0004.png") as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(np.load("a/frame-0004.npy"), shown)


def test_mistakes_are_said_first(here, capsys):
    def refused(text, *flags):
        before = set(os.listdir("."))
        assert main([*RUN, *flags]) == 2
        assert text in capsys.readouterr().err and set(os.listdir(".")) == before

    os.mkdir("full")
    Path("full/notes").touch()
    refused("holds other things", "--record_inputs", "full")
    refused("expected 1 or more", "--record_inputs", "new", "--record_steps", "0")
    refused("leave --batch_input_json and --benchmark out", "--record_inputs", "new", "--benchmark")


def test_rows_are_spread_evenly():
    assert Recording(Path("x"), 8).rows(36) == {0, 5, 10, 15, 20, 25, 30, 35}
    assert Recording(Path("x"), 8).rows(3) == {0, 1, 2}
    assert Recording(Path("x"), 1).rows(5) == {0}
    with pytest.raises(InputError):
        Recording(Path("x"), -1).prepare()


def test_an_interrupted_recording_keeps_no_half_file(tmp_path, monkeypatch):
    def interrupted(file, data):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(Recording(tmp_path).frames([np.zeros(3, np.uint8)]))
    assert not list(tmp_path.iterdir())
