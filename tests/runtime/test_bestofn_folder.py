"""`trt-run bestofn --skip_generation` on folders as they are found: all that can be judged is."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime import BestOfNRequest, Request
from worldrt.runtime.cli import main
from worldrt.runtime.jobs import Job
from worldrt.runtime.progress import Bars
from worldrt.runtime.sinks.base import VideoFormat, open_sink

from ..fakes.endpoint import Reply, completion, serve

NO, YES = "<answer>No</answer>", "<answer>Yes</answer>"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        server.replies = [Reply(completion(NO))]
        yield server


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    with open_sink(str(tmp_path / "out/good.mp4"), VideoFormat(48, 32, 16, frames=4)) as write:
        for value in (0, 80, 160, 240):
            write(np.full((32, 48, 3), value, np.uint8))
    return tmp_path / "out"


def judge(fake, folder, *arguments):
    named = ("--critic_url", fake.url, "--critic_model", "m", "--num_critic_trials", "1", "--quiet")
    return main(["bestofn", "--skip_generation", "--save_path", str(folder), *named, *arguments])


def test_what_is_no_video_does_not_hold_up_the_others(fake, folder, capsys):
    good = folder / "good.mp4"
    (folder / "folder.mp4").mkdir()
    (folder / "lost.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "empty.mp4").touch()
    (folder / "cut.mp4").write_bytes(good.read_bytes()[:1000])
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {good.name}\n")
    (folder / "play.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good.name}\n#EXT-X-ENDLIST\n")
    shutil.copy(good, folder / "frame%03d.mp4")
    shutil.copy(good, folder / f"{'n' * 250}.mp4")
    assert judge(fake, folder, "--json") == 0
    told = capsys.readouterr()
    made = {os.path.basename(candidate["video"]) for candidate in json.loads(told.out)["candidates"]}
    assert made == {"good.mp4", "frame%03d.mp4"} and len(fake.asked) == 2
    left_out = [line for line in told.err.splitlines() if line.endswith("it is left out")]
    assert len(left_out) == 5 and all(line.startswith("warning: ") for line in left_out)


def test_names_cannot_write_lines_or_colours_of_their_own(fake, folder, capsys):
    os.rename(folder / "good.mp4", folder / "a\n  9. 100%\x1b[31m\u202e.mp4")
    assert judge(fake, folder) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and len(out.splitlines()) == 4
    assert "a\\n  9. 100%\\x1b[31m\\u202e.mp4" in out


def test_a_folder_without_videos_is_an_error(fake, folder, capsys):
    os.rename(folder / "good.mp4", folder / "good.txt")
    (folder / "folder.mp4").mkdir()
    for place in (folder, folder / "good.txt", folder / "absent"):
        assert judge(fake, place) == 2 and "no .mp4 there" in capsys.readouterr().err
    assert not fake.asked


@pytest.mark.parametrize("place", ["png:out", "jpg:out", "null:"])
def test_a_place_that_is_no_folder_is_refused_before_any_work(place):
    job = Job(Request(prompt="x"), place, Path("photo.png"))
    with pytest.raises(InputError, match="expected a folder"):
        BestOfNRequest(job).jobs()


def test_a_name_with_brackets_is_shown_as_it_is(monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with Bars() as bars:
        bars.progress("critic: [/red]x[bold].mp4", 0, 2)
        bars.progress("critic: [/red]x[bold].mp4", 1, 2)
