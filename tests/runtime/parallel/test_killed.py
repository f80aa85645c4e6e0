"""A rank that is killed, in every phase of a run: all end with its name, and what was there stays as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from worldrt.engine.packaged import packaged
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle

from ...fakes.dying import PHASES
from .test_faults import DEADLINE_S, ended

DYING = Path(__file__).parents[2] / "fakes" / "dying.py"
BEFORE = b"what was there"
SMALL = ("--prompt", "car", "--steps", "3", "--width", "64", "--height", "48", "--disable_guardrail")


LATE = ("decode", "write", "finish")
"""Phases in which rank 0 needs nobody any more: it may be done before it hears of the other's end."""


def killed(folder: Path, phase: str, victim: int, *flags: str) -> str | None:
    """What the run said, None where it ended well; every process is gone when this returns."""
    log = folder / "log"
    shared = ("--num_gpus", "2", "--collective_timeout", "100")  # who is gone is noticed at once
    command = [sys.executable, str(DYING), str(log), phase, str(victim), *flags, *shared]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    told = json.loads(log.read_text())
    end = time.monotonic() + DEADLINE_S
    while not all(ended(pid) for pid in told["pids"]):
        assert time.monotonic() < end, "a process stayed behind"
        time.sleep(0.05)
    seconds = time.monotonic() - told["killed_s"]
    print(f"{phase}, rank {victim}: all gone {seconds:.1f} s after the kill")
    if victim and phase in LATE and done.returncode == 0:
        return None
    assert not victim or phase != "finish", "nobody was needed any more"
    assert done.returncode == (2 if victim else -signal.SIGKILL), done.stderr
    assert f"rank {victim} is gone: its process has ended" in done.stderr
    return done.stderr


def check_clip(folder: Path, phase: str, victim: int, *flags: str) -> None:
    place = folder / ("out.png" if "text2image" in flags else "out.mp4")
    place.write_bytes(BEFORE)
    said = killed(folder, phase, victim, *flags, "--save_path", str(place), "--overwrite")
    assert (place.read_bytes() == BEFORE) == (said is not None)
    assert place.with_suffix(".json").exists() == (said is None), "a result and its sidecar"
    if victim and said is not None:  # who is killed itself cannot clear up
        assert sorted(path.name for path in folder.iterdir()) == ["log", place.name]
        assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(("phase", "victim"), [("sampling", 1), ("decode", 0)])
def test_a_rank_that_is_killed_ends_the_run(tmp_path, phase, victim):
    bundle = str(packaged("nano"))
    check_clip(tmp_path, phase, victim, "text2image", "--bundle", bundle, "--backend", "null", "--quiet", *SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "window"])
def test_a_rank_may_be_killed_in_any_phase_of_a_clip(tmp_path, phase, victim):
    flags = ("text2world", "--bundle", str(packaged("nano")), "--num_frames", "5", "--quiet", *SMALL)
    check_clip(tmp_path, phase, victim, *flags)


@pytest.fixture(scope="module")
def world_bundle(tmp_path_factory) -> Path:
    """The nano Matrix as graphs, to be run by processes."""
    folder = tmp_path_factory.mktemp("world") / "nano-matrix"
    export_bundle(Options("nano-matrix"), folder, family="matrix", verified=False, torch_program=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "victim"), [("load", 1), ("text", 1), ("window", 1), ("window", 0), ("gather", 1)])
def test_a_live_world_ends_with_the_rank_that_is_lost(tmp_path, world_bundle, phase, victim):
    """What was recorded so far stays and can be read."""
    place = tmp_path / "live.mp4"
    size = ("--size", "64x48", "--base_steps", "2", "--guidance_scale", "2", "--fps", "16")
    said = killed(tmp_path, phase, victim, "world", "--bundle", str(world_bundle), "--to", str(place), *size, "--quiet")
    assert said is not None and "error: rank" in said
    if place.exists() and place.stat().st_size:
        with av.open(str(place)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 0
