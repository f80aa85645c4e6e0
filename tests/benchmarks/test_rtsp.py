"""The number drawn into a picture survives coding, and every way is measured."""

import json

import av
import numpy as np
import pytest

from worldrt.benchmarks import rtsp
from worldrt.benchmarks.cli import main
from worldrt.runtime.live.encode import LiveEncoder
from worldrt.runtime.live.stamps import LiveFrame


@pytest.mark.parametrize("index", [0, 1, 1000, 2**rtsp.BITS - 1])
def test_a_number_is_read_after_decoding(index):
    noise = np.random.default_rng(0).integers(60, 160, rtsp.FORMAT.shape, np.uint8)
    unit = LiveEncoder(rtsp.FORMAT).encode(LiveFrame(0, rtsp._numbered(noise, index)))
    decoder = av.CodecContext.create("h264", "r")
    (picture,) = [frame for packet in decoder.parse(unit.data) for frame in decoder.decode(packet)]
    assert rtsp._number(picture.to_ndarray()) == index


def test_every_way_is_measured(tmp_path):
    assert main(["rtsp", "--rounds", "4", "--quiet", "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-rtsp.json")
    samples = json.loads(path.read_text())["samples"]
    assert len(samples) == 4 and all(len(values) == 4 and min(values) > 0 for values in samples.values())
