"""The refiner: what is asked, what of an answer is used, and the run that it is part of."""

import json
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.cli import main
from worldrt.runtime.reason.refine import Refiner, cleaned, shortened
from worldrt.runtime.reason.words import MOST_BYTES, instruction

from ..fakes import qwen
from ..fakes.endpoint import Reply, completion, serve

FULLER = "A red car drives along a coast road. The sea is calm. The camera follows it."


class Says:
    """A chat that answers the same each time, and keeps what it was asked."""

    name = "says"

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def ask(self, question, sampling, count=1, progress=None):
        self.asked.append((question, sampling))
        return [self.answer] * count

    def unload(self):
        pass


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (FULLER, FULLER), (f'"{FULLER}"', FULLER), (f"\n **Refined prompt:** {FULLER}\n", FULLER),
        (f"<think>What does he want? A car.</think>\n<answer>{FULLER}</answer>", FULLER),
        ("“The driver’s café” — naïve…", '"The driver\'s cafe" - naive...'),
        ("A\tred\x07 car\n\ndrives.", "A red car drives."), ("# A red car drives", "A red car drives"),
        ('"Go!" says a sign on "Main Street"', '"Go!" says a sign on "Main Street"'),
        ("", ""), ("   \n", ""), ("No.", ""), ("<b></b>", ""),
        ("红色汽车沿着海岸公路行驶,大海很平静。", ""), ("Красная машина едет", ""),
    ],
)  # fmt: skip
def test_an_answer_becomes_one_plain_paragraph(answer, text):
    assert cleaned(answer) == text


def test_an_answer_that_is_too_long_ends_at_a_sentence():
    assert shortened(FULLER, lambda text: len(text) < 60) == "A red car drives along a coast road. The sea is calm."
    assert shortened(FULLER, lambda text: False) == ""
    assert shortened("word " * 5000, lambda text: True) == ""


def test_the_model_is_shown_the_frames_and_asked_for_512_tokens():
    chat, frames = Says(FULLER), np.zeros((5, 8, 8, 3), np.uint8)
    assert Refiner(chat).refine("a red car", frames) == FULLER
    ((question, sampling),) = chat.asked
    assert question.text == "a red car" and question.frames is frames and "80 to 100 words" in question.system
    assert sampling.max_tokens == 512 and sampling.ascii_only and sampling.temperature == 0


def test_the_same_prompt_and_frames_are_asked_about_once():
    chat, frames = Says(FULLER), np.zeros((1, 8, 8, 3), np.uint8)
    refiner = Refiner(chat)
    for prompt, shown in (("a", frames), ("a", frames.copy()), ("b", frames), ("b", frames + 1)):
        refiner.refine(prompt, shown)
    assert len(chat.asked) == 3


def test_an_answer_that_cannot_be_used_leaves_the_users_prompt_and_warns():
    warnings = []
    assert Refiner(Says("…"), warn=warnings.append).refine("a red car", None) == "a red car"
    assert Refiner(Says(FULLER), None, lambda text: False, warnings.append).refine("a red car", None) == "a red car"
    assert len(warnings) == 2


def test_the_users_own_instruction_is_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("Sag es auf Englisch.\n", encoding="utf-8")
    chat = Says(FULLER)
    Refiner(chat, tmp_path / "mine.txt").refine("a", None)
    assert chat.asked[0][0].system == "Sag es auf Englisch."


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe", b"x" * (MOST_BYTES + 1)])
def test_files_that_are_no_instruction_are_refused(tmp_path, data):
    (tmp_path / "bad.txt").write_bytes(data)
    with pytest.raises(InputError):
        instruction("critic", tmp_path / "bad.txt")
    with pytest.raises(InputError, match="No such file"):
        instruction("critic", tmp_path / "absent.txt")


@pytest.fixture
def work(nano, nano_by_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def fake(work):
    with serve() as server:
        server.replies = [Reply(completion(FULLER))]
        yield server


SMALL = ("--prompt", "a red car", "--steps", "2", "--num_frames", "5", "--width", "48", "--height", "32", "--quiet")


def run(*arguments):
    return main([str(argument) for argument in arguments])


def named(fake):
    return "--refiner_url", fake.url, "--refiner_model", "m"


def test_text2world_shows_the_picture_and_keeps_the_refined_prompt(fake):
    assert run("text2world", *SMALL, "--save_path", "plain.mp4") == 0 and not fake.asked
    assert run("text2world", *SMALL, *named(fake), "--save_path", "refined.mp4") == 0
    content = fake.asked[0]["messages"][1]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"] and content[1]["text"] == "a red car"
    facts = {name: json.loads(Path(f"{name}.json").read_text()) for name in ("plain", "refined")}
    assert facts["refined"]["refined_prompt"] == FULLER and "refined_prompt" not in facts["plain"]
    assert facts["refined"]["request"]["prompt"] == "a red car"
    assert Path("plain.mp4").read_bytes() != Path("refined.mp4").read_bytes()


def test_a_refined_run_is_repeated_without_the_refiner(fake, monkeypatch):
    assert run("text2world", *SMALL, *named(fake), "--save_path", "png:one") == 0
    monkeypatch.setenv("WORLDRT_REFINER_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("WORLDRT_REFINER_MODEL", "m")
    assert run("text2world", "--from_sidecar", "one.json", "--save_path", "png:two", "--quiet") == 0
    one, two = ([path.read_bytes() for path in sorted(Path(name).iterdir())] for name in ("one", "two"))
    assert one == two and len(fake.asked) == 1


def test_video2world_shows_the_given_frames_and_the_environment_names_the_model(fake, monkeypatch):
    assert run("text2image", "--prompt", "x", "--steps", "1", "--save_path", "in.png", "--quiet") == 0
    monkeypatch.setenv("WORLDRT_REFINER_URL", fake.url)
    monkeypatch.setenv("WORLDRT_REFINER_MODEL", "m")
    arguments = ("video2world", *SMALL, "--input_path", "in.png")
    assert run(*arguments, "--save_path", "a.mp4") == 0 and len(fake.asked) == 1
    assert run(*arguments, "--save_path", "b.mp4", "--disable_prompt_refiner") == 0 and len(fake.asked) == 1
    assert json.loads(Path("a.json").read_text())["refined_prompt"] == FULLER


def test_a_refined_prompt_that_the_text_encoder_cannot_read_whole_is_cut_at_a_sentence(fake):
    fake.replies = [Reply(completion(f"{FULLER} " + "An endless row of words " * 300 + "."))]
    assert run("text2world", *SMALL, *named(fake), "--save_path", "a.mp4") == 0
    assert json.loads(Path("a.json").read_text())["refined_prompt"] == FULLER


def test_a_refiner_that_is_down_leaves_nothing(work, capsys):
    with serve() as server:
        pass
    assert run("text2world", *SMALL, *named(server), "--save_path", "out/a.mp4") == 2
    assert "cannot be reached" in capsys.readouterr().err and not list(Path("out").glob("**/*"))


def test_a_model_of_a_folder_refines(work):
    qwen.make(work / "tiny")
    options = ("--refiner_path", "tiny", "--refiner_device", "cpu", "--offload_prompt_refiner")
    assert run("text2world", *SMALL, *options, "--save_path", "a.mp4") == 0
    assert json.loads(Path("a.json").read_text())["refined_prompt"].isascii()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--refiner_path", "absent"), "expected the folder of a model"),
        (("--refiner_url", "http://x/v1"), "--refiner_model"),
        (("--refiner_url", "x", "--refiner_model", "m"), "expected the URL of a server"),
        (("--refiner_url", "http://x", "--refiner_path", "y"), "give one of them"),
        (("--refiner_url", "http://x", "--refiner_model", "m", "--refiner_timeout", "0"), "--refiner_timeout"),
        (("--refiner_url", "http://x", "--refiner_model", "m", "--refiner_frames", "0"), "--refiner_frames"),
        (("--refiner_prompt", "x.txt"), "no refiner"),
        (("--refiner_url", "http://x", "--refiner_model", "m", "--refiner_prompt", "x.txt"), "x.txt: cannot be read"),
    ],
)
def test_flags_that_cannot_be_used_are_said_before_any_work(work, capsys, flags, text):
    assert run("text2world", *SMALL, *flags, "--save_path", "a.mp4") == 2
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1 and not list(work.iterdir())
