"""`docs/python.md`: every block of the page runs, on the nano model; and what it says of cancelling holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

import av
import numpy as np
import pytest

from worldrt.runtime import Cancelled, Generator, Job, Models, Observer, Request
from worldrt.runtime.sinks.base import VideoFormat, open_sink

from ..fakes.endpoint import Reply, completion, serve

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TITLES = ["frames", "files", "cancel", "generator", "together", "best of n"]


@pytest.fixture
def here(nano, nano_by_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("bundles")
    os.symlink(nano.folder, "bundles/nano")
    for place, frames in (("clip.mp4", 7), ("photo.jpg", 1)):
        with open_sink(place, VideoFormat(64, 48, 16, frames)) as write:
            for i in range(frames):
                write(np.full((48, 64, 3), 20 * i + 40, np.uint8))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as fake:
        fake.replies = [Reply(completion(*["<think>Fine.</think><answer>No</answer>"] * 3))]
        monkeypatch.setenv("WORLDRT_CRITIC_URL", fake.url)
        yield tmp_path


def frames_in(place):
    with av.open(place) as container:
        return sum(1 for _ in container.decode(video=0))


def run(title, capsys):
    exec(compile(BLOCKS[TITLES.index(title)], f"python.md: {title}", "exec"), {"__name__": "page"})
    return capsys.readouterr().out.splitlines()


def test_all_blocks_are_known():
    assert len(BLOCKS) == len(TITLES)


def test_frames_come_from_a_prompt(here, capsys):
    assert run("frames", capsys) == ["(80, 128, 3) uint8"] * 9


def test_files_are_read_and_written(here, capsys):
    run("files", capsys)
    assert frames_in("turn.mp4") == 9


def test_a_run_is_cancelled_and_its_times_are_kept(here, capsys):
    told = run("cancel", capsys)
    assert "video2world: sampling: 3 of 3" in told and float(told[-1]) > 0
    assert told[-2] == "video2world: decode: 1 of 9"


def test_files_have_sidecars(here, capsys):
    told = run("generator", capsys)
    assert [line.split()[:2] for line in told] == [[f"boat-{i}.mp4", f"boat-{i}.json"] for i in range(2)]
    assert frames_in("boat-1.mp4") == 9


def test_several_are_made_at_once(here, capsys):
    assert run("together", capsys) == ["2 (80, 128, 3)"]


def test_the_best_of_several_is_found(here, capsys):
    told = run("best of n", capsys)
    assert len(told) == 2 and all(" 1.0 " in line and line.endswith(".html") for line in told)


class _Stops(Observer):
    def __init__(self, stage, at):
        super().__init__()
        self.stage_name, self.at, self.after = stage, at, 0

    def progress(self, stage, done, total):
        super().progress(stage, done, total)
        if (stage, done) == (self.stage_name, self.at):
            raise Cancelled(stage)
        self.after += 1


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("stage", ["text2image: sampling", "video2world: sampling"])
def test_a_cancelled_generator_leaves_nothing_and_goes_on_working(here, stage, chunks):
    """At the step that it is told of, and not later."""
    models = Models.open([Path("bundles/nano")])
    generator = Generator("text2world", models)
    request = Request("a", steps=4, num_frames=9, width=48, height=32, num_chunks=chunks)
    before = set(os.listdir())
    observer = _Stops(stage, 2)
    with pytest.raises(Cancelled):
        generator.run(Job(request, "out.mp4"), observer)
    assert len(observer.timings.steps[stage]) == 2
    left = set(os.listdir()) - before
    assert left <= ({"out.mp4.chunks"} if chunks > 1 else set())
    assert generator.run(Job(request, "out.mp4")).video.frames == 9 + 8 * (chunks - 1)
    assert set(os.listdir()) - before == {"out.mp4", "out.json"}
