"""Films and edits from the command line: what the flags come to, what they refuse, and runs that are repeated."""

from __future__ import annotations

import json
import os

import av
import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime import cli, flags
from worldrt.runtime.jobs import job_of
from worldrt.runtime.long_flags import read_prompts
from worldrt.runtime.repeat import repeated

SMALL = ("--steps", "1", "--num_frames", "5", "--width", "48", "--height", "32", "--quiet")


def job(*arguments):
    args = cli.build_parser().parse_args([str(argument) for argument in arguments])
    flags.check(args)
    return job_of(args)


def test_prompts_of_a_file(tmp_path):
    lines, listed = tmp_path / "lines.txt", tmp_path / "list.json"
    lines.write_bytes("\ufeffA red car\r\n\r\n  It turns, \u2028 slowly\n".encode())
    listed.write_text(json.dumps(["A red car", "two\nlines"]))
    assert read_prompts(str(lines)) == ("A red car", "It turns, \u2028 slowly")
    assert read_prompts(str(listed)) == ("A red car", "two\nlines")


@pytest.mark.parametrize(("content", "text"), [
    (b"", "it holds no prompt"), (b" \n\n", "it holds no prompt"), (b"[]", "it holds no prompt"),
    (b'["a", 1]', r"prompts\[1\]"), (b'["a"', "a JSON list"), (b"\xff\xfe", "lines of text"), (None, "cannot be read"),
])  # fmt: skip
def test_files_without_prompts(tmp_path, content, text):
    if content is not None:
        (tmp_path / "p").write_bytes(content)
    with pytest.raises(InputError, match=text):
        read_prompts(str(tmp_path / "p"))
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(str(tmp_path))


def test_prompts_say_how_many_chunks(tmp_path):
    (tmp_path / "p").write_text("a\nb\nc\n")
    request = job("text2world", "--chunk-prompts", tmp_path / "p").request
    assert (request.prompt, request.num_chunks, request.chunk_prompts) == ("a", 3, ("a", "b", "c"))
    request = job("video2world", "--prompt", "x", "--chunk_prompt", "a", "--chunk_prompt", "b").request
    assert (request.prompt, request.num_chunks, request.chunk_prompts) == ("x", 2, ("a", "b"))
    request = job("text2world", "--prompt", "x", "--num_chunks", 6, "--num_overlap_frames", 5).request
    assert (request.num_chunks, request.chunk_prompts, request.num_overlap_frames) == (6, (), 5)
    assert job("text2image", "--prompt", "x").request.num_chunks == 1
    request = job("text2world", "--num_chunks", 1, "--chunk_prompt", "a", "--chunk_prompt", "b").request
    assert (request.num_chunks, len(request.chunk_prompts)) == (1, 2)  # refused, and not made longer than was said


def test_prompts_that_are_given_stand_for_those_of_a_sidecar(tmp_path, nano):
    """A prompt for all, or for each chunk, whose number follows."""
    film = ("text2world", "--bundle", str(nano.folder), "--backend", "null", *SMALL)
    place = str(tmp_path / "a.mp4")
    assert cli.main([*film, "--chunk_prompt", "a", "--chunk_prompt", "b", "--save_path", place]) == 0

    def again(*arguments):
        run = ("text2world", "--from_sidecar", str(tmp_path / "a.json"), *arguments)
        args = repeated(cli.build_parser().parse_args(run), lambda defaults: cli.build_parser(defaults).parse_args(run))
        flags.check(args)
        request = job_of(args).request
        return request.prompt, request.num_chunks, request.chunk_prompts

    assert again() == ("a", 2, ("a", "b"))
    assert again("--prompt", "x") == ("x", 2, ())
    assert again("--chunk_prompt", "c") == ("c", 1, ("c",))
    (tmp_path / "p").write_text("d\ne\nf\n")
    assert again("--chunk_prompts", str(tmp_path / "p")) == ("d", 3, ("d", "e", "f"))
    assert again("--num_chunks", "1") == ("a", 1, ("a", "b"))


def test_flags_that_do_not_go_together(tmp_path):
    (tmp_path / "p").write_text("a\nb\n")
    with pytest.raises(InputError, match="--chunk_prompts says the same"):
        job("text2world", "--chunk_prompts", tmp_path / "p", "--chunk_prompt", "a")
    with pytest.raises(InputError, match="--record_inputs: it keeps one run"):
        job("text2world", "--prompt", "x", "--num_chunks", 2, "--record_inputs", tmp_path / "r")


@pytest.fixture
def here(nano_by_torch, tmp_path, monkeypatch):
    """A folder with a clip of seven frames and a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano_by_torch.folder.parent))
    rng = np.random.default_rng(0)
    for name, codec, count in (("in.mkv", "ffv1", 7), ("in.png", "png", 1)):
        with av.open(name, "w") as file:
            stream = file.add_stream(codec, rate=16)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "rgb24" if codec == "png" else "bgr0"
            for _ in range(count):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (32, 48, 3), np.uint8), "rgb24")
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    return tmp_path


def frames_of(folder):
    made = []
    for name in sorted(os.listdir(folder)):
        with av.open(os.path.join(folder, name)) as file:
            made.append(next(file.decode(video=0)).to_ndarray(format="rgb24"))
    return np.stack(made)


def test_a_clip_is_edited_from_its_own_beginning(here):
    """Its first frames are the known ones, unless others are given; the sidecar repeats the run."""
    edit = ("video2world", "--prompt", "a", *SMALL, "--edit_strength", "0.5")
    assert cli.main([*edit, "--input_path", "in.mkv", "--save_path", "png:a"]) == 0
    assert cli.main([*edit, "--input_video_path", "in.mkv", "--save_path", "png:b"]) == 0
    assert cli.main([*edit, "--input_path", "in.png", "--input_video_path", "in.mkv", "--save_path", "png:c"]) == 0
    a, b, c = (frames_of(name) for name in "abc")
    assert a.shape == (5, 32, 48, 3) and np.array_equal(a, b)
    assert not np.array_equal(a[0], c[0])
    assert cli.main(["video2world", "--from_sidecar", "c.json", "--save_path", "png:d", "--quiet"]) == 0
    assert np.array_equal(frames_of("d"), c)
    assert json.loads((here / "c.json").read_text())["edit"]["path"] == str(here / "in.mkv")


def test_a_world_from_a_clip(here):
    """The counterpart of the official video to video script, with its flags."""
    strengths = ("--text2image_edit_strength", "0.4", "--video2world_edit_strength", "0.8")
    run = ("text2world", "--prompt", "snow", *SMALL, *strengths, "--input_video_path", "in.mkv", "--save_path", "png:a")
    assert cli.main(run) == 0 and frames_of("a").shape == (5, 32, 48, 3)
    request = json.loads((here / "a.json").read_text())["request"]
    assert (request["picture_edit_strength"], request["edit_strength"]) == (0.4, 0.8)


def test_a_picture_from_a_picture(here):
    run = ("text2image", "--prompt", "a", *SMALL[:2], *SMALL[4:], "--edit_strength", "0.5")
    assert cli.main([*run, "--input_path", "in.png", "--save_path", "a.png"]) == 0
    assert cli.main([*run, "--input_path", "in.mkv", "--save_path", "b.png"]) == 0
    assert (here / "a.png").read_bytes() != (here / "b.png").read_bytes()


@pytest.mark.parametrize(("arguments", "text"), [
    (("text2image", "--edit_strength", "0.5"), "what is to be edited is missing"),
    (("text2image", "--input_path", "in.png"), "it is what --edit_strength edits"),
    (("text2world", "--video2world_edit_strength", "0.5"), "what is to be edited is missing"),
    (("text2world", "--input_video_path", "in.mkv"), "it is what --edit_strength edits"),
    (("video2world", "--edit_strength", "0.5"), "what is to be edited is missing"),
    (("video2world", "--input_path", "in.mkv", "--edit_strength", "2"), "expected more than 0"),
    (("video2world", "--input_path", "in.mkv", "--edit_strength", "0.5", "--num_chunks", "2"), "one clip is edited"),
    (("video2world", "--input_video_path", "no.mp4", "--edit_strength", "0.5"), "no.mp4: no such file"),
    (("video2world", "--input_path", "in.png", "--num_chunks", "2", "--chunk_prompt", "a"), "one for each of 2"),
    (("video2world", "--input_path", "in.png", "--edit_strength", "1", "--num_conditional_frames", "5",
      "--num_frames", "9"), "expected 5 frame"),
])  # fmt: skip
def test_what_cannot_be_made_leaves_nothing(here, capsys, arguments, text):
    task, *rest = arguments
    size = (*SMALL[:2], *SMALL[4:]) if task == "text2image" else SMALL
    place = "o.png" if task == "text2image" else "o.mp4"
    assert cli.main([task, "--prompt", "a", *size, "--save_path", place, *rest]) == 2
    assert text in capsys.readouterr().err
    assert sorted(os.listdir()) == ["in.mkv", "in.png"]


def test_films_and_edits_in_a_batch(here):
    items = [
        {"prompt": "a", "output_video": "film.mp4", "input_video": "in.png", "num_chunks": 2,
         "chunk_prompts": ["a", "b"], "hand_over": "frames"},
        {"prompt": "a", "output_video": "edit.mp4", "input_video": "in.mkv", "edit_strength": 0.5},
    ]  # fmt: skip
    (here / "batch.json").write_text(json.dumps(items))
    assert cli.main(["video2world", *SMALL, "--batch_input_json", "batch.json"]) == 0
    counts = []
    for name in ("film.mp4", "edit.mp4"):
        with av.open(name) as file:
            counts.append(len(list(file.decode(video=0))))
    assert counts == [9, 5]
