"""RTSP, pushed and served, as FFmpeg's players and publishers see it; servers that die, hang, refuse or lie."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time

import av
import numpy as np
import pytest

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.encode import AccessUnit, LiveEncoder
from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.rtsp import connection
from worldrt.runtime.live.rtsp.connection import Access
from worldrt.runtime.live.rtsp.publisher import Publisher
from worldrt.runtime.live.rtsp.relay import Relay
from worldrt.runtime.live.sinks.rtsp import RtspPush
from worldrt.runtime.live.stamps import LiveFrame, Stamps

from ...fakes.live_world import FORMAT, are_in_a_row, state, until, watch, world

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
SERVE = "rtsp-serve://127.0.0.1:0/live"


def player_url(made, index=1):
    return state(made, index).place.replace("rtsp-serve", "rtsp")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_our_server_plays_to_ffmpeg(transport):
    with world([SERVE]) as made:
        assert are_in_a_row(watch(player_url(made), transport))
        until(lambda: state(made).detail == "0 watching")
    assert state(made).phase == "ended" and made.longest_s < 1


@needs_ffmpeg
def test_our_server_plays_to_the_ffmpeg_of_the_system():
    with world([SERVE]) as made:
        entries = "stream=codec_name,width,height,color_space,color_range,r_frame_rate"
        command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", player_url(made)]
        assert subprocess.check_output(command, timeout=30, text=True).strip() == "h264,96,64,tv,bt709,25/1"
        command = ["ffmpeg", "-v", "error", "-i", player_url(made), "-frames:v", "25", "-f", "null", "-"]
        assert subprocess.run(command, timeout=30, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_push_goes_through_a_server_to_a_player(transport):
    with Relay(port=0) as relay:
        url = f"rtsp://127.0.0.1:{relay.port}/a/b"
        with world([url]) as made:
            until(lambda: state(made).phase == "sending")
            assert are_in_a_row(watch(url, transport))
        assert str(state(made)) == f"{url}: ended"
        until(lambda: relay.paths.get("a/b") is None)


def test_a_server_that_is_killed_comes_back_and_the_world_goes_on(tmp_path):
    told = []
    relay = Relay(port=0)
    port = relay.port
    url = f"rtsp://127.0.0.1:{port}/live"
    with world([url, str(tmp_path / "w.mp4")], warn=told.append) as made:
        until(lambda: state(made).phase == "sending")
        assert are_in_a_row(watch(url))
        relay.close()
        until(lambda: state(made).phase == "waiting")
        before = made.made
        until(lambda: made.made > before + 10 and "Connection refused" in state(made).detail)
        with Relay(port=port):
            until(lambda: state(made).phase == "sending")
            assert are_in_a_row(watch(url))
        assert [line.partition(": ")[2].partition(" (")[0].split(":")[0] for line in told[1:]][:1] == ["sending"]
    assert state(made, 2).phase == "ended" and state(made, 2).dropped == 0
    with av.open(str(tmp_path / "w.mp4")) as container:
        assert container.streams.video[0].frames == made.made - state(made, 0).dropped
    about = [line for line in told if line.startswith(url)]
    assert sum("refused" in line for line in about) == 1, "a change is told once, however often it is tried"


class Deaf:
    """A server that takes connections and never answers."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        return self.socket.getsockname()[1]

    def __exit__(self, *exc):
        self.socket.close()


def test_a_server_that_hangs_stops_nobody(monkeypatch):
    monkeypatch.setattr("worldrt.runtime.live.sinks.rtsp.TIMEOUT_S", 0.5)
    with Deaf() as port, world([f"rtsp://127.0.0.1:{port}/live"]) as made:
        until(lambda: state(made).phase == "waiting")
        assert "timed out" in state(made).detail
        until(lambda: made.made > 30)
    assert made.longest_s < 0.4, "the interpreter was held while a server did not answer"
    assert state(made).phase == "ended"


def test_pauses_grow_with_jitter_up_to_a_limit(monkeypatch):
    pauses = []

    class Feed:
        def phase(self, *told):
            pass

        def pause(self, duration_s):
            pauses.append(duration_s)
            return len(pauses) < 8

    monkeypatch.setattr(RtspPush, "_send", lambda self, feed: (_ for _ in ()).throw(ConnectionRefusedError(111, "no")))
    RtspPush("rtsp://127.0.0.1/x", first_pause_s=1, longest_pause_s=8).run(Feed())
    for pause_s, full_s in zip(pauses, (1, 2, 4, 8, 8, 8, 8, 8), strict=True):
        assert full_s / 2 <= pause_s <= full_s
    assert len(set(pauses)) == 8


def test_passwords_are_asked_for_and_never_told():
    told = []
    with Relay(port=0, access=Access("steer:s3cr/t")) as relay:
        place = f"127.0.0.1:{relay.port}/live"
        with world([f"rtsp://steer:s3cr%2Ft@{place}", f"rtsp://steer:wr0ng@{place}2"], warn=told.append) as made:
            until(lambda: state(made, 1).phase == "sending" and state(made, 2).phase == "waiting")
            assert "401" in state(made, 2).detail
            assert are_in_a_row(watch(f"rtsp://steer:s3cr%2Ft@{place}"))
            with pytest.raises(av.error.HTTPUnauthorizedError):
                watch(f"rtsp://{place}")
            seen = "".join(told) + "".join(map(str, made.output.states))
    names = "".join(thread.name for thread in threading.enumerate())
    assert not any(secret in seen + names for secret in ("s3cr", "wr0ng", "steer"))


def test_a_path_has_one_publisher_and_players_go_with_it():
    with Relay(port=0) as relay:
        url = f"rtsp://127.0.0.1:{relay.port}/live"
        seen = []
        with world([url]) as made:
            until(lambda: state(made).phase == "sending")
            with world([url]) as second:
                until(lambda: state(second).phase == "waiting")
                assert "ANNOUNCE with 403" in state(second).detail
            player = threading.Thread(target=watch, kwargs={"url": url, "count": 10_000, "steps": seen})
            player.start()
            until(lambda: len(seen) > 5)
        player.join(15)
        assert not player.is_alive() and are_in_a_row(seen)


@needs_ffmpeg
def test_ffmpeg_may_publish_too():
    with Relay(port=0) as relay:
        url = f"rtsp://127.0.0.1:{relay.port}/cam"
        source = "testsrc=size=320x240:rate=25"
        encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "12", "-threads", "1"]
        command = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", source, *encoder, "-f", "rtsp"]
        publisher = subprocess.Popen([*command, "-rtsp_transport", "tcp", url])
        try:
            until(lambda: relay.paths.get("cam") is not None)
            with av.open(url, options={"rtsp_transport": "tcp", "timeout": "10000000"}) as container:
                first = next(container.decode(video=0))
            assert (first.width, first.height) == (320, 240) and first.key_frame
        finally:
            publisher.terminate()
            publisher.wait(10)


def playing(relay, path, window_bytes=None):
    """The socket of a player that has been told that it may play."""
    player = socket.socket()
    if window_bytes:
        player.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
    player.settimeout(10)
    player.connect(("127.0.0.1", relay.port))
    url = f"rtsp://127.0.0.1/{path}"
    transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
    player.sendall(f"SETUP {url}/trackID=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: {transport}\r\n\r\n".encode())
    player.sendall(f"PLAY {url} RTSP/1.0\r\nCSeq: 2\r\n\r\n".encode())
    return player


def large(index):
    """A key of 100 kB."""
    return AccessUnit(index, b"\0\0\0\1\x65" + b"\x55" * 100_000, 3600 * index, True, Stamps())


def test_a_player_that_takes_nothing_harms_nobody_and_is_let_go(monkeypatch):
    monkeypatch.setattr(connection, "STUCK_S", 1.0)
    with Relay(port=0) as relay:
        stream = relay.stream("live", lambda: None)
        with playing(relay, "live", window_bytes=4096), playing(relay, "live") as other:
            until(lambda: len(stream.bursts.readers) == 2)
            taker = threading.Thread(target=lambda: [None for _ in iter(lambda: other.recv(1 << 16), b"")])
            taker.start()
            readers, index, longest_s = stream.bursts.readers, 0, 0.0
            while stream.bursts.readers == readers:
                begin = time.perf_counter()
                stream.send(large(index))
                index, longest_s = index + 1, max(longest_s, time.perf_counter() - begin)
                assert index < 3000, "it is still there"
                time.sleep(0.005)
            (left,) = stream.bursts.readers
            (gone,) = (reader for reader in readers if reader is not left)
            assert gone.dropped > 10 and left.taken > 2 * gone.taken and longest_s < 0.9
            relay.paths.remove("live", stream)
            taker.join(10)
            assert not taker.is_alive()


def test_a_client_that_wants_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(connection, "IDLE_S", 0.2)
    with Relay(port=0) as relay, socket.create_connection(("127.0.0.1", relay.port), 10) as idle:
        idle.sendall(b"OPTIONS * RT")
        assert idle.recv(100) == b""


def test_a_server_that_stops_taking_is_given_up():
    def listen():
        client, _ = server.accept()
        for _ in range(3):
            client.recv(4096)
            client.sendall(b"RTSP/1.0 200 OK\r\nSession: 1\r\n\r\n")
        ending.wait(20)
        client.close()

    ending, key = threading.Event(), LiveEncoder(FORMAT).encode(LiveFrame(0, np.zeros(FORMAT.shape, np.uint8)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen)
        thread.start()
        publisher = Publisher(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", key, 0.5)
        begin_s = time.monotonic()
        with pytest.raises(TimeoutError):
            for index in range(10_000):
                publisher.send(large(index))
        publisher.close()
        assert time.monotonic() - begin_s < 10
        ending.set()
        thread.join()


def test_no_picture_waits_for_an_acknowledgement(monkeypatch):
    """Nagle's algorithm, which asyncio leaves on for these sockets, would hold the last packet back for 40 ms."""
    seen, answer = [], connection.Client._answer

    async def watched(client, request):
        seen.append(client.writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return await answer(client, request)

    monkeypatch.setattr(connection.Client, "_answer", watched)
    with Relay(port=0) as relay:
        assert answers(relay.port, b"OPTIONS * RTSP/1.0") == [200]
    assert seen == [1]


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),
    b"A" * 100_000,
    b"DESCRIBE rtsp://[x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n",
    b"ANNOUNCE rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999999\r\n\r\n",
    b"ANNOUNCE rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n",
    b"SETUP rtsp://h/live/trackID=0 RTSP/1.0\r\nTransport: RTP/AVP;client_port=0-99999\r\n\r\n",
    b"SETUP rtsp://h/live RTSP/1.0\r\nTransport: \xff;;;interleaved=\xc2\xb2\r\n\r\n",
    b"RECORD rtsp://h/live RTSP/1.0\r\n\r\n$\x00\xff\xff" + bytes(70_000),
    b"PLAY * RTSP/1.0\r\n\r\nTEARDOWN * RTSP/1.0\r\n\r\n",
    b"$\x00\x00\x00$",
]


def test_garbage_on_the_socket_does_no_harm():
    with world([SERVE]) as made:
        port = int(player_url(made).partition("//")[2].partition("/")[0].rpartition(":")[2])
        for garbage in GARBAGE:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                try:
                    client.sendall(garbage)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(4096):
                        pass
                except ConnectionError:
                    pass
        assert are_in_a_row(watch(player_url(made)))
        until(lambda: state(made).detail == "0 watching")


def answers(port, *requests):
    """The status of each answer."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"".join(request + b"\r\nCSeq: 1\r\n\r\n" for request in requests))
        client.shutdown(socket.SHUT_WR)
        text = b""
        while part := client.recv(4096):
            text += part
    return [int(line.split(b" ")[1]) for line in text.split(b"\r\n") if line.startswith(b"RTSP/1.0 ")]


def test_what_the_server_does_not_do_it_says():
    with world([SERVE]) as made:
        url = player_url(made).encode()
        port = int(url.partition(b"//")[2].partition(b"/")[0].rpartition(b":")[2])
        udp = url + b" RTSP/1.0\r\nTransport: RTP/AVP;multicast;client_port=5000-5001"
        tcp = url + b"/trackID=0 RTSP/1.0\r\nTransport: RTP/AVP/TCP;interleaved=0-1"
        end = b" RTSP/1.0"
        assert answers(port, b"DESCRIBE " + url.replace(b"live", b"none") + end) == [404]
        assert answers(port, b"PLAY " + url + end, b"RECORD " + url + end, b"FLY " + url + end) == [455, 455, 405]
        assert answers(port, b"SETUP " + udp, b"ANNOUNCE " + url + end) == [461, 403]
        assert answers(port, b"SETUP " + tcp, b"SETUP " + tcp, b"TEARDOWN " + url + end) == [200, 455, 200]


@pytest.mark.parametrize(
    ("place", "error", "text"),
    [
        ("rtsp://", InputError, "expected rtsp://HOST:PORT/PATH"),
        ("rtsp:/u:p@h/x", InputError, "'h/x': expected NAME.mp4"),
        ("rtsp://h:99999/x", InputError, "cannot be read"),
        ("rtsp-serve://0.0.0.0:0/live", InputError, "give a user and a password"),
        ("rtsp-serve://203.0.113.7:0/live", InputError, "give a user and a password"),
        ("rtsp-serve://u:p@203.0.113.7:0/live", OutputError, "cannot listen on 203.0.113.7:0"),
        ("rtsp-serve://127.0.0.1:TAKEN/live", OutputError, "cannot listen on .*in use"),
    ],
)
def test_bad_places_are_said_before_anything_starts(place, error, text):
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(error, match=text) as raised:
        open_live([SERVE, place.replace("TAKEN", str(taken.getsockname()[1]))], FORMAT)
    assert "u:p" not in str(raised.value) and threading.active_count() == threads
