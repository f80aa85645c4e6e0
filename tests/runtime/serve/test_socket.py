"""The socket of a server: pictures, one driver among several viewers, and whatever else is sent to it."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import threading

import aiohttp
import av
import numpy as np
import pytest

from worldrt.engine.errors import BlockedError, InputError
from worldrt.runtime.serve import viewer as viewer_module

from .client import served, served_in_thread, viewer
from .toy import GROUNDS, ToyWorld


def mean_colour(data, decoder=None):
    """Of a JPEG, or of one access unit."""
    if decoder is None:
        with av.open(io.BytesIO(data)) as file:
            picture = next(file.decode(video=0))
    else:
        (picture,) = decoder.decode(av.Packet(data))
    return picture.to_ndarray(format="rgb24")[40:, :, :].reshape(-1, 3)


def is_ground(colours, control):
    return np.abs(np.median(colours, axis=0) - GROUNDS[control]).max() < 24


def run(test):
    return asyncio.run(asyncio.wait_for(test, 240))


@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_a_key_changes_the_picture_and_the_picture_says_which_key_it_answers(tmp_path, video):
    async def test():
        async with served(tmp_path) as (url, _), viewer(url, video) as client:
            await client.drive()
            await client.until(lambda: len(client.pictures) > 2)
            await client.send(type="control", keys="A", seq=7)
            await client.until(lambda: client.pictures[-1][2] == 7)
            return client.pictures

    pictures = run(test())
    assert {kind for kind, *_ in pictures} == {1 if video == "jpeg" else 0}
    decoder = None if video == "jpeg" else av.CodecContext.create("h264", "r")
    colours = [mean_colour(data, decoder) for *_, data in pictures]
    assert is_ground(colours[0], None) and is_ground(colours[-1], "DL") and not is_ground(colours[-2], "DL")
    times = [time_us for _, _, _, time_us, _ in pictures]
    assert times == sorted(set(times)) and times[1] - times[0] in range(62499, 62502)


def test_who_joins_gets_a_key_at_once(tmp_path):
    async def test():
        async with served(tmp_path) as (url, _), viewer(url) as first:
            await first.until(lambda: len(first.pictures) > 5)
            async with viewer(url) as second:
                await second.until(lambda: second.pictures)
                joined = second.pictures[0]
                await first.until(lambda: first.pictures[-1][3] >= joined[3])
        assert joined[1] == 1
        behind = [picture for picture in first.pictures if picture[3] <= joined[3]]
        assert len(behind) < 16, "a key came only when the encoder's period was over"

    run(test())


def test_several_watch_and_one_drives(tmp_path):
    world = ToyWorld()

    async def test():
        async with served(tmp_path, world) as (url, hub), viewer(url) as first, viewer(url) as second:
            await first.drive()
            await second.send(type="wheel", take=True)
            await second.until(lambda: second.state and second.state["wheel"] == "asked")
            await second.send(type="control", keys="D", seq=1)
            refused = await second.ask(1, type="reset")
            assert refused["type"] == "error" and refused["status"] == 403
            await first.send(type="control", keys="A")
            await first.until(lambda: first.state["waiting"] == 1 and world.asked)
            assert world.asked == ["DL"], "only the driver steers"
            await first.send(type="wheel", take=False)
            await second.until(lambda: second.state["wheel"] == "yours")
            assert world.asked == ["DL", None], "who lets go holds no key"
            await first.send(type="wheel", take=True)
            await first.until(lambda: first.state["wheel"] == "asked")
            await second.socket.close()
            await first.until(lambda: first.state["wheel"] == "yours")
            assert first.state["viewers"] == 1 and hub.wheel.waiting == ()

    run(test())


def test_a_flood_of_controls_is_coalesced_and_the_newest_wins(tmp_path):
    world, count = ToyWorld(), 4000

    async def test():
        async with served(tmp_path, world) as (url, hub), viewer(url) as driver, viewer(url) as other:
            await driver.drive()
            await other.until(lambda: other.pictures)
            before = len(other.pictures)
            for number in range(count):
                await driver.send(type="control", keys="WASD"[number % 3], seq=number + 1)
            await driver.send(type="control", keys="D", seq=count + 1)
            await driver.until(lambda: driver.pictures and driver.pictures[-1][2] == count + 1)
            await other.until(lambda: other.pictures[-1][3] >= driver.pictures[-1][3])
            times = [picture[3] for picture in other.pictures[before:]]
            assert world.asked[-1] == "DR" and len(world.asked) < count / 8
            text = hub.metrics.text().decode()
            assert f"worldrt_controls_total {count + 1}.0" in text
            return times

    assert len(run(test())) >= 1


def test_a_viewer_that_floods_is_read_slowly_counted_and_told_and_the_driver_is_heard(tmp_path):
    async def pour(flooder):
        for _ in range(6000):
            await flooder.send(type="control", keys="A")

    async def test():
        async with served(tmp_path) as (url, hub), viewer(url) as flooder, viewer(url) as driver:
            await driver.drive()
            await flooder.until(lambda: flooder.pictures)
            began = asyncio.get_running_loop().time()
            pouring = asyncio.create_task(pour(flooder))
            for number in range(1, 4):
                await driver.send(type="control", keys="WD"[number % 2], seq=number)
                await driver.until(lambda number=number: driver.pictures and driver.pictures[-1][2] == number)
            await flooder.until(lambda: None in flooder.answers)
            read = counted(hub, "worldrt_controls_total")
            lasted = asyncio.get_running_loop().time() - began
            await pouring
            assert flooder.answers[None]["status"] == 429
            most = viewer_module.BREATHE_EVERY / viewer_module.FLOOD_WAIT_S
            assert 400 < read < 1000 + most * (lasted + 1), "it is read no faster, however much it sends"
            assert counted(hub, "worldrt_flood_messages_total") > 0

    run(test())


def counted(hub, name):
    (line,) = [line for line in hub.metrics.text().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.partition(" ")[2])


def test_a_viewer_that_is_gone_without_a_word_leaves_nothing_behind(tmp_path):
    async def test():
        async with served(tmp_path) as (url, hub), viewer(url) as good:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(upgrade(host, port) + frame_of('{"type":"hello","video":"h264"}'))
            writer.write(frame_of('{"type":"wheel","take":true}'))
            await good.until(lambda: good.state and good.state["wheel"] == "taken")
            await reader.read(100_000)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            await good.until(lambda: good.state["wheel"] == "free" and good.state["viewers"] == 1)
            assert len(hub.broadcast.output.units.readers) == 1
            seen = len(good.pictures)
            await good.until(lambda: len(good.pictures) > seen + 2)

    run(test())


def test_garbage_hurts_nobody_but_its_sender(tmp_path):
    async def test():
        async with served(tmp_path) as (url, hub), viewer(url) as good, viewer(url) as bad:
            await good.drive()
            await bad.until(lambda: bad.state)
            lists = "[" * 5000 + "]" * 5000
            for text in (
                "",
                "{",
                "[]",
                "null",
                '{"type": 3}',
                '{"type":"no such"}',
                "\x00",
                '{"type":"control"}',
                lists,
            ):
                await bad.socket.send_str(text)
            await bad.socket.send_bytes(bytes(range(256)))
            with pytest.raises(ConnectionError, match="1008"):
                for _ in range(40):
                    await bad.socket.send_str("no json")
                await bad.until(lambda: False)
            async with viewer(url) as large:
                await large.until(lambda: large.state)
                await large.socket.send_str(json.dumps({"type": "prompt", "text": "x" * 20000}))
                with pytest.raises(ConnectionError, match="1009"):
                    await large.until(lambda: False)
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"\x16\x03\x01 no HTTP at all \r\n\r\n")
            assert b"400" in await asyncio.wait_for(reader.read(1000), 5)
            writer.close()
            seen = len(good.pictures)
            await good.until(lambda: len(good.pictures) > seen + 3)
            assert good.state["wheel"] == "yours" and hub.host.state == "running"

    run(test())


@pytest.mark.parametrize(
    "message", ['{"type":"reset"}', "no json", '{"type":"hello","video":"gif"}', '{"type":"hello"}', '{"video":"h264"}']
)
def test_who_does_not_say_hello_is_sent_away(tmp_path, message):
    async def test():
        async with served(tmp_path) as (url, _), viewer(url, hello=False) as client:
            await client.socket.send_str(message)
            with pytest.raises(ConnectionError, match="1008"):
                await client.until(lambda: client.state)

    run(test())


def test_too_many_viewers_are_sent_away_and_may_come_back(tmp_path):
    async def test():
        async with served(tmp_path, most_viewers=1) as (url, _):
            async with viewer(url) as first:
                await first.until(lambda: first.state)
                async with viewer(url) as second:
                    with pytest.raises(ConnectionError, match="4503"):
                        await second.until(lambda: second.state)
            async with viewer(url) as third:
                await third.until(lambda: third.state)

    run(test())


async def unread(url):
    """A viewer that never reads, over a narrow line."""
    host, port = url.removeprefix("http://").split(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((host, int(port)))
    _, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    writer.write(upgrade(host, port))
    writer.write(frame_of('{"type":"hello","video":"h264"}'))
    return writer


def test_a_viewer_that_does_not_read_misses_pictures_and_delays_nobody(tmp_path, monkeypatch):
    world = ToyWorld(256, 256, fps=60)

    class Noise(ToyWorld):
        def step(self):
            frames = super().step()
            frames[0].picture[:] = np.random.default_rng(self.index).integers(0, 255, frames[0].picture.shape, np.uint8)
            return frames

    def others(hub, good):
        return [reader for reader in hub.broadcast.output.units.readers if reader.name != good]

    async def test():
        async with served(tmp_path, world) as (url, hub), viewer(url) as good:
            await good.until(lambda: good.pictures)
            (name,) = hub._viewers
            writer = await unread(url)
            await good.until(lambda: any(slow.dropped > 20 for slow in others(hub, name)), 120)
            (slow,) = others(hub, name)
            assert slow.waiting <= slow.capacity == 4
            assert hub.host.state == "running" and len(good.pictures) > 20
            writer.close()

    monkeypatch.setattr(viewer_module, "HEARTBEAT_S", 300.0)
    world.__class__ = Noise
    run(test())


def test_a_viewer_that_answers_no_ping_is_gone(tmp_path, monkeypatch):
    async def test():
        async with served(tmp_path) as (url, hub), viewer(url) as good:
            await good.until(lambda: good.pictures)
            monkeypatch.setattr(viewer_module, "HEARTBEAT_S", 1.0)
            join, joined = hub.join, []
            hub.join = lambda viewer: (joined.append(viewer), join(viewer))
            writer = await unread(url)
            await good.until(lambda: joined and len(hub._viewers) == 1)
            assert len(hub.broadcast.output.units.readers) == 1
            writer.close()

    run(test())


def upgrade(host, port):
    """The request that begins a WebSocket."""
    return (
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def frame_of(text):
    """A masked text frame of RFC 6455, the mask being zero."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


def test_a_world_that_fails_says_so_and_comes_back_with_reset(tmp_path, capfd):
    world = ToyWorld()

    async def test():
        async with served(tmp_path, world) as (url, _), viewer(url) as client:
            await client.drive()
            world.broken = ZeroDivisionError("of the model")
            await client.until(lambda: client.state["state"] == "failed")
            assert "ZeroDivisionError" in client.state["problem"] and "of the model" not in client.state["problem"]
            assert (await client.ask(1, type="reset"))["type"] == "done"
            await client.until(lambda: client.state["state"] == "running")
            seen = len(client.pictures)
            await client.until(lambda: len(client.pictures) > seen + 2)
            world.broken = InputError("model: mend\nit so")
            await client.until(lambda: client.state["state"] == "failed")
            assert client.state["problem"] == "model: mend it so"
            assert (await client.ask(2, type="run", running=True))["type"] == "done"
            await client.until(lambda: client.state["state"] == "running" and not client.state["problem"])

    run(test())
    assert "ZeroDivisionError: of the model" in capfd.readouterr().err
    assert world.stopped


def test_what_the_guard_refuses_is_told_and_another_prompt_brings_the_world_back(tmp_path):
    world = ToyWorld()
    check = world.check

    def guarded(prompt):
        if "dragon" in prompt:
            raise BlockedError("prompt: a dragon")
        check(prompt)

    world.check = guarded

    async def test():
        async with served(tmp_path, world) as (url, hub), viewer(url) as client:
            await client.drive()
            answer = await client.ask(1, type="prompt", text="a dragon")
            assert answer["status"] == 422 and answer["text"] == "blocked: prompt: a dragon"
            assert world.prompts == ["a toy"] and hub.host.state == "running"
            world.broken = BlockedError("frame 12: violence")
            await client.until(lambda: client.state["state"] == "failed")
            assert client.state["problem"] == "blocked: frame 12: violence"
            assert (await client.ask(2, type="prompt", text="a field"))["type"] == "done"
            assert (await client.ask(3, type="reset"))["type"] == "done"
            await client.until(lambda: client.state["state"] == "running" and not client.state["problem"])

    run(test())


def test_a_prompt_that_takes_long_to_be_looked_at_delays_no_picture(tmp_path):
    world, looked = ToyWorld(), threading.Event()
    world.check = lambda prompt: None if prompt == "a toy" else looked.wait(60)

    async def test():
        async with served(tmp_path, world) as (url, _), viewer(url) as client:
            await client.drive()
            await client.send(type="prompt", id=1, text="a field")
            seen = len(client.pictures)
            await client.until(lambda: len(client.pictures) > seen + 5)
            assert 1 not in client.answers
            looked.set()
            await client.until(lambda: 1 in client.answers)
            assert world.prompts[-1] == "a field"

    run(test())


def test_an_encoder_that_fails_is_told_of_and_the_world_goes_on(tmp_path):
    world = ToyWorld()

    async def test():
        async with served(tmp_path, world) as (url, hub), viewer(url) as client:
            await client.until(lambda: client.pictures)
            hub.broadcast.output.encoder.encode = lambda frame: 1 / 0
            await client.until(lambda: client.state["problem"].startswith("no pictures: ZeroDivisionError"))
            index = world.index
            await client.until(lambda: world.index > index)
            assert client.state["state"] == "running" and client.state["viewers"] == 1

    run(test())


def test_prompt_run_snapshot_and_restore(tmp_path):
    world = ToyWorld()

    async def test():
        async with served(tmp_path, world) as (url, _), viewer(url) as client:
            await client.drive()
            assert (await client.ask(1, type="prompt", text="  rain\n tonight "))["type"] == "done"
            assert world.prompts == ["a toy", "rain tonight"]
            for text in ("", " ", None, 3, "x" * 2001, "refuse"):
                assert (await client.ask(2, type="prompt", text=text))["status"] in (400, 422), text
                client.answers.clear()
            assert (await client.ask(3, type="run", running=False))["type"] == "done"
            await client.until(lambda: client.state["state"] == "paused")
            index, place = world.index, (world.x, world.y)
            number = (await client.ask(4, type="snapshot"))["snapshot"]
            await client.until(lambda: client.state["snapshots"] == [number])
            await asyncio.sleep(0.2)
            assert world.index == index, "a world that stands still makes no frames"
            await client.send(type="control", keys="D")
            await client.ask(5, type="run", running=True)
            await client.until(lambda: world.x > place[0])
            await client.send(type="control", keys="")
            await client.ask(8, type="prompt", text="sun")
            await client.until(lambda: client.state["prompt"] == "sun")
            assert (await client.ask(6, type="restore", snapshot=number))["type"] == "done"
            assert (await client.ask(7, type="restore", snapshot=99))["status"] == 404
            assert (world.x, world.y) == place
            await client.until(lambda: client.state["prompt"] == "rain tonight")

    run(test())


def test_commands_are_limited(tmp_path):
    async def test():
        async with served(tmp_path) as (url, hub), viewer(url) as client:
            await client.drive()
            for number in range(60):
                await client.send(type="reset", id=number)
            await client.until(lambda: any(answer.get("status") == 429 for answer in client.answers.values()))
            await asyncio.sleep(0.5)
            assert (await client.ask(99, type="reset"))["type"] == "done"
            assert hub.host.state == "running"

    run(test())


def test_a_server_that_ends_says_goodbye_and_leaves_no_thread(tmp_path):
    world = ToyWorld()

    async def watch(url, hub):
        async with viewer(url) as client:
            await client.until(lambda: client.pictures)
            ending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(hub.end(), hub._loop))
            with pytest.raises(ConnectionError, match="1001"):
                await client.until(lambda: False)
            await ending

    before = set(threading.enumerate())
    with served_in_thread(tmp_path, world) as (url, hub):
        run(watch(url, hub))
    left = {thread for thread in threading.enumerate() if thread.name.startswith("worldrt")} - before
    assert not left and world.stopped


def test_a_recording_is_a_film_of_what_was_shown(tmp_path):
    async def test():
        async with served(tmp_path) as (url, _), viewer(url) as client:
            await client.drive()
            name = (await client.ask(1, type="record", on=True))["recording"]
            await client.until(lambda: client.state["recording"] == name)
            await client.send(type="control", keys="D", seq=1)
            await client.until(lambda: client.pictures and client.pictures[-1][2] == 1)
            seen = len(client.pictures)
            await client.until(lambda: len(client.pictures) > seen + 3)
            assert (await client.ask(2, type="record", on=False))["recording"] == name
            await client.until(lambda: client.state["recording"] is None)
            assert (await client.ask(3, type="record", on=False))["recording"] is None
            return name

    name = run(test())
    (made,) = (tmp_path / "recordings").iterdir()
    assert made.name == name
    with av.open(str(made)) as file:
        pictures = [frame.to_ndarray(format="rgb24")[40:].reshape(-1, 3) for frame in file.decode(video=0)]
    assert len(pictures) > 3 and is_ground(pictures[0], None) and is_ground(pictures[-1], "DR")


def test_a_recording_that_runs_when_the_server_ends_is_finished(tmp_path):
    async def test():
        async with served(tmp_path) as (url, _), viewer(url) as client:
            await client.drive()
            await client.ask(1, type="record", on=True)
            await client.until(lambda: len(client.pictures) > 5)

    run(test())
    (made,) = (tmp_path / "recordings").iterdir()
    with av.open(str(made)) as file:
        assert file.streams.video[0].frames > 2


def test_the_token_may_come_in_the_header_or_in_the_first_message(tmp_path):
    from worldrt.runtime.serve.access import make_access

    access = make_access("0.0.0.0", "a token of ours", ())

    async def test():
        async with served(tmp_path, access=access) as (url, _):
            async with viewer(url, token="a token of ours") as client:
                await client.until(lambda: client.state)
            async with viewer(url, headers={"Authorization": "Bearer a token of ours"}) as client:
                await client.until(lambda: client.state)
            for token in (None, "a token of theirs", "ä"):
                async with viewer(url, token=token) as client:
                    with pytest.raises(ConnectionError, match="4401"):
                        await client.until(lambda: client.state)

    run(test())


def test_a_page_of_another_place_may_not_connect(tmp_path):
    async def test():
        async with served(tmp_path) as (url, _):
            for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    async with viewer(url, headers=headers) as client:
                        await client.until(lambda: client.state)
            async with viewer(url, headers={"Origin": url}) as client:
                await client.until(lambda: client.state)

    run(test())
