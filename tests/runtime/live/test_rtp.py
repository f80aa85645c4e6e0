"""RTP against a depacketizer written from RFC 6184, SDP and Digest against the examples of their RFCs."""

from __future__ import annotations

import secrets
from base64 import b64decode
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrt.runtime.live.encode import LiveEncoder
from worldrt.runtime.live.rtsp.authentication import authorization, is_allowed
from worldrt.runtime.live.rtsp.rtp import Collector, LiveTime, Packetizer, describe, nal_units, numbered, published
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(512, 288, 16)


def units_of(packets):
    """Section 5.6, single units, and 5.8, FU-A."""
    units, part = [], b""
    for packet in packets:
        payload = packet[12:]
        if payload[0] & 31 != 28:
            units.append(payload)
            continue
        if payload[1] & 0x80:
            part = bytes((payload[0] & 0xE0 | payload[1] & 31,))
        part += payload[2:]
        if payload[1] & 0x40:
            units.append(part)
    return units


def access_units(count=3):
    rng = np.random.default_rng(0)
    encoder = LiveEncoder(FORMAT, encoders=("libx264",))
    return [encoder.encode(LiveFrame(i, rng.integers(0, 256, FORMAT.shape, np.uint8))) for i in range(count)]


# a start code may not lie within a unit, nor a zero at its end (H.264, 7.4.1)
body = st.binary(max_size=5000).map(lambda data: data.replace(b"\0\0", b"\0\3").rstrip(b"\0"))
units = st.lists(st.tuples(st.sampled_from([0x41, 0x65, 0x67, 0x68, 0x09]), body), min_size=1, max_size=6)


@given(units, st.integers(0, 2**40))
def test_units_come_back_as_they_went(pairs, pts):
    given_units = [bytes((head,)) + data + b"\x80" for head, data in pairs]
    burst = Packetizer()(b"".join(b"\0\0\0\1" + unit for unit in given_units), pts)
    assert units_of(burst.packets) == given_units
    assert burst.key == any(unit[0] & 31 == 5 for unit in given_units)
    assert all(len(packet) <= 1412 for packet in burst.packets)
    markers = [packet[1] >> 7 for packet in burst.packets]
    assert markers == [0] * (len(markers) - 1) + [1]
    assert {int.from_bytes(packet[4:8], "big") for packet in burst.packets} == {pts % 2**32}
    collect = Collector(h264=True)
    bursts = [collect(packet) for packet in burst.packets]
    assert bursts[:-1] == [None] * (len(bursts) - 1) and bursts[-1] == burst


def test_times_are_even_while_a_world_keeps_pace_and_follow_the_clock_where_it_does_not():
    steady, rng = LiveTime(), np.random.default_rng(0)
    times = [steady.of(5625 * i, 100 + i / 16 + rng.uniform(0, 0.09)) for i in range(50)]
    assert np.diff(times).tolist() == [5625] * 49
    slow = LiveTime()
    times = [slow.of(5625 * i, 100 + i / 4) for i in range(50)]
    assert times == [9_000_000 + 22_500 * i for i in range(50)]
    stalled = LiveTime()
    clock = [*range(10), *[200] * 5, *range(201, 220)]  # in sixteenths of a second
    times = [stalled.of(5625 * i, now / 16) for i, now in enumerate(clock)]
    assert all(a < b for a, b in pairwise(times))
    assert all(abs(time / 5625 - now) <= 2 for time, now in zip(times, clock, strict=True))


def test_sequence_numbers_go_round():
    burst = Packetizer()(access_units(1)[0].data, 0)
    numbers = [int.from_bytes(packet[2:4], "big") for packet in numbered(burst.packets, 65_534)]
    assert numbers[:4] == [65_534, 65_535, 0, 1] and len(numbers) == len(burst.packets)


def test_a_collector_takes_what_other_publishers_send():
    collect = Collector(h264=True)
    head = bytes((0x90, 0xE0, 0, 1)) + bytes(8) + b"\xbe\xde\x00\x01" + bytes(4)  # with an extension
    together = bytes((24,)) + b"\x00\x02\x67\x42" + b"\x00\x03\x65\x01\x02"  # STAP-A of a parameter set and a key
    assert collect(head + together).key
    assert not collect(bytes((0x80, 0xE0)) + bytes(10) + b"\x41\x9a").key
    assert Collector(h264=False)(bytes((0x80, 0xE0)) + bytes(10) + b"\x02\x01").key  # gating knows H.264 alone


@given(st.binary(max_size=64))
def test_a_collector_takes_any_bytes(data):
    Collector(h264=True)(data)
    Collector(h264=True)(b"\x80\xe0" + data)


def test_the_description_has_the_parameter_sets():
    key, other, _ = access_units()
    lines = describe(key.data).decode().split("\r\n")
    (format_line,) = [line for line in lines if line.startswith("a=fmtp:96 ")]
    fields = dict(field.partition("=")[::2] for field in format_line.partition(" ")[2].split(";"))
    sets = [b64decode(text) for text in fields["sprop-parameter-sets"].split(",")]
    assert sets == [unit for unit in nal_units(key.data) if unit[0] & 31 in (7, 8)]
    assert fields["profile-level-id"].startswith("42c0") and fields["packetization-mode"] == "1"
    assert describe(other.data) is None


@pytest.mark.parametrize("sdp", [b"", b"v=0\r\nm=audio 0 RTP/AVP 0\r\n", b"m=video 0 RTP/AVP 96\r\n" * 2, b"\xff\x00"])
def test_only_one_stream_of_video_is_taken(sdp):
    assert published(sdp) is None


def test_digest_as_in_the_rfcs(monkeypatch):
    url = "/dir/index.html"
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0a4f113b")
    header = authorization(challenge, "Mufasa", "Circle Of Life", "GET", url)
    assert 'response="6629fae49393a05397450978507c4ef1"' in header  # RFC 2617, section 3.5
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in header and "qop=auth," in header
    challenge = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
    )
    monkeypatch.setattr(secrets, "token_hex", lambda size: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    header = authorization(challenge, "Mufasa", "Circle of Life", "GET", url)
    # RFC 7616, section 3.9.1
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in header
    plain = authorization('Digest realm="r", nonce="n"', "u", "p", "ANNOUNCE", "rtsp://h/x")
    assert "qop" not in plain and "cnonce" not in plain


def test_basic_there_and_back():
    header = authorization('Basic realm="world"', "u:x", "p ü", "GET", "/")
    assert is_allowed(header, "u:x:p ü") and not is_allowed(header, "u:x:p u")
    for wrong in ("", "Basic", "Basic ü", "Basic ====", "Digest dTp4"):
        assert not is_allowed(wrong, "u:x")
