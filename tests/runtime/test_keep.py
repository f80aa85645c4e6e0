"""What an interrupted film keeps: how it goes on, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest

from worldrt.engine.errors import BlockedError, InputError, OutputError
from worldrt.runtime import Request, cli
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job
from worldrt.runtime.keep import KeepInFolder
from worldrt.runtime.matching import finished
from worldrt.runtime.models import Models
from worldrt.runtime.pipelines import chunks
from worldrt.runtime.progress import Plain

RUN = {"request": {"prompt": "a", "seed": 1}}
FILM = ("text2world", "--prompt", "a red car", "--steps", "1", "--num_frames", "5", "--width", "48", "--height", "32",
        "--num_chunks", "3", "--quiet")  # fmt: skip
PICTURE = ("--steps", "1", "--width", "48", "--height", "32", "--quiet")


def test_pieces_are_kept_until_the_result_is_whole(tmp_path):
    folder, piece = tmp_path / "a.mp4.chunks", np.arange(6, dtype=np.float32).reshape(2, 3)
    said = []
    with pytest.raises(KeyboardInterrupt), KeepInFolder(folder, RUN, said.append) as keep:
        assert keep.load("chunk-000") is None and not folder.exists()  # nothing is there before there is a piece
        keep.save("chunk-000", piece)
        assert keep.text("refined", lambda: "a grüner Wagen") == "a grüner Wagen"
        raise KeyboardInterrupt
    assert said == [f"1 finished chunk(s) are kept in {folder}; the same command goes on from there"]
    assert sorted(os.listdir(folder)) == ["chunk-000.npz", "refined.txt", "run.json"]
    with KeepInFolder(folder, RUN) as again:
        found = again.load("chunk-000")
        assert np.array_equal(found, piece) and found.dtype == np.float32
        assert again.text("refined", lambda: "another") == "a grüner Wagen"
    assert os.listdir(tmp_path) == []


def test_what_is_blocked_is_not_kept(tmp_path):
    with pytest.raises(BlockedError), KeepInFolder(tmp_path / "k", RUN) as keep:
        keep.save("chunk-000", np.zeros(1))
        raise BlockedError("no")
    assert os.listdir(tmp_path) == []


def test_pieces_of_another_run_are_refused_by_what_differs(tmp_path):
    folder = tmp_path / "k"
    with pytest.raises(OSError), KeepInFolder(folder, RUN) as keep:
        keep.save("chunk-000", np.zeros(1))
        raise OSError
    with pytest.raises(InputError, match=r"differs in: request\.seed, request\.steps\. "):
        KeepInFolder(folder, {"request": {"prompt": "a", "seed": 2, "steps": 3}})
    assert (folder / "chunk-000.npz").is_file()


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"a": 1}', "\0", "[" * 99999])
def test_folders_of_something_else_are_refused(tmp_path, content):
    (tmp_path / "holiday.jpg").write_text("mine")
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json|another run"):
        KeepInFolder(tmp_path, RUN)
    assert (tmp_path / "holiday.jpg").read_text() == "mine"


def test_a_folder_that_a_killed_run_had_hardly_begun_is_taken(tmp_path):
    folder = tmp_path / "k"
    folder.mkdir()
    (folder / ".run-abc.json").write_text("{")
    with KeepInFolder(folder, RUN) as keep:
        keep.save("chunk-000", np.zeros(1))
        assert (folder / "run.json").is_file()
    assert not folder.exists()


def test_two_runs_at_once_do_not_mix_their_pieces(tmp_path):
    one, other = KeepInFolder(tmp_path / "k", RUN), KeepInFolder(tmp_path / "k", {"request": {"prompt": "b"}})
    one.save("chunk-000", np.zeros(1))
    with pytest.raises(InputError, match="another run"):
        other.save("chunk-000", np.ones(1))
    assert one.load("chunk-000") == np.zeros(1)


def test_damaged_pieces_and_pickles_are_refused(tmp_path):
    folder = tmp_path / "k"
    keep = KeepInFolder(folder, RUN)
    keep.save("chunk-000", np.zeros(100))
    data = (folder / "chunk-000.npz").read_bytes()
    np.savez(folder / "chunk-001.npz", piece=np.array([{"a": 1}], object))
    np.savez(folder / "chunk-002.npz", other=np.zeros(1))
    for i, wrong in enumerate([b"", data[: len(data) // 2], data[:300] + b"xxxx" + data[304:]]):
        (folder / f"chunk-01{i}.npz").write_bytes(wrong)
    for name in ("chunk-001", "chunk-002", "chunk-010", "chunk-011", "chunk-012"):
        with pytest.raises(InputError, match=f"{name}.npz: it is damaged"):
            keep.load(name)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        KeepInFolder(tmp_path / "file" / "k", RUN).save("chunk-000", np.zeros(1))


@pytest.fixture
def here(nano_by_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano_by_torch.folder.parent))
    return tmp_path


def sampling(monkeypatch, stop_at=None):
    """Count the clips that are sampled; the run is interrupted in place of clip `stop_at`."""
    made, sample = [], chunks.sample_clip

    def counted(*arguments):
        if len(made) == stop_at:
            raise KeyboardInterrupt
        made.append(arguments)
        return sample(*arguments)

    monkeypatch.setattr(chunks, "sample_clip", counted)
    return made


def pixels(path):
    with av.open(path) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.mark.parametrize("hand_over", ["latents", "frames"])
def test_an_interrupted_command_goes_on(here, monkeypatch, capsys, hand_over):
    """From the last finished chunk, to the same file."""
    film = (*FILM, "--hand_over", hand_over)
    assert cli.main([*film, "--save_path", "whole.mp4"]) == 0
    with monkeypatch.context() as patch:
        made = sampling(patch, stop_at=2)
        assert cli.main([*film, "--save_path", "a.mp4"]) == 130
        assert len(made) == 2
    assert "2 finished chunk(s) are kept in a.mp4.chunks" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["a.mp4.chunks", "whole.json", "whole.mp4"]
    made = sampling(monkeypatch)
    assert cli.main([*film, "--save_path", "a.mp4"]) == 0
    assert len(made) == 1
    assert sorted(os.listdir()) == ["a.json", "a.mp4", "whole.json", "whole.mp4"]
    assert np.array_equal(pixels("a.mp4"), pixels("whole.mp4")) and len(pixels("a.mp4")) == 13
    assert json.loads((here / "a.json").read_text())["settings"]["video2world"]["num_chunks"] == 3


def test_another_command_does_not_take_up_the_chunks(here, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        sampling(patch, stop_at=1)
        assert cli.main([*FILM, "--save_path", "png:film"]) == 130
    before = sorted(os.listdir("film.chunks"))
    made = sampling(monkeypatch)
    capsys.readouterr()
    assert cli.main([*FILM, "--save_path", "png:film", "--seed", "1", "--overwrite"]) == 2
    error = capsys.readouterr().err
    assert "differs in: request.seed" in error and "another --save_path" in error and not made
    assert sorted(os.listdir("film.chunks")) == before and os.listdir() == ["film.chunks"]


def test_the_content_of_an_input_counts_and_not_its_place(here, monkeypatch):
    with av.open("in.png", "w") as file:
        stream = file.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgb24"
        picture = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
        file.mux([*stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")), *stream.encode()])
    film = ("video2world", *FILM[1:], "--save_path", "a.mp4", "--input_path")
    with monkeypatch.context() as patch:
        sampling(patch, stop_at=1)
        assert cli.main([*film, "in.png"]) == 130
    shutil.copy("in.png", "moved.png")
    made = sampling(monkeypatch)
    assert cli.main([*film, "moved.png"]) == 0 and len(made) == 2


def test_pictures_that_are_edited_and_refiners_count_too(here, nano_by_torch, monkeypatch):
    """Else a film would go on from the picture of another, or with another prompt."""
    request = Request("a", steps=1, num_frames=5, width=48, height=32, num_chunks=2, picture_edit_strength=0.5)
    for name in ("edit.png", "other.png"):
        assert cli.main(["text2image", *PICTURE, "--prompt", name, "--save_path", name]) == 0
    job = Job(request, "a.mp4", edit_path=here / "edit.png")
    models = Models.open([nano_by_torch.folder])
    with monkeypatch.context() as patch:
        sampling(patch, stop_at=1)
        with pytest.raises(KeyboardInterrupt):
            Generator("text2world", models).run(job)
    shutil.copy("other.png", "edit.png")
    with pytest.raises(InputError, match="differs in: edit"):
        Generator("text2world", models).run(job)
    other = replace(job, request=replace(request, picture_edit_strength=None), edit_path=None, place="b.mp4")
    with monkeypatch.context() as patch:
        sampling(patch, stop_at=1)
        with pytest.raises(KeyboardInterrupt):
            Generator("text2world", models, refiner=Refiner()).run(other)
    with pytest.raises(InputError, match="differs in: refined"):
        Generator("text2world", models).run(other)


class Refuser:
    """A guard that lets the first frames pass."""

    def check_text(self, text):
        if "gun" in text:
            raise BlockedError("no")

    def frames(self, frames, *_):
        for i, frame in enumerate(frames):
            if i == 7:
                raise BlockedError("frame 7")
            yield frame


@pytest.mark.parametrize("prompts", [["a", "b", "c"], ["a", "b", "a gun"]])
def test_a_blocked_film_leaves_nothing(here, nano_by_torch, monkeypatch, prompts):
    """A frame of a later chunk, or the prompt of one, which is read before anything is made."""
    made = sampling(monkeypatch)
    request = Request(
        "a", steps=1, num_frames=5, width=48, height=32, num_chunks=3, chunk_prompts=tuple(prompts), negative_prompt="x"
    )
    generator = Generator("text2world", Models.open([nano_by_torch.folder]), guard=Refuser())
    with pytest.raises(BlockedError):
        generator.run(Job(request, "a.mp4"), Plain(), overwrite=False)
    assert os.listdir() == [] and len(made) in ((0,) if "gun" in prompts[2] else (2, 3))  # one is sampled ahead


class Refiner:
    """Says another thing each time."""

    def __init__(self):
        self.asked = []

    def refine(self, prompt, frames):
        self.asked.append(prompt)
        return f"{prompt}, refined {len(self.asked)}"


def test_a_prompt_is_refined_once_for_a_film_and_its_continuation(here, nano_by_torch, monkeypatch):
    request = Request("a", steps=1, num_frames=5, width=48, height=32, num_chunks=2, negative_prompt="x")
    refiner = Refiner()
    generator = Generator("text2world", Models.open([nano_by_torch.folder]), refiner=refiner)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        sampling(patch, stop_at=1)
        generator.run(Job(request, "a.mp4"), Plain(), overwrite=False)
    generator.run(Job(request, "a.mp4"), Plain(), overwrite=False)
    assert refiner.asked == ["a"]
    assert json.loads((here / "a.json").read_text())["refined_prompt"] == "a, refined 1"
    own = Job(replace(request, chunk_prompts=("a", "b")), "b.mp4")
    generator.run(own, Plain(), overwrite=False)
    assert refiner.asked == ["a"] and not generator.refines(own)  # the user has written what each chunk shows
    assert finished(own, generator, overwrite=False)
