"""Access units as FFmpeg's parser and decoder see them."""

from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import pytest

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.encode import DELIMITER, LiveEncoder
from worldrt.runtime.live.stamps import STAGES, LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(96, 64, 16)


def encoder(video=FORMAT, **options):
    return LiveEncoder(video, encoders=("libx264",), **options)


def flat(value, video=FORMAT):
    return np.full((video.height, video.width, 3), value, np.uint8)


class Decoder:
    """Decodes what a parser lets go, as every player does."""

    def __init__(self):
        self.context = av.CodecContext.create("h264", "r")
        self.context.thread_type = "NONE"

    def __call__(self, data):
        return [frame for packet in self.context.parse(data) for frame in self.context.decode(packet)]


def test_each_picture_comes_out_of_the_decoder_at_once():
    decode, encode = Decoder(), encoder()
    for index in range(40):
        picture = flat((5 * index, 200 - 3 * index, 90))
        unit = encode.encode(LiveFrame(index, picture))
        (frame,) = decode(unit.data)
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - picture).max() <= 8
        colours = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
        assert colours == (1, 1, 1, 1)
        assert unit.data.endswith(DELIMITER) and not unit.picture.endswith(DELIMITER)


def test_without_the_delimiter_a_parser_waits_for_the_next_picture():
    decode, encode = Decoder(), encoder()
    counts = [len(decode(encode.encode(LiveFrame(index, flat(index))).picture)) for index in range(4)]
    assert counts[0] == 0 and sum(counts) == 3


def nal_types(data):
    return [part[0] & 31 for part in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]


def test_keys_carry_parameter_sets_and_come_at_least_once_a_second():
    encode = encoder()
    units = [encode.encode(LiveFrame(index, flat(index))) for index in range(40)]
    assert [unit.index for unit in units if unit.key] == [0, 16, 32]
    for unit in units:
        kinds = nal_types(unit.data)
        assert (7 in kinds and 8 in kinds and 5 in kinds) if unit.key else (1 in kinds and 5 not in kinds)


def test_a_slow_world_has_a_key_each_second_too():
    now_s = 0.0
    encode = encoder(clock=lambda: now_s)
    keys = []
    for index in range(12):
        now_s = index * 0.3
        keys.append(encode.encode(LiveFrame(index, flat(index))).key)
    assert [index for index, key in enumerate(keys) if key] == [0, 4, 8]


def test_a_key_that_is_asked_for_comes_next_but_a_flood_is_thinned():
    encode = encoder(gop_s=60)
    keys = []
    for index in range(12):
        if index in (5, 6):
            encode.request_key()
        keys.append(encode.encode(LiveFrame(index, flat(index))).key)
    assert [index for index, key in enumerate(keys) if key] == [0, 5, 7]
    flood = []
    for index in range(12, 48):
        encode.request_key()
        flood.append(encode.encode(LiveFrame(index, flat(index))).key)
    assert sum(flood) == 18  # 0.125 s are two frame periods


@pytest.mark.parametrize("layout", ["yuv420p", "nv12"])
def test_planes_are_encoded_as_they_are(layout):
    video = VideoFormat(96, 64, 16, pixel_format=layout)
    picture = av.VideoFrame.from_ndarray(flat((200, 40, 90)), format="rgb24")
    planes = picture.reformat(format=layout, dst_colorspace=1, dst_color_range=1).to_ndarray()
    (frame,) = Decoder()(encoder(video).encode(LiveFrame(0, planes)).data)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - (200, 40, 90)).max() <= 8


def test_the_caller_may_reuse_its_picture():
    decode, encode, picture = Decoder(), encoder(), flat(0)
    for index in range(5):
        picture[...] = 50 * index
        unit = encode.encode(LiveFrame(index, picture))
        picture[...] = 255
        (frame,) = decode(unit.data)
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - 50 * index).max() <= 8


def test_time_follows_the_index_and_never_goes_back():
    encode = encoder()
    units = [encode.encode(LiveFrame(index, flat(0))) for index in (0, 1, 4, 0, 1, 1)]
    assert [unit.pts for unit in units] == [0, 5625, 22500, 28125, 33750, 39375]
    assert all(a < b for a, b in pairwise(unit.pts for unit in units))


def test_stamps_travel_with_the_unit():
    encode = encoder(clock=lambda: 7.5)
    unit = encode.encode(LiveFrame(3, flat(0), Stamps(control=1.0, decoded=7.0)))
    assert unit.stamps == Stamps(control=1.0, decoded=7.0, encoded=7.5)
    assert unit.stamps.between("control", "encoded") == 6.5 and unit.stamps.between("bound", "encoded") is None
    assert list(unit.stamps.passed()) == ["control", "decoded", "encoded"]
    assert STAGES == ("control", "bound", "denoise_begin", "denoise_end", "decoded", "checked", "encoded", "sent")


def test_an_encoder_that_does_not_open_is_passed_over_and_named():
    encode = LiveEncoder(FORMAT, encoders=("h264_of_tomorrow", "libx264"))
    assert encode.name == "libx264" and encode.refused[0].startswith("h264_of_tomorrow: ")
    with pytest.raises(OutputError, match="h264_of_tomorrow"):
        LiveEncoder(FORMAT, encoders=("h264_of_tomorrow",))


def test_the_next_encoder_takes_over_where_one_fails_while_it_runs():
    class Broken:
        pix_fmt = "yuv420p"

        def encode(self, picture):
            raise av.error.ExternalError(1, "the device is lost")

    encode, decode = LiveEncoder(FORMAT, encoders=("libx264", "libx264")), Decoder()
    assert len(decode(encode.encode(LiveFrame(0, flat(10))).data)) == 1
    encode._context = Broken()
    unit = encode.encode(LiveFrame(1, flat(60)))
    assert unit.key and unit.pts == 5625 and "the device is lost" in encode.refused[0]
    assert len(decode(unit.data)) == 1
    encode._context = Broken()
    with pytest.raises(OutputError, match="the device is lost"):
        encode.encode(LiveFrame(2, flat(60)))


def test_wrong_formats_are_refused():
    with pytest.raises(InputError, match="even"):
        encoder(VideoFormat(95, 64, 16))
    with pytest.raises(InputError, match="expected uint8"):
        encoder().encode(LiveFrame(0, np.zeros((64, 94, 3), np.uint8)))
