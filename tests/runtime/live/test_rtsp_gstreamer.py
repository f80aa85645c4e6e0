"""RTSP pushed to a server that is not ours, GStreamer's, which dies and comes back; and read by GStreamer's client."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from ...fakes.live_world import are_in_a_row, state, until, watch, world

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parents[2] / "fakes" / "gst_rtsp_server.py"
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
PACKAGES = "apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"


def is_there():
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", PROBE], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not is_there(), reason=f"GStreamer's RTSP server is not installed; {PACKAGES}")


@contextmanager
def gstreamer(port):
    process = subprocess.Popen([PYTHON, SERVER, str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_push_survives_the_death_of_a_real_server():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"rtsp://127.0.0.1:{port}"
    with world([f"{url}/in"]) as made:
        until(lambda: state(made).phase == "waiting")  # it is not there yet
        with gstreamer(port):
            until(lambda: state(made).phase == "sending")
            for transport in ("tcp", "udp"):
                assert are_in_a_row(watch(f"{url}/out", transport))
        until(lambda: state(made).phase == "waiting")
        before = made.made
        until(lambda: made.made > before + 10)
        with gstreamer(port):
            until(lambda: state(made).phase == "sending")
            assert are_in_a_row(watch(f"{url}/out"))
            entries = ["-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"]
            if shutil.which("ffprobe"):
                probe = ["ffprobe", "-v", "error", "-rtsp_transport", "tcp", *entries, f"{url}/out"]
                assert subprocess.check_output(probe, timeout=30, text=True).strip() == "h264,96,64"
        assert made.longest_s < 1
    assert state(made).phase == "ended"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_our_server_plays_to_gstreamer(transport):
    """Its client checks what it gets more strictly than FFmpeg's."""
    with world(["rtsp-serve://127.0.0.1:0/live"]) as made:
        url = state(made).place.replace("rtsp-serve", "rtsp")
        script = CLIENT.format(url=url, transport=transport)
        done = subprocess.run([PYTHON, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "20 pictures", done.stdout + done.stderr


CLIENT = """
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
line = Gst.parse_launch(
    "rtspsrc location={url} protocols={transport} latency=0 ! rtph264depay "
    "! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
)
line.set_state(Gst.State.PLAYING)
sink, count = line.get_by_name("sink"), 0
while count < 20 and (sample := sink.emit("try-pull-sample", 10 * Gst.SECOND)):
    count += 1
line.set_state(Gst.State.NULL)
print(count, "pictures")
"""
