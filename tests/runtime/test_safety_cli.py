"""The guardrail through `trt-run`: exit codes, one line, and nothing written of what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from worldrt.engine.errors import BackendError, BlockedError
from worldrt.runtime import Request, safety_flags
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job
from worldrt.runtime.models import Models
from worldrt.runtime.progress import Plain
from worldrt.runtime.safety import open_guard
from worldrt.runtime.safety.places import find_places

from ..fakes.guardrail import make_guardrail

SMALL = ("--steps", "1", "--width", "48", "--height", "32", "--quiet")
CAR = ("--prompt", "a red car")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folders by what they find."""
    folder = tmp_path_factory.mktemp("guardrail")
    kinds = {"nothing": {}, "unsafe": {"unsafe": 2}, "faces": {"faces": True}}
    return {name: make_guardrail(folder / name, **kind) for name, kind in kinds.items()}


@pytest.fixture
def here(nano, nano_by_torch, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    monkeypatch.delenv("WORLDRT_GUARDRAIL", raising=False)
    return tmp_path / "work"


@pytest.fixture
def trained(here, nano):
    """The nano bundle under the name of a trained model."""
    folder = here.parent / "2B"
    shutil.copytree(nano.folder, folder)
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(manifest | {"variant": "2B"}))
    return ("--bundle", str(folder), "--checkpoint", str(nano.folder / manifest["weights"]["root"]))


def run(task, *arguments):
    frames = () if task == "text2image" else ("--num_frames", "5")
    return main([task, *SMALL, *frames, *map(str, arguments)])


def ends(capsys, code, said, task, *arguments):
    """The exit code, one line on stderr, and nothing new in the folder."""
    before = set(os.listdir("."))
    capsys.readouterr()
    assert run(task, *arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    start = {2: "error: ", 3: "blocked: "}[code]
    assert len(lines) == 1 and lines[0].startswith(start) and said in lines[0], lines
    assert set(os.listdir(".")) == before
    return lines[0]


def frames_of(folder):
    frames = []
    for path in sorted(folder.iterdir()):
        with av.open(str(path)) as container:
            frames.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    return np.stack(frames)


@pytest.mark.parametrize("place", ["out.mp4", "png:out", "null:"])
def test_a_prompt_with_a_blocked_word_makes_nothing(here, capsys, place):
    line = ends(capsys, 3, "word 4 (drugs)", "text2world", "--prompt", "a car of c0caine", "--save_path", place)
    assert "caine" not in line and "car" not in line


def test_each_prompt_of_a_film_is_looked_at(here, capsys):
    chunks = ("--num_chunks", "2", "--chunk_prompt", "a red car", "--chunk_prompt", "a bloodbath")
    ends(capsys, 3, "word 2 (violence)", "text2world", *CAR, *chunks, "--save_path", "out.mp4")


def test_words_of_the_user_are_refused_too(here, capsys):
    (here / "mine.txt").write_text("[rivals]\nred car\n")
    listed = ("--blocklist", "mine.txt", "--save_path", "out.mp4")
    ends(capsys, 3, "words 2 to 3 (rivals)", "text2world", *CAR, *listed)
    ends(capsys, 2, "cannot be read", "text2world", *CAR, "--blocklist", "absent.txt")


def test_nano_runs_with_the_blocklist_alone_and_without_it(here, weights, monkeypatch):
    monkeypatch.setenv("WORLDRT_GUARDRAIL", str(weights["unsafe"]))  # for models that were trained
    assert run("text2image", *CAR, "--save_path", "one.png") == 0
    assert run("text2image", "--prompt", "cocaine", "--disable_guardrail", "--save_path", "two.png") == 0
    assert [json.loads((here / f"{name}.json").read_text())["guardrail"] for name in ("one", "two")] == [True, False]


@pytest.mark.parametrize("task", ["text2image", "text2world"])
def test_unsafe_frames_make_nothing(here, weights, capsys, task):
    checked = ("--guardrail_path", weights["unsafe"], "--save_path", "png:out")
    ends(capsys, 3, "frame 0: the video model of the guardrail refuses it: violence", task, *CAR, *checked)


def test_an_unsafe_prompt_of_the_text_model_makes_nothing(here, weights, capsys):
    checked = ("--guardrail_path", weights["nothing"], "--save_path", "out.mp4")
    ends(capsys, 3, "text model", "text2world", "--prompt", "friends in a brawl", *checked)
    ends(capsys, 3, "could not check it", "text2world", "--prompt", "they mumble", *checked)


def test_faces_are_pixelated_and_other_videos_stay_as_they_are(here, weights):
    assert run("text2world", *CAR, "--save_path", "png:plain") == 0
    for name in ("nothing", "faces"):
        assert run("text2world", *CAR, "--guardrail_path", weights[name], "--save_path", f"png:{name}") == 0
    plain = frames_of(here / "plain")
    np.testing.assert_array_equal(frames_of(here / "nothing"), plain)
    assert (frames_of(here / "faces") != plain).any((1, 2, 3)).all()


def test_what_was_recorded_of_a_blocked_run_goes_too(here, weights, capsys):
    kept = ("--record_inputs", "kept", "--guardrail_path", weights["unsafe"], "--save_path", "out.mp4")
    (here / "kept").mkdir()
    ends(capsys, 3, "video model", "text2world", *CAR, *kept)
    assert not os.listdir("kept")


def test_a_trained_model_wants_the_weights_of_the_guardrail(here, trained, weights, capsys, monkeypatch):
    out = ("--save_path", "png:out")
    line = ends(capsys, 2, "guardrail: its weights are not given", "text2image", *CAR, *trained, *out)
    assert "--guardrail_path" in line and "--disable_guardrail" in line
    ends(capsys, 2, "no such folder", "text2image", *CAR, *trained, *out, "--guardrail_path", "absent")
    (here / "empty").mkdir()
    ends(capsys, 2, "Resnet50_Final.pth missing", "text2image", *CAR, *trained, *out, "--guardrail_path", "empty")
    monkeypatch.setenv("WORLDRT_GUARDRAIL", str(weights["unsafe"]))
    ends(capsys, 3, "video model", "text2image", *CAR, *trained, *out)
    monkeypatch.setenv("WORLDRT_GUARDRAIL", str(weights["nothing"]))
    assert run("text2image", *CAR, *trained, "--save_path", "one.png") == 0
    assert run("text2image", *CAR, *trained, "--save_path", "two.png", "--disable_guardrail") == 0


def test_damaged_weights_are_an_error_of_one_line_and_make_nothing(here, weights, capsys):
    shutil.copytree(weights["nothing"], here / "damaged")
    find_places(here / "damaged").classifier.write_bytes(b"PK\3\4 not a checkpoint")
    checked = ("--guardrail_path", "damaged", "--save_path", "out.mp4")
    ends(capsys, 2, "safety_filter.pt: cannot be read", "text2world", *CAR, *checked)


@pytest.mark.parametrize("name", ["torch", "transformers", "PIL"])
def test_a_library_that_is_missing_is_named_with_the_command_that_brings_it(weights, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=rf"{name} cannot be imported.*pip install 'worldrt\[guardrail\]'"):
        open_guard(weights["nothing"])


def test_flags_without_effect_are_refused(here, capsys):
    for flag in ("--blocklist", "--guardrail_path"):
        ends(capsys, 2, "no effect with --disable_guardrail", "text2image", *CAR, "--disable_guardrail", flag, "x")


def test_a_batch_makes_the_rest_of_what_is_blocked(here, capsys):
    prompts = ["a red car", "a school shooting", "a blue car"]
    items = [{"prompt": text, "output_video": f"{i}.mp4"} for i, text in enumerate(prompts)]
    (here / "batch.json").write_text(json.dumps(items))
    assert run("text2world", "--batch_input_json", "batch.json", "--json") == 3
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["made", "blocked", "made"]
    assert "words 2 to 3 (violence)" in rows[1]["error"] and "shooting" not in rows[1]["error"]
    assert sorted(os.listdir(".")) == ["0.json", "0.mp4", "2.json", "2.mp4", "batch.json"]


def test_a_guardrail_that_checks_on_the_cpu_of_a_run_on_a_gpu_is_said(nano, weights, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = ["--guardrail_path", str(weights["nothing"])]
    models = SimpleNamespace(bundles=[], execution=SimpleNamespace(device="cuda:0", offload=False))
    guard = safety_flags.make(build_parser().parse_args(["text2image", *given]), models)
    assert guard.has_models and "torch sees no GPU" in capsys.readouterr().err
    guard.check_text("a kitten")


def test_offload_works_where_there_is_no_gpu(here, weights):
    checked = ("--guardrail_path", weights["nothing"], "--offload_guardrail")
    assert run("text2image", *CAR, *checked, "--save_path", "out.png") == 0


class Writer:
    """A refiner that writes what it is told to."""

    def __init__(self, text):
        self.text = text

    def refine(self, prompt, frames):
        return self.text


@pytest.mark.parametrize("task", ["text2world", "video2world"])
def test_a_refined_prompt_is_refused_and_makes_nothing(here, nano, task):
    (here / "in").mkdir()
    assert run("text2image", *CAR, "--save_path", "in/a.png") == 0
    request = Request("a red car", steps=1, num_frames=5, width=48, height=32)
    job = Job(request, str(here / "out" / "a.mp4"), here / "in" / "a.png" if task == "video2world" else None)
    guard = open_guard(models=False)
    for text, safe in (("a red car on cocaine", False), ("a long red car", True)):
        generator = Generator(task, Models.open([nano.folder]), guard=guard, refiner=Writer(text))
        if safe:
            generator.run(job, Plain(), overwrite=False)
            assert json.loads((here / "out" / "a.json").read_text())["refined_prompt"] == text
            continue
        with pytest.raises(BlockedError, match=r"refined prompt: the blocklist .* word 5 \(drugs\)"):
            generator.run(job, Plain(), overwrite=False)
        assert not list((here / "out").iterdir())


def test_best_of_n_is_looked_at_too(here, capsys):
    """Its videos are made as all others are; where all are refused, so is the run."""
    assert run("text2image", *CAR, "--save_path", "a.png") == 0
    critic = ("--critic_url", "http://127.0.0.1:9", "--critic_model", "none")
    asked = ("--prompt", "a genocide", "--input_path", "a.png", "--save_path", "best", *critic)
    capsys.readouterr()
    assert run("bestofn", *asked) == 3
    assert "blocked: prompt: the blocklist" in capsys.readouterr().err
    assert not [path for path in here.rglob("*") if path.suffix == ".mp4"]
