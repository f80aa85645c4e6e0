"""`trt-run ... --num_gpus 2` on CPUs: by itself and under torchrun, against one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.parallel import launch

ALONE = [sys.executable, "-m", "worldrt.runtime"]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
    "-m",
    "worldrt.runtime",
]
SMALL = [
    "--prompt",
    "car",
    "--steps",
    "2",
    "--num_frames",
    "5",
    "--width",
    "64",
    "--height",
    "48",
    "--collective_timeout",
    "100",
]
DEADLINE_S = 300


def trt_run(start: list[str], bundle: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [*start, "text2world", "--bundle", str(bundle), *SMALL, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)


def made(done: subprocess.CompletedProcess[str], place: Path) -> bytes:
    assert done.returncode == 0, done.stderr
    return place.read_bytes()


@pytest.fixture(scope="module")
def of_one(nano_bundle, tmp_path_factory):
    place = tmp_path_factory.mktemp("one") / "out.mp4"
    return made(trt_run(ALONE, nano_bundle, "--save_path", str(place)), place)


def test_two_processes_make_the_video_of_one(nano_bundle, of_one, tmp_path):
    place = tmp_path / "out.mp4"
    done = trt_run(ALONE, nano_bundle, "--num_gpus", "2", "--json", "--save_path", str(place))
    assert made(done, place) == of_one
    assert json.loads(done.stdout)["frames"] == 5  # rank 0 prints, and nobody else


@pytest.mark.slow
def test_under_torchrun_too(nano_bundle, of_one, tmp_path):
    place = tmp_path / "out.mp4"
    done = trt_run(TORCHRUN, nano_bundle, "--num_gpus", "2", "--json", "--save_path", str(place))
    assert made(done, place) == of_one
    assert json.loads(done.stdout)["frames"] == 5


def test_a_port_that_processes_are_not_told_is_refused(monkeypatch):
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--standalone"):
        launch._store(launch.Place(1, 2, 1, 2, own=False))


@pytest.mark.slow
def test_torchrun_and_the_flag_must_agree(nano_bundle, tmp_path):
    done = trt_run(TORCHRUN, nano_bundle, "--num_gpus", "4", "--save_path", str(tmp_path / "out.mp4"))
    assert done.returncode != 0
    assert "torchrun has started 2 process(es); say --num_gpus 2" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_mistake_is_said_once_and_leaves_nothing(nano_bundle, tmp_path):
    """What a whole graph cannot do is found by all ranks, and told by the first."""
    done = trt_run(ALONE, nano_bundle, "--num_gpus", "4", "--save_path", str(tmp_path / "out.mp4"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and "--form block" in line
    assert not list(tmp_path.iterdir())
