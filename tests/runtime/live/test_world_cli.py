"""`trt-run world` from flags to files, with the nano Matrix."""

from __future__ import annotations

import io
import json
import os
import termios
from dataclasses import replace

import av
import pytest

from worldrt.engine.bundle import read_manifest, write_manifest
from worldrt.engine.errors import InputError
from worldrt.runtime import safety_flags, world_flags
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.live.world import World
from worldrt.runtime.world_opening import find

from .test_guarded import Watchful


@pytest.fixture
def run(nano_matrix, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; exit code, and what it printed to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def call(*flags):
        code = main(["world", "--bundle", str(nano_matrix), "--quiet", *flags])
        return code, *capsys.readouterr()

    return call


def frames_in(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_world_of_a_length_goes_into_a_file_and_again_from_its_recording(run, tmp_path):
    flags = ("--length", "1", "--control_signal", "D,D,DL", "--control_seed", "7")
    code, out, err = run(*flags, "--save_path", "w.mp4", "--record", "w.jsonl")
    assert code == 0, err
    assert "16 frames, 48x32" in out
    first = frames_in(tmp_path / "w.mp4")
    assert len(first) == 16
    assert run("--replay", "w.jsonl", "--save_path", "again.mp4")[0] == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "w.mp4").read_bytes()
    code, _, err = run(*flags, "--save_path", "w.mp4")
    assert code == 2 and "w.mp4" in err


def test_several_live_places_get_every_frame_and_the_result_says_how_late_they_were(run, tmp_path):
    code, out, err = run("--length", "1", "--to", "live.mp4", "--to", "null:", "--fps", "200", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["frames"] == 16 and len(result["states"]) == 3
    assert {"bound to decoded", "hand-over and decode"} <= result["latency_ms"].keys()
    assert len(frames_in(tmp_path / "live.mp4")) >= 12  # it may have been too slow for some


@pytest.mark.parametrize(
    "flags, text",
    (
        (("--length", "0"), "--length: expected 1"),
        (("--length", "1", "--control_signal", "D,UP"), "expected one of D, DL"),
        (("--save_path", "w.mp4", "--to", "null:"), "give --length"),
        (("--control_signal", "D"), "give --length"),
        (("--length", "1", "--size", "48"), "--size: expected WIDTHxHEIGHT"),
        (("--length", "1", "--size", "50x32"), "multiples of 16"),
        (("--length", "1", "--seed", "-1"), "--seed: expected 0"),
        (("--length", "1", "--fps", "0"), "fps: expected more than 0"),
        (("--length", "1", "--replay", "w.jsonl"), "--length: the recording"),
        (("--replay", "missing.jsonl"), "cannot be read"),
        (("--length", "1", "--init_video", "missing.mp4"), "missing.mp4"),
        (("--length", "1", "--to", "ftp://x"), "ftp://"),
        (("--length", "1", "--guidance_scale", "nan"), "guidance scale"),
        (("--length", "1", "--natten"), "--natten"),
        (("--commit_level", "9"), "commit_level: expected 1 to 4"),
        (("--keys",), "no terminal"),
        (("--keys", "--length", "1"), "--keys: a world of --length"),
    ),
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, flags, text):
    code, _, err = run(*flags)
    assert code == 2 and text in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_is_blocked_makes_nothing(run, tmp_path):
    (tmp_path / "words.txt").write_text("dragon\n")
    code, _, err = run("--length", "1", "--prompt", "a dragon", "--blocklist", "words.txt", "--save_path", "w.mp4")
    assert code == 3 and err.startswith("blocked:")
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


def test_a_frame_that_is_blocked_leaves_no_file_and_ends_a_live_one_before_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(safety_flags, "make", lambda args, models: Watchful(refused=9))
    code, _, err = run("--length", "1", "--save_path", "w.mp4")
    assert code == 3 and err.startswith("blocked: frame 9") and not list(tmp_path.iterdir())
    code, _, err = run("--length", "1", "--to", "w.mp4", "--fps", "200")
    assert code == 3 and 0 < len(frames_in(tmp_path / "w.mp4")) <= 8


def test_a_world_is_steered_from_the_terminal_until_q(run, tmp_path, monkeypatch):
    person, program = os.openpty()
    before = termios.tcgetattr(program)
    world, typed = World.condition, []

    def condition(self, control):
        if len(typed) == 0:
            typed.append(os.write(person, b"a"))
        if control == "DL" and len(typed) == 1:
            typed.append(os.write(person, b"q"))
        return world(self, control)

    monkeypatch.setattr(World, "condition", condition)
    with os.fdopen(program, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        code, _, err = run("--keys", "--fps", "50", "--record", "w.jsonl")
    assert code == 0, err
    assert termios.tcgetattr(program) == before and '"DL"' in (tmp_path / "w.jsonl").read_text()
    os.close(person)
    os.close(program)


def test_the_only_bundle_of_a_world_is_found_by_itself(nano_matrix, tmp_path, monkeypatch, capsys):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "nano-matrix").symlink_to(nano_matrix)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(tmp_path / "alone"))
    monkeypatch.chdir(tmp_path)
    for name in ((), ("--model", "nano"), ("--model", "nano-matrix")):
        assert main(["world", *name, "--length", "1", "--save_path", "null:", "--quiet"]) == 0
    assert main(["world", "--model", "14B", "--length", "1"]) == 2
    assert "trt-export --model nano-matrix" in capsys.readouterr().err


def test_a_part_of_a_name_means_the_matrix_where_several_worlds_have_it(nano_matrix, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDRT_BUNDLES", str(tmp_path))
    (tmp_path / "nano-matrix").symlink_to(nano_matrix)
    other = tmp_path / "nano-opendwm"
    other.mkdir()
    write_manifest(other, replace(read_manifest(nano_matrix), family="opendwm", variant="nano-opendwm"))
    assert find("nano").name == "nano-matrix"
    assert find("nano", "opendwm").name == "nano-opendwm"
    with pytest.raises(InputError, match="several bundles of worlds"):
        find(None)


def test_the_packaged_world_is_taken_where_there_is_no_other(nano_matrix, tmp_path, monkeypatch):
    monkeypatch.setattr("worldrt.engine.packaged.PLACE", tmp_path / "models")
    monkeypatch.setenv("WORLDRT_BUNDLES", str(tmp_path / "bundles"))
    own, mine = tmp_path / "models" / "nano-matrix", tmp_path / "bundles" / "mine"
    own.parent.mkdir()
    mine.parent.mkdir()
    own.symlink_to(nano_matrix)
    assert find(None) == find("nano") == find("nano-matrix", "matrix") == own
    with pytest.raises(InputError, match="trt-export --model nano-opendwm"):
        find(None, "opendwm")
    mine.symlink_to(nano_matrix)
    assert find(None) == find("nano-matrix") == mine


def test_a_world_that_goes_into_a_file_alone_needs_no_length(tmp_path):
    for flags, length in (("--save_path w.mp4", 4), ("--save_path w.mp4 --length 2", 2), ("", None)):
        args = build_parser().parse_args(["world", *flags.split()])
        world_flags.check(args)
        assert args.length == length
