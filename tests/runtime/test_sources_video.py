"""Videos that are read: colours as declared, upright, the end without the beginning, and damaged ones refused."""

from __future__ import annotations

import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from worldrt.engine.errors import InputError
from worldrt.runtime.sources import open_source
from worldrt.runtime.sources.media import Media, opened

from ..fakes.films import clip, film, photo, planes, turn

BT709, UNDECLARED, BT601, BT2020 = 1, 2, 6, 9  # AVCOL_SPC_
LIMITED, FULL = 1, 2  # AVCOL_RANGE_
LUMA = {BT709: (0.2126, 0.0722), UNDECLARED: (0.299, 0.114), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}


def rgb_of(values, matrix, span):
    """float64 RGB of 8-bit Y'CbCr (3, h, w), by ITU-R BT.601, BT.709 or BT.2020 (items 3.2 to 3.5)."""
    luma, cb, cr = (values - np.array([16, 128, 128])[:, None, None]) * (255 / np.array([219, 224, 224]))[:, None, None]
    if span == FULL:
        luma, cb, cr = values[0], values[1] - 128, values[2] - 128
    red, blue = LUMA[matrix]
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], -1).clip(0, 255)


@pytest.mark.parametrize("span", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020, UNDECLARED])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_colours_as_declared(tmp_path, pix_fmt, matrix, span):
    """Patches of all colours, in H.264 without loss, against float64. What declares no matrix is BT.601."""
    values = np.random.default_rng(1).integers(16, 240, (3, 8, 8)).repeat(16, 1).repeat(16, 2).astype(np.uint8)
    path = film(tmp_path / "a.mp4", [planes(values, pix_fmt)], pix_fmt=pix_fmt, colours=(matrix, span), qp="0")
    inside = (slice(6, None, 16), slice(6, None, 16))  # of each patch: at its edge colour is interpolated
    difference = open_source(path).last(1)[0][inside] - rgb_of(values.astype(float), matrix, span)[inside]
    assert np.abs(difference).max() <= 0.52


def test_our_own_videos_come_back_as_they_were(tmp_path):
    from worldrt.runtime.sinks.base import VideoFormat, open_sink

    frames = clip(5, 128, 192)
    with open_sink(str(tmp_path / "a.mp4"), VideoFormat(192, 128, 16, 5)) as write:
        for frame in frames:
            write(frame)
    difference = open_source(tmp_path / "a.mp4").last(5).astype(float) - np.stack(frames)
    assert np.abs(difference).mean() < 3 and np.abs(difference.mean((0, 1, 2))).max() < 0.5


KINDS = {
    "b-frames.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "open-groups.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}),
    "refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "transport.ts": ("libx264", {"g": "12", "bf": "2"}),
    "riff.avi": ("libx264", {"g": "12", "bf": "0"}),
    "fragments.mp4": ("libx264", {"g": "12"}),
    "hidden-frames.webm": ("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    "eight.mkv": ("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", {"g": "12", "preset": "12"}),
    "four.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "two.mkv": ("mpeg2video", {"g": "12", "bf": "2"}),
    "pictures.mov": ("mjpeg", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_end_is_that_of_the_whole(tmp_path, name):
    codec, options = KINDS[name]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = film(tmp_path / name, clip(60), codec, pix_fmt=pix_fmt, **options)
    if name == "fragments.mp4":
        path = muxed_again(path, "frag_keyframe+empty_moov")  # no index at the start
    source = open_source(path)
    whole = np.stack(list(source.frames()))
    assert len(whole) == 60
    for count in (1, 5, 30, 60):
        assert np.array_equal(source.last(count), whole[-count:]), count
    assert np.array_equal(source.first(5), whole[:5])
    with pytest.raises(InputError, match=r"expected 61 frame\(s\) or more, got 60$"):
        source.last(61)


def muxed_again(path, flags):
    """The same packets in an MP4 of other flags."""
    made = path.with_name("made.mp4")
    with av.open(str(path)) as source, av.open(str(made), "w", options={"movflags": flags}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return made


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv"])
def test_only_the_last_key_frame_interval_is_decoded(tmp_path, monkeypatch, name):
    path = film(tmp_path / name, [photo(32, 48, i / 999) for i in range(1000)], g="25", preset="ultrafast")
    decoded = []
    packets = Media.packets

    def counted(self):
        for packet in packets(self):
            decoded.append(packet)
            yield packet

    monkeypatch.setattr(Media, "packets", counted)
    open_source(path).last(1)
    assert 1 <= len(decoded) <= 27
    decoded.clear()
    open_source(path).last(40)
    assert len(decoded) <= 26 + 76 + 2
    decoded.clear()
    open_source(path).first(1)
    assert len(decoded) <= 120  # threads of the decoder read ahead


def test_uneven_times(tmp_path):
    times = [0, 40, 50, 400, 401, 900, 1500, 1510, 2600, 9000]
    path = film(tmp_path / "a.mkv", clip(10), times=times, g="4", bf="0")
    with av.open(str(path)) as container:
        assert [round(frame.time * 1000) for frame in container.decode(video=0)] == times
    source = open_source(path)
    assert np.array_equal(source.last(5), np.stack(list(source.frames()))[5:])


@pytest.mark.parametrize(("matrix", "upright"), [
    ((1, 0, 0, 1), lambda f: f), ((0, 1, -1, 0), lambda f: np.rot90(f, -1)), ((-1, 0, 0, -1), lambda f: np.rot90(f, 2)),
    ((0, -1, 1, 0), np.rot90), ((-1, 0, 0, 1), lambda f: f[:, ::-1]), ((1, 0, 0, -1), lambda f: f[::-1]),
])  # fmt: skip
def test_phones_films_are_upright(tmp_path, matrix, upright):
    path = film(tmp_path / "a.mp4", clip(6), g="3")
    stored = np.stack(list(open_source(path).frames()))
    turned = open_source(turn(path, *matrix))
    assert np.array_equal(turned.last(2), np.stack([upright(frame) for frame in stored[-2:]]))
    assert np.array_equal(turned.first(1)[0], upright(stored[0]))


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the ffmpeg program is not installed")
def test_the_display_matrix_turns_as_the_ffmpeg_program_does(tmp_path):
    """Rotated by 90 degrees: an independent reading of the matrix."""
    path = turn(film(tmp_path / "a.mp4", clip(2)), 0, 1, -1, 0)
    picture = tmp_path / "by_ffmpeg.png"
    subprocess.check_call(["ffmpeg", "-v", "error", "-i", path, "-frames:v", "1", picture])
    expected, made = open_source(picture).last(1)[0], open_source(path).first(1)[0]
    assert made.shape == expected.shape and np.abs(made.astype(int) - expected).mean() < 3


def test_odd_sizes(tmp_path):
    frames = [photo(65, 97, i / 4) for i in range(5)]
    source = open_source(film(tmp_path / "a.webm", frames, "libvpx-vp9", crf="10", b="4M"))
    assert source.last(5).shape == (5, 65, 97, 3)
    assert np.abs(source.last(5).astype(float) - np.stack(frames)).mean() < 6


def test_ten_bits(tmp_path):
    source = open_source(film(tmp_path / "a.mkv", clip(3), "ffv1", pix_fmt="yuv444p10le"))
    assert np.abs(source.last(3).astype(int) - np.stack(clip(3))).max() <= 2


def test_fewer_than_five_and_none_at_all(tmp_path):
    with pytest.raises(InputError, match=r"expected 5 frame\(s\) or more, got 4$"):
        open_source(film(tmp_path / "a.mp4", clip(4))).last(5)
    for name in ("empty.mp4", "empty.mkv"):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=16)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
        for end in ("last", "first"):
            with pytest.raises(
                InputError, match=r"expected 1 frame\(s\) or more, got 0|it holds no picture|End of file"
            ):
                getattr(open_source(tmp_path / name), end)(1)


def test_a_size_that_changes(tmp_path):
    parts = [film(tmp_path / f"{i}.ts", [photo(64, 96 * i)] * 3, bf="0").read_bytes() for i in (1, 2)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    source = open_source(tmp_path / "a.ts")
    assert source.last(2).shape == (2, 64, 192, 3)
    with pytest.raises(InputError, match="the size of its frames changes within the last 5"):
        source.last(5)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("name", ["start.mp4", "end.mp4", "a.mkv", "a.webm", "a.mov", "a.avi"])
def test_videos_cut_short(tmp_path, name, kept):
    """Whether the index is at the start of an MP4 or at its end. What is left is not taken for the whole."""
    codec = {"a.webm": "libvpx", "a.mov": "mjpeg", "a.avi": "mjpeg"}.get(name, "libx264")
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = film(tmp_path / name, clip(48), codec, pix_fmt=pix_fmt, **({} if codec == "mjpeg" else {"g": "12"}))
    if name == "start.mp4":
        path = muxed_again(path, "faststart")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(InputError, match="cannot be read as a picture or a video"):
        open_source(path).last(1)


def test_a_damaged_end(tmp_path):
    """Zeros over a part of the last frames: no concealed picture is taken for a frame."""
    path = film(tmp_path / "a.mkv", clip(24, 128, 192), g="12", bf="0")
    with opened(path) as found:
        places = [(packet.pos, packet.size) for packet in found.packets() if packet.size]
    data = bytearray(path.read_bytes())
    at, size = places[-3]
    data[at + size // 3 : at + size] = bytes(size - size // 3)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as a picture or a video"):
        open_source(path).last(5)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.ts", "a.gif", "a.jpg", "a.png"])
def test_whatever_the_bytes_are_there_are_frames_or_one_clear_error(tmp_path, name):
    """Bytes changed at random, with a fixed seed, most of them in the heads of the files."""
    rng = np.random.default_rng(7)
    if name.endswith(("jpg", "png", "gif")):
        Image.fromarray(photo(60, 90)).save(tmp_path / name)
    else:
        film(tmp_path / name, clip(12), "libvpx" if name == "a.webm" else "libx264", g="6")
    whole, refused = (tmp_path / name).read_bytes(), 0
    for _ in range(80):
        data = bytearray(whole)
        for place in rng.integers(0, rng.choice([64, 1000, len(data)]), rng.choice([1, 3, 30])):
            data[place % len(data)] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(data)
        try:
            frames = open_source(tmp_path / name).last(1)
            assert frames.ndim == 4 and frames.dtype == np.uint8
        except InputError as error:
            assert name in str(error)
            refused += 1
    assert refused


def test_a_title_that_is_not_utf8(tmp_path):
    path = film(tmp_path / "a.mkv", clip(3))
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xff\xfe\xfd\xfc"))
    assert open_source(path).last(1).shape == (1, 64, 96, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_end_of_a_long_video_takes_little_memory(tmp_path):
    path = film(tmp_path / "a.mp4", [photo(360, 640), photo(360, 640, 1.0)] * 60, g="24", preset="ultrafast")
    code = (
        "import sys, resource; from pathlib import Path; from worldrt.runtime.sources import open_source; import av\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "open_source(Path(sys.argv[1])).last(5)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown_kb = int(subprocess.check_output([sys.executable, "-c", code, path], text=True))
    assert grown_kb < 60_000  # all of it would be 83 MB of RGB
