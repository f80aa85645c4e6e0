"""Files and callbacks while a world runs: kills, full disks, faults, and everything that is said before it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.sinks import mp4
from worldrt.runtime.live.sinks.base import Feed
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(96, 64, 16)


def frame(index):
    return LiveFrame(index, np.full((64, 96, 3), 5 * index % 250, np.uint8), Stamps(control=0.0))


def feed(output, count=40):
    """In step with the slowest place, so that nothing is dropped: a live world would not wait."""
    for index in range(count):
        output.put(frame(index))
        for _ in range(2000):
            if all(reader.waiting < 2 for reader in (*output.frames.readers, *output.units.readers)):
                break
            time.sleep(0.001)


def grays(path):
    with av.open(str(path)) as container:
        return [int(picture.to_ndarray(format="rgb24").mean()) for picture in container.decode(video=0)]


def test_several_places_get_one_encoding(tmp_path):
    sent, called = [], []
    places = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), f"png:{tmp_path / 'frames'}", "null:"]
    with open_live(places, FORMAT, callbacks=[called.append], passed=lambda *pair: sent.append(pair)) as output:
        feed(output)
    assert [state.phase for state in output.states] == ["ended"] * 6
    assert [state.place for state in output.states[1:5]] == places and output.states[0].taken == 40
    assert [one.index for one in called] == list(range(40))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    expected = [5 * index for index in range(40)]
    assert np.abs(np.subtract(grays(tmp_path / "a.mp4"), expected)).max() <= 4
    assert len(os.listdir(tmp_path / "frames")) == 40 and grays(tmp_path / "frames" / "frame_0007.png") == [35]
    for place in places:
        stamps = [stamps for name, stamps in sent if name == place]
        assert len(stamps) == 40 and all(one.between("control", "sent") > 0 for one in stamps)
    assert all(stamps.between("encoded", "sent") >= 0 for name, stamps in sent if name.endswith(".mp4"))


def test_a_recording_that_ends_is_an_ordinary_mp4(tmp_path):
    with open_live([str(tmp_path / "w.mp4")], FORMAT) as output:
        feed(output)
    raw = (tmp_path / "w.mp4").read_bytes()
    assert b"moof" not in raw[: raw.index(b"mdat")] and raw.rindex(b"moov") > raw.index(b"mdat")
    with av.open(str(tmp_path / "w.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 40 and stream.average_rate == 16
        assert float(stream.duration * stream.time_base) == pytest.approx(2.5)
        context = stream.codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


def test_a_recording_that_begins_late_begins_at_zero(tmp_path):
    with open_live([], FORMAT, encode=True) as output:
        feed(output, 20)
        while output.states[0].taken < 20:
            time.sleep(0.005)
        recording = Feed(mp4.open_live(str(tmp_path / "w.mp4"), FORMAT, overwrite=False), output.units, _, _)
        for index in range(10_000, 10_040):
            output.put(frame(index))
            time.sleep(0.01)
        with av.open(str(tmp_path / "w.mp4")) as container:  # as a kill would leave it
            assert next(container.decode(video=0)).time == 0
    assert recording.join(10) and recording.state.phase == "ended"
    with av.open(str(tmp_path / "w.mp4")) as container:
        pictures = list(container.decode(video=0))
        duration_s = container.duration / av.time_base
    assert pictures[0].time == 0 and pictures[-1].time == pytest.approx((len(pictures) - 1) / 16)
    assert duration_s == pytest.approx(len(pictures) / 16)
    if shutil.which("ffprobe"):
        probe = ["ffprobe", "-v", "error", "-show_entries", "format=start_time,duration", "-of", "csv=p=0"]
        told = subprocess.check_output([*probe, tmp_path / "w.mp4"], text=True)
        assert [float(part) for part in told.split(",")] == pytest.approx([0, duration_s])


def _(*told):
    pass


KILLED = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from test_places import FORMAT, feed, open_live
output = open_live([sys.argv[1]], FORMAT)
feed(output)
while output.states[1].taken < 40 or any(reader.waiting for reader in output.units.readers):
    time.sleep(0.01)
time.sleep(0.2)
os._exit(9)
"""


def test_a_kill_leaves_a_file_that_can_be_read(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "w.mp4", os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9, done.stderr
    assert len(grays(tmp_path / "w.mp4")) >= 32  # of 40: at most the last second is lost
    if shutil.which("ffprobe"):
        probe = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]
        assert int(subprocess.check_output([*probe, tmp_path / "w.mp4"])) >= 32


FULL = """
import resource, sys, time
sys.path.insert(0, sys.argv[2])
import numpy as np
from test_places import FORMAT, LiveFrame, open_live
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rng, called = np.random.default_rng(0), []
with open_live([sys.argv[1]], FORMAT, callbacks=[called.append], warn=print) as output:
    for index in range(120):
        output.put(LiveFrame(index, rng.integers(0, 256, (64, 96, 3), np.uint8)))
        while len(called) <= index:
            time.sleep(0.001)
        time.sleep(0.002)
    time.sleep(0.3)
    phases = [state.phase for state in output.states]
print("the world went on:", phases, len(called))
"""


def test_a_file_that_cannot_grow_ends_alone_and_stays_readable(tmp_path):
    command = [sys.executable, "-c", FULL, tmp_path / "w.mp4", os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "the world went on: ['sending', 'failed', 'sending'] 120" in done.stdout, done.stdout + done.stderr
    assert "w.mp4: failed" in done.stdout and "cannot be written: File too large" in done.stdout
    assert len(grays(tmp_path / "w.mp4")) >= 16


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "w.mp4").symlink_to("/dev/full")
    with open_live([str(tmp_path / "w.mp4")], FORMAT, overwrite=True) as output:
        feed(output)
    assert output.states[1].phase == "failed" and "w.mp4: the disk is full" in output.states[1].detail


def test_a_world_without_a_frame_leaves_no_file(tmp_path):
    with open_live([str(tmp_path / "w.mp4"), f"png:{tmp_path / 'frames'}"], FORMAT):
        pass
    assert not (tmp_path / "w.mp4").exists()


@pytest.mark.parametrize(
    ("place", "error", "text"),
    [
        ("srt://127.0.0.1:9", InputError, "rtsp://HOST"),
        ("mp4://w", InputError, "rtsp://HOST"),
        ("w.avi", InputError, r"NAME\.mp4"),
        ("/proc/none/w.mp4", OutputError, "cannot be written"),
        ("one.png", InputError, "holds one picture"),
    ],
)
def test_bad_places_are_said_before_anything_starts(tmp_path, monkeypatch, place, error, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.png").mkdir()
    threads = threading.active_count()
    with pytest.raises(error, match=text):
        open_live(["w.mp4", "png:frames", place], FORMAT)
    assert os.listdir(tmp_path) == ["one.png"] and threading.active_count() == threads


def test_what_exists_is_kept_until_the_first_picture(tmp_path):
    path = tmp_path / "w.mp4"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        open_live([str(path)], FORMAT)
    with open_live([str(path)], FORMAT, overwrite=True):
        pass
    assert path.read_text() == "precious"
    with open_live([str(path)], FORMAT, overwrite=True) as output:
        feed(output, 5)
    assert len(grays(path)) == 5


def test_a_callback_that_raises_ends_alone_and_is_told_once(tmp_path):
    told = []

    def fragile(one):
        if one.index == 3:
            raise ValueError("no more")

    with open_live([str(tmp_path / "w.mp4")], FORMAT, callbacks=[fragile], warn=told.append) as output:
        feed(output, 20)
    assert [state.phase for state in output.states] == ["ended", "ended", "failed"]
    assert sum("ValueError: no more" in line for line in told) == 1 and len(grays(tmp_path / "w.mp4")) == 20


def test_an_encoder_that_gives_up_ends_the_files_and_not_the_world(tmp_path):
    class Broken:
        pix_fmt = "yuv420p"

        def encode(self, picture):
            raise av.error.ExternalError(1, "the device is lost")

    called = []
    with open_live([str(tmp_path / "w.mp4")], FORMAT, callbacks=[called.append]) as output:
        feed(output, 20)
        while output.states[1].taken < 20:
            time.sleep(0.005)
        output.encoder._context, output.encoder._left = Broken(), []
        for index in range(20, 30):
            output.put(frame(index))
            time.sleep(0.01)
    assert [state.phase for state in output.states] == ["failed", "ended", "ended"]
    assert "the device is lost" in output.states[0].detail
    assert len(called) == 30 and len(grays(tmp_path / "w.mp4")) == 20


def test_a_stuck_callback_is_left_behind(tmp_path):
    release = threading.Event()
    output = open_live([str(tmp_path / "w.mp4")], FORMAT, callbacks=[lambda one: release.wait(20)])
    for index in range(100):
        output.put(frame(index))
        time.sleep(0.001)
    states = output.close(0.5)
    assert states[1].phase == "ended" and states[2].phase == "sending" and states[2].dropped > 50
    release.set()
