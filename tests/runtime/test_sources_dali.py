"""NVIDIA DALI's CPU operators against PyAV, what is refused, and what is asked of a GPU, by a fake that records it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image

from worldrt.engine.device import HostDevice
from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.cli import main
from worldrt.runtime.images import cover
from worldrt.runtime.sources import dali, open_source

from ..fakes.dali import FakeDali
from ..fakes.films import clip, film, photo, turn

linux = pytest.mark.skipif(sys.platform != "linux", reason="DALI is for Linux")
PHOTO = photo(240, 400)
ALPHA = np.dstack([PHOTO, np.tile(np.linspace(0, 255, 400).round().astype(np.uint8), (240, 1))])
LOSSLESS = {"lossless": True}


@pytest.fixture(autouse=True)
def quiet():
    """nvImageCodec writes to stderr that it found no GPU libraries, at every pipeline; pytest shows what is left."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    yield
    os.dup2(saved, 2)
    os.close(saved)
    os.close(null)


def both(path, count=1):
    """By PyAV and by DALI on the CPU, as int."""
    return [np.asarray(source.last(count), int) for source in (open_source(path), dali.DaliSource(path, "cpu"))]


@linux
@pytest.mark.parametrize(("name", "picture", "mode", "options"), [
    ("rgb.png", PHOTO, None, {}), ("grey.png", PHOTO, "L", {}), ("palette.png", PHOTO, "P", {}),
    ("rgba.png", ALPHA, None, {}), ("a.bmp", PHOTO, None, {}), ("rgb.webp", PHOTO, None, LOSSLESS),
    ("rgba.webp", ALPHA, None, LOSSLESS | {"exact": True}), ("deep.png", PHOTO[..., 0] * np.uint16(259), None, {}),
])  # fmt: skip
def test_what_is_stored_without_loss_is_the_same(tmp_path, name, picture, mode, options):
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(tmp_path / name, **options)
    media, by_dali = both(tmp_path / name)
    assert np.array_equal(media, by_dali)


@linux
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
def test_photographs_agree_after_scaling(tmp_path, options):
    """Two legal JPEG decoders: up to 3 apart as stored, and 1.8 of 255 where Cb is rounded otherwise. Scaled down to
    cover a smaller frame 99.9 % of the values are within 1."""
    Image.fromarray(PHOTO).save(tmp_path / "a.jpg", quality=95, **options)
    media, by_dali = both(tmp_path / "a.jpg")
    assert np.abs(media - by_dali).max() <= 3 and np.abs(media - by_dali).mean() < 0.4
    small = [cover(frames.astype(np.uint8), 192, 112).astype(int) for frames in (media, by_dali)]
    difference = np.abs(small[0] - small[1])
    assert difference.max() <= 2 and (difference > 1).mean() < 1e-3


@linux
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_the_same(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.jpg"):
        Image.fromarray(PHOTO).save(tmp_path / name, exif=exif, subsampling=0)
        media, by_dali = both(tmp_path / name)
        assert media.shape == by_dali.shape and np.abs(media - by_dali).max() <= 3


@linux
@pytest.mark.parametrize(("name", "codec", "pix_fmt", "colours"), [
    ("a.webm", "libvpx-vp9", "yuv420p", (6, 1)), ("full.webm", "libvpx-vp9", "yuv420p", (6, 2)),
    ("eight.mkv", "libvpx", "yuv420p", None), ("a.mov", "mjpeg", "yuvj420p", None),
    ("a.avi", "mjpeg", "yuvj420p", None),
])  # fmt: skip
def test_videos_of_bt601_are_the_same(tmp_path, name, codec, pix_fmt, colours):
    path = film(tmp_path / name, clip(40), codec, pix_fmt=pix_fmt, colours=colours)
    media, by_dali = both(path, 5)
    assert np.array_equal(media, by_dali)
    whole = list(dali.DaliSource(path, "cpu").frames())
    assert len(whole) == 40 and np.array_equal(whole[-5:], by_dali)
    assert np.array_equal(dali.DaliSource(path, "cpu").first(3), whole[:3])
    with pytest.raises(InputError, match=r"expected 41 frame\(s\) or more, got 40"):
        dali.DaliSource(path, "cpu").last(41)


@linux
@pytest.mark.parametrize("colours", [(1, 1), (1, 2), (9, 1)], ids=["bt709", "bt709-full", "bt2020"])
def test_other_matrices_are_made_good(tmp_path, colours):
    """Of colours that BT.601 does not cut off. DALI alone is off by 3 and more."""
    soft = [frame // 2 + 64 for frame in clip(6)]
    path = film(tmp_path / "a.webm", soft, "libvpx-vp9", colours=colours)
    media, by_dali = both(path, 5)
    assert np.abs(media - by_dali).max() <= 1
    facts = dali.DaliSource(path, "cpu")._facts()
    raw = dali.DaliSource(path, "cpu")._decoded(facts, 1, 5).astype(int)
    assert np.abs(raw - media).max() >= 3


@linux
def test_phones_films_are_upright(tmp_path):
    path = turn(film(tmp_path / "a.mp4", clip(6), "libvpx-vp9"), 0, 1, -1, 0)
    media, by_dali = both(path, 2)
    assert by_dali.shape == (2, 96, 64, 3) and np.array_equal(media, by_dali)


@linux
def test_what_dali_does_not_read_is_said(tmp_path):
    frames = [Image.fromarray(frame) for frame in clip(3)]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    film(tmp_path / "a.mp4", clip(3))
    film(tmp_path / "a.mkv", clip(3), "ffv1")
    said = {
        "a.gif": "gif video",
        "a.png": "apng video",
        "a.webp": "an animated WebP",
        "a.mp4": "h264 video without a GPU",
        "a.mkv": "ffv1 video",
    }
    for name, what in said.items():
        with pytest.raises(InputError, match=f"DALI does not read {what}; --input_reader media does"):
            dali.DaliSource(tmp_path / name, "cpu").last(1)
    Image.fromarray(ALPHA).convert("LA").save(tmp_path / "la.png")
    with pytest.raises(InputError, match="cannot be read.*DALI says: .*Failed to decode"):
        dali.DaliSource(tmp_path / "la.png", "cpu").last(1)


@linux
def test_damaged_and_missing(tmp_path):
    path = film(tmp_path / "a.webm", clip(24), "libvpx")
    path.write_bytes(path.read_bytes()[:-1000])
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    for name in ("a.webm", "a.png"):
        with pytest.raises(InputError, match="cannot be read as a picture or a video"):
            dali.DaliSource(tmp_path / name, "cpu").last(1)
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="expected 5.*a picture is one frame"):
        open_source(tmp_path / "a.png", "dali").last(5)
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "b.png", "dali")


def test_without_dali_the_command_to_install_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(InputError, match="pip install nvidia-dali-cuda130"):
        open_source(tmp_path / "a.png", "dali")
    arguments = ["--prompt", "a", "--input_path", "a.png", "--bundle", str(tmp_path), "--disable_guardrail"]
    assert main(["video2world", *arguments, "--input_reader", "dali"]) == 2
    assert "pip install nvidia-dali-cuda130" in capsys.readouterr().err


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(dali, "open_device", lambda name: HostDevice())


@pytest.mark.usefixtures("on_a_gpu")
def test_a_gpu_is_asked_for_the_same_operators(tmp_path, monkeypatch):
    """Only the device differs: NVJPEG for pictures, NVDEC for videos, H.264 too."""
    fake = FakeDali(np.zeros((5, 64, 96, 3), np.uint8)).install(monkeypatch)
    source = open_source(film(tmp_path / "a.mp4", clip(24)), "dali")
    assert source.last(5).shape == (5, 64, 96, 3)
    assert fake.pipelines == [{"batch_size": 1, "num_threads": 2, "device_id": 0}]
    part = {"start_frame": 19, "sequence_length": 5, "pad_mode": "none"}
    assert fake.calls[1] == ("video", {"device": "mixed"} | part)
    assert fake.outputs == [("video on the host",)]
    fake = FakeDali(np.full((40, 60, 3), 7, np.uint8)).install(monkeypatch)
    Image.fromarray(PHOTO).save(tmp_path / "a.jpg")
    assert (open_source(tmp_path / "a.jpg", "dali").last(1) == 7).all()
    operator, keywords = fake.calls[1]
    assert operator == "image" and keywords["device"] == "mixed" and keywords["jpeg_fancy_upsampling"]


def test_where_there_is_no_gpu_the_cpu_decodes(tmp_path, monkeypatch):
    def absent(name):
        raise BackendError("no GPU")

    monkeypatch.setattr(dali, "open_device", absent)
    fake = FakeDali(np.zeros((1, 64, 96, 3), np.uint8)).install(monkeypatch)
    open_source(film(tmp_path / "a.webm", clip(4), "libvpx"), "dali").last(1)
    assert fake.pipelines[0]["device_id"] is None and fake.calls[1][1]["device"] == "cpu"
