"""What the sinks write, read back by PyAV (and ffprobe where there is one); and that nothing half-written stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from io import BytesIO

import av
import numpy as np
import PIL.Image
import pytest

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.sinks.base import VideoFormat, open_sink, split_place
from worldrt.runtime.sinks.jpg import jpg_bytes

FORMAT = VideoFormat(width=96, height=64, fps=10, frames=7)


def frames(count=7, height=64, width=96):
    """Flat colours that move through the cube, so that a wrong matrix or range shows."""
    rng = np.random.default_rng(0)
    return [np.full((height, width, 3), rng.integers(20, 235, 3), np.uint8) for _ in range(count)]


def write(place, video=FORMAT, given=None, **options):
    with open_sink(str(place), video, **options) as put:
        for frame in frames() if given is None else given:
            put(frame)


def test_mp4(tmp_path):
    write(tmp_path / "new" / "out.mp4")
    with av.open(str(tmp_path / "new" / "out.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 96, 64)
        assert stream.average_rate == 10 and stream.frames == 7
        assert float(stream.duration * stream.time_base) == pytest.approx(0.7)
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(decoded).astype(int) - np.stack(frames())).max() <= 6  # crf 18 on flat colours
    raw = (tmp_path / "new" / "out.mp4").read_bytes()
    assert raw.index(b"moov") < raw.index(b"mdat")  # it can be played while it is fetched
    assert sorted(os.listdir(tmp_path / "new")) == ["out.mp4"]


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")
def test_mp4_by_ffprobe(tmp_path):
    write(tmp_path / "out.mp4")
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", tmp_path / "out.mp4"]
    (stream,) = json.loads(subprocess.check_output(command))["streams"]
    expected = {"codec_name": "h264", "width": 96, "height": 64, "nb_read_frames": "7", "avg_frame_rate": "10/1"}
    expected |= {"color_range": "tv", "color_space": "bt709", "color_transfer": "bt709", "color_primaries": "bt709"}
    assert {key: stream[key] for key in expected} == expected


@pytest.mark.parametrize("layout", ["yuv420p", "nv12"])
def test_mp4_takes_planes(tmp_path, layout):
    """Planes from FFmpeg's own converter come back as its converter reads them."""
    video = VideoFormat(96, 64, 16, 7, layout)
    planes = []
    for frame in frames():
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        planes.append(picture.reformat(format=layout, dst_colorspace=1, dst_color_range=1).to_ndarray())
    write(tmp_path / "out.mp4", video, planes)
    with av.open(str(tmp_path / "out.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(decoded).astype(int) - np.stack(frames())).max() <= 8


def test_same_frames_same_bytes(tmp_path):
    write(tmp_path / "a.mp4")
    write(tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_caller_may_reuse_its_frame(tmp_path):
    def reused():
        frame = np.empty((64, 96, 3), np.uint8)
        for values in frames():
            frame[...] = values
            yield frame

    for name in ("out.mp4", "png:frames"):
        scheme, colon, rest = name.rpartition(":")
        write(f"{scheme}{colon}{tmp_path / rest}", given=reused())
    pictures = [read_png(tmp_path / "frames" / f"frame_{i:04d}.png") for i in range(7)]
    assert np.array_equal(np.stack(pictures), np.stack(frames()))


def read_png(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_one_picture(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    write(tmp_path / "one.png", VideoFormat(48, 32, 1, 1), [noise])
    assert np.array_equal(read_png(tmp_path / "one.png"), noise)
    with pytest.raises(InputError, match="one picture"):
        write(tmp_path / "two.png")


def smooth(height=64, width=96):
    y, x = np.mgrid[:height, :width]
    waves = (100 * np.sin(x / 30), 100 * np.cos(y / 20), 60 * np.sin((x + y) / 11))
    return np.stack([127 + wave for wave in waves], -1).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("name", ["one.jpg", "one.JPEG"])
def test_one_jpeg(tmp_path, name):
    """As Pillow reads it: near the picture, without a shift of colours."""
    write(tmp_path / name, VideoFormat(96, 64, 1, 1), [smooth()])
    with PIL.Image.open(tmp_path / name) as picture:
        assert picture.format == "JPEG" and picture.mode == "RGB" and picture.size == (96, 64)
        read = np.asarray(picture)
    assert psnr(read, smooth()) > 40 and np.abs((read.astype(float) - smooth()).mean((0, 1))).max() < 0.3
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (12, 200, 99)):
        flat = np.full((16, 16, 3), colour, np.uint8)
        assert np.abs(np.asarray(PIL.Image.open(BytesIO(jpg_bytes(flat)))).astype(int) - flat).max() <= 2, colour


def test_quality_is_paid_with_bytes(tmp_path):
    sizes, errors = {}, {}
    noisy = np.clip(smooth() + np.random.default_rng(0).normal(0, 4, (64, 96, 3)), 0, 255).astype(np.uint8)
    for suffix in ("jpg", "mp4"):
        for quality in (10, 50, 90):
            place = tmp_path / f"{quality}.{suffix}"
            write(place, VideoFormat(96, 64, 1, 1, quality=quality), [noisy])
            sizes[suffix, quality] = place.stat().st_size
            errors[suffix, quality] = psnr(read_png(place), noisy)
        for values in (sizes, errors):
            assert values[suffix, 10] < values[suffix, 50] < values[suffix, 90]


def test_a_folder_of_jpegs(tmp_path):
    write(f"jpg:{tmp_path / 'frames'}")
    assert sorted(os.listdir(tmp_path / "frames")) == [f"frame_{i:04d}.jpg" for i in range(7)]
    assert np.abs(read_png(tmp_path / "frames" / "frame_0003.jpg").astype(int) - frames()[3]).max() <= 3
    write(f"jpg:{tmp_path / 'frames'}", overwrite=True)
    with pytest.raises(InputError, match="holds one picture"):
        write(tmp_path / "two.jpg")
    with pytest.raises(InputError, match="made of RGB"):
        write(tmp_path / "planes.jpg", VideoFormat(96, 64, 1, 1, "nv12"))


def test_null_checks_frames():
    write("null:")
    with pytest.raises(InputError, match=r"uint8\[64, 96, 3\]"):
        write("null:", given=[np.zeros((64, 95, 3), np.uint8)])


@pytest.mark.parametrize("name", ["out.mp4", "png:frames"])
def test_an_error_leaves_nothing(tmp_path, name):
    scheme, colon, rest = name.rpartition(":")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), open_sink(f"{scheme}{colon}{tmp_path / rest}", FORMAT) as put:
            for frame in frames():
                put(frame)
            raise error
    with pytest.raises(InputError, match="frame"):
        write(f"{scheme}{colon}{tmp_path / rest}", given=[*frames(3), np.zeros((2, 2, 3), np.uint8)])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["out.mp4", "png:frames"])
def test_what_exists_is_kept(tmp_path, name):
    scheme, colon, rest = name.rpartition(":")
    place = tmp_path / rest
    place.mkdir() if scheme else place.write_text("precious")
    if scheme:
        (place / "note").write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        write(f"{scheme}{colon}{place}")
    assert (place / "note" if scheme else place).read_text() == "precious"
    if scheme:
        with pytest.raises(OutputError, match="more than frames"):  # what is not ours is not thrown away
            write(f"{scheme}{colon}{place}", overwrite=True)
        (place / "note").rename(place / "frame_0000.png")
    write(f"{scheme}{colon}{place}", overwrite=True)
    assert len(os.listdir(place)) == 7 if scheme else place.stat().st_size > 500


@pytest.mark.parametrize(
    ("place", "error", "text"),
    [
        ("out.avi", InputError, r"\.jpg, \.mp4, \.png"),
        ("out", InputError, r"\.mp4"),
        ("/proc/none/out.mp4", OutputError, "cannot be written"),
    ],
)
def test_bad_places(place, error, text):
    with pytest.raises(error, match=text):
        write(place)


def test_odd_sizes():
    with pytest.raises(InputError, match="even"):
        write("out.mp4", VideoFormat(95, 64, 16))


def test_places(tmp_path):
    assert split_place("a/b.MP4")[0] == "mp4"
    assert [str(part) for part in split_place("png:a/b")] == ["png", "a/b"]


LIMITED = """
import resource, sys
import numpy as np
from worldrt.engine.errors import OutputError
from worldrt.runtime.sinks.jpg import jpg_bytes
from worldrt.runtime.sinks.base import VideoFormat, open_sink
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
rng = np.random.default_rng(0)
try:
    with open_sink(sys.argv[1], VideoFormat(256, 256, 16)) as put:
        for _ in range(40):
            put(rng.integers(0, 256, (256, 256, 3), np.uint8))
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["out.mp4", "png:frames"])
def test_a_file_that_cannot_grow(tmp_path, name):
    scheme, colon, rest = name.rpartition(":")
    place = f"{scheme}{colon}{tmp_path / rest}"
    done = subprocess.run([sys.executable, "-c", LIMITED, place], capture_output=True, text=True)
    assert "cannot be written" in done.stdout, done.stderr
    assert not os.listdir(tmp_path)


def test_full_disk_is_seen_before_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="disk is full"), open_sink(str(tmp_path / "out.mp4"), FORMAT):
        pytest.fail("the block was entered")
    assert not os.listdir(tmp_path)
