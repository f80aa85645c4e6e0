"""Pictures that are read, against Pillow (libjpeg-turbo, libpng, libwebp), and what cannot be read."""

from __future__ import annotations

import io
import struct
import sys
import wave
import zlib

import av
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from worldrt.engine.errors import InputError
from worldrt.runtime.sources import open_source

from ..fakes.films import clip, film, photo

PHOTO = photo(60, 90)
ALPHA = np.dstack([PHOTO, np.tile(np.linspace(0, 255, 90).round().astype(np.uint8), (60, 1))])


def saved(path, picture=PHOTO, mode=None, **options):
    image = Image.fromarray(picture)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path):
    return open_source(path).last(1)[0]


def by_pillow(path):
    """As Pillow reads it, upright, over black."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    values = np.asarray(image).astype(float)
    return np.rint(values[..., :3] * values[..., 3:] / 255)


@pytest.mark.parametrize(("name", "picture", "mode", "options"), [
    ("rgb.png", PHOTO, None, {}), ("grey.png", PHOTO, "L", {}), ("palette.png", PHOTO, "P", {}),
    ("bits.png", PHOTO, "1", {}), ("rgba.png", ALPHA, None, {}), ("grey_alpha.png", ALPHA, "LA", {}),
    ("clear.png", PHOTO, "P", {"transparency": 7}), ("a.bmp", PHOTO, None, {}), ("a.tiff", PHOTO, None, {}),
    ("lossless.webp", PHOTO, None, {"lossless": True}), ("alpha.webp", ALPHA, None, {"lossless": True, "exact": True}),
])  # fmt: skip
def test_what_is_stored_without_loss_is_read_without_loss(tmp_path, name, picture, mode, options):
    """Transparency is over black."""
    path = saved(tmp_path / name, picture, mode, **options)
    assert np.array_equal(read(path), by_pillow(path))


@pytest.mark.parametrize(("name", "mode", "options"), [
    ("420.jpg", None, {}), ("444.jpeg", None, {"subsampling": 0}), ("422.jpg", None, {"subsampling": 1}),
    ("progressive.jpg", None, {"progressive": True}), ("grey.jpg", "L", {}), ("cmyk.jpg", "CMYK", {}),
    ("lossy.webp", None, {}),
])  # fmt: skip
def test_lossy_pictures(tmp_path, name, mode, options):
    """Legal decoders round Y', Cb and Cr by 1 differently, and 1 of Cb is 1.8 of blue; of CMYK they cut or round."""
    path = saved(tmp_path / name, PHOTO, mode, quality=92, **options)
    difference = np.abs(read(path) - by_pillow(path))
    assert difference.max() <= 3 and difference.mean() < (1.1 if mode == "CMYK" else 0.5)


def png16(path, values):
    """A PNG of uint16 (h, w, channels), by hand (ISO/IEC 15948)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_rounded_to_8(tmp_path, channels):
    values = np.random.default_rng(channels).integers(0, 65536, (20, 30, channels))
    colours = values[..., :3] if channels > 2 else values[..., :1].repeat(3, -1)
    alpha = values[..., -1:] / 65535 if channels in (2, 4) else 1
    exact = colours * alpha / 257
    assert np.abs(read(png16(tmp_path / "deep.png", values)) - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True}), ("a.jpg", {"quality": 95})):
        path = saved(tmp_path / name, exif=exif, **options)
        difference = np.abs(read(path) - by_pillow(path)).max()
        assert difference <= (3 if name == "a.jpg" else 0), name


def test_damaged_exif_turns_nothing(tmp_path):
    """In JPEG and WebP: FFmpeg 8.1 refuses a PNG for it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    good = exif.tobytes()
    for bad in (good[:9], good[:10] + b"\xff\xff\xff\xff", good.replace(b"MM", b"XX").replace(b"II", b"XX"), good[:16]):
        assert np.array_equal(read(saved(tmp_path / "a.webp", exif=bad, lossless=True)), PHOTO)
        assert np.abs(read(saved(tmp_path / "a.jpg", exif=bad)) - by_pillow(saved(tmp_path / "b.jpg"))).max() <= 3


def test_what_lies_behind_a_picture_is_not_read(tmp_path):
    """Phones put a gain map, or a film, behind the JPEG."""
    path, other = saved(tmp_path / "a.jpg", quality=95), saved(tmp_path / "b.jpg", photo(40, 40))
    alone = read(path)
    for behind in (other.read_bytes(), film(tmp_path / "b.mp4", clip(3)).read_bytes()):
        path.write_bytes(path.read_bytes() + behind)
        assert np.array_equal(read(path), alone) and len(list(open_source(path).frames())) == 1


def test_a_name_is_no_pattern_and_no_address(tmp_path, monkeypatch):
    for i in (1, 2):
        saved(tmp_path / f"frame{i}.png", np.full((8, 8, 3), 50 * i, np.uint8))
    path = saved(tmp_path / "frame%d.png", np.full((8, 8, 3), 200, np.uint8))
    assert (read(path) == 200).all()
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "concat:frame1.png", np.full((8, 8, 3), 201, np.uint8))
    assert (read(path.relative_to(tmp_path)) == 201).all()


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile secret.mp4\n",
])  # fmt: skip
def test_a_playlist_leads_nowhere(tmp_path, monkeypatch, text):
    film(tmp_path / "secret.mp4", clip(3))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_moving_pictures_are_videos(tmp_path, name):
    frames = [Image.fromarray(frame) for frame in clip(7)]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(tmp_path / name) as image:
        expected = [np.asarray((image.seek(i), image.convert("RGB"))[1]) for i in range(7)]
    source = open_source(tmp_path / name)
    assert np.array_equal(source.last(5), np.stack(expected[2:]))
    assert np.array_equal(source.first(2), np.stack(expected[:2]))
    assert np.array_equal(np.stack(list(source.frames())), np.stack(expected))


def test_moving_webp_needs_pillow(tmp_path, monkeypatch):
    frames = [Image.fromarray(frame) for frame in clip(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r"pip install 'worldrt\[images\]'"):
        read(tmp_path / "a.webp")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_pictures_of_several_parts_are_not_taken_for_their_first_part(tmp_path):
    """Phones' HEIC pictures are tiles; an AVIF's transparency is a picture of its own."""
    assert np.abs(read(saved(tmp_path / "a.avif", quality=95)).astype(int) - PHOTO).mean() < 4
    with pytest.raises(InputError, match="is not put together; give a PNG"):
        read(saved(tmp_path / "b.avif", ALPHA))


def test_five_frames_of_a_picture(tmp_path):
    with pytest.raises(InputError, match=r"expected 5 frame\(s\) or more, got 1; a picture is one frame"):
        open_source(saved(tmp_path / "a.png")).last(5)
    with pytest.raises(InputError, match="expected 2"):
        open_source(tmp_path / "a.png").first(2)


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.bmp"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_pictures_cut_short(tmp_path, name, kept):
    path = saved(tmp_path / name, **({"progressive": True} if name == "progressive.jpg" else {}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match="cannot be read as a picture or a video"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"a car on a road\n" * 99, b"\xff\xd8\xff", b"\x1aE\xdf\xa3"])
def test_no_media_at_all(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read as a picture or a video"):
        read(tmp_path / "a.jpg")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="it is a folder"):
        open_source(tmp_path)
    with pytest.raises(InputError, match="no 'telepathy' here; there are: dali, media"):
        open_source(saved(tmp_path / "a.png"), "telepathy")


def test_only_sound(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(InputError, match="it holds only sound"):
        read(tmp_path / "a.wav")


def test_the_cover_of_music_is_no_picture(tmp_path):
    """An MP3 with a picture in its ID3 tag (id3.org, v2.3, APIC)."""
    tone = io.BytesIO()
    with av.open(tone, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=44100, layout="mono")
        for _ in range(8):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 44100
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    body = b"\0image/png\0\x03\0" + saved(tmp_path / "cover.png").read_bytes()
    frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "a.mp3").write_bytes(b"ID3\x03\0\0" + size + frame + tone.getvalue())
    with av.open(str(tmp_path / "a.mp3")) as container:
        assert container.streams.video, "there is a cover"
    with pytest.raises(InputError, match="it holds only sound"):
        read(tmp_path / "a.mp3")


BOMBS = {
    "a.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60_000, 50_000, 8, 0, 0, 0, 0) + bytes(64),
    "a.gif": b"GIF89a" + struct.pack("<HHBBB", 60_000, 50_000, 0, 0, 0) + bytes(64),
    "a.jpg": b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", 50_000, 60_000) + b"\1\1\x11\0" + bytes(64),
    "a.webp": b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
    + (60_000 - 1).to_bytes(3, "little")
    + (50_000 - 1).to_bytes(3, "little")
    + bytes(64),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_larger_than_memory(tmp_path, name):
    """A few bytes that claim 3 000 000 000 pixels."""
    (tmp_path / name).write_bytes(BOMBS[name])
    with pytest.raises(InputError, match="60000x50000 pixels, and 100 million are the most"):
        read(tmp_path / name)
