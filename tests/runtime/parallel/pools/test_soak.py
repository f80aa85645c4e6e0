"""10,000 frames while workers are killed at random: `make soak`.

$SOAK_RESULTS names a folder for the figures; $SOAK_FRAMES and $SOAK_KILLS ask for more or fewer.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from worldrt.benchmarks.machine import identify
from worldrt.benchmarks.results import Table, report, write
from worldrt.benchmarks.watch import resident_bytes
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.parallel.ray_cluster import open_cluster

from ....conftest import shared_folder
from .mortal import kill, matrix, nano, pooled, session_of, toy

pytestmark = pytest.mark.slow
FRAMES, KILLS = int(os.environ.get("SOAK_FRAMES", "10000")), int(os.environ.get("SOAK_KILLS", "20"))
GROWTH_BYTES = 100 << 20


def frames_of(world, controls, at=lambda index: None):
    """A digest of each frame, and the seconds between two of them."""
    session, digests, gaps_s, last_s = session_of(world, controls), [], [], None
    for frame in session.frames():
        assert frame.index == len(digests)
        now_s = time.monotonic()
        if last_s is not None:
            gaps_s.append(now_s - last_s)
        digests.append(hashlib.sha256(frame.picture.tobytes()).digest())
        at(frame.index)
        last_s = now_s
        if len(digests) == FRAMES:
            break
    session.stop()
    return digests, gaps_s


@pytest.fixture(scope="session")
def matrix_bundle(tmp_path_factory):
    """The nano Matrix, exported."""
    folder = shared_folder(tmp_path_factory) / "nano-matrix"
    if not folder.exists():
        options = Options("nano-matrix")
        export_bundle(options, folder, family="matrix", verified=False, torch_program=False)
    return folder


@pytest.fixture
def make(model, request):
    """What makes the world."""
    if model == "toy":
        return toy
    return partial({"nano": nano, "matrix": matrix}[model], request.getfixturevalue(f"{model}_bundle"))


@pytest.mark.parametrize("model", ["toy", "nano", "matrix"])
def test_ten_thousand_frames_survive_twenty_kills(model, make):
    alone = make()
    s = alone.schedule
    count = s.given + s.slots + -(-FRAMES // (alone.frames_at_once // s.group)) + 8
    controls = ["N"] * count if model == "nano" else random_signal(count, 5)
    expected, _ = frames_of(alone, controls)
    rng = random.Random(11)
    when = set(rng.sample(range(FRAMES // 20, FRAMES - FRAMES // 20), KILLS))
    resident, victims = {}, []
    with open_cluster(6, memory_bytes=300 << 20) as cluster, pooled(cluster, make, window=3, spare=True) as world:
        stages = [world.denoise, *world.decode]

        def at(index):
            if index in (FRAMES // 10, FRAMES - 1):
                resident[index] = resident_bytes()
            if index in when:
                victims.append(rng.choice(stages))
                kill(victims[-1])

        began_s = time.monotonic()
        made, gaps_s = frames_of(world, controls, at)
        took_s = time.monotonic() - began_s
        losses = {stage.name: stage.losses for stage in stages}
    assert made == expected
    assert sum(losses.values()) >= len(victims) == KILLS
    grown = resident[FRAMES - 1] - resident[FRAMES // 10]
    assert grown < GROWTH_BYTES
    _write(model, took_s, gaps_s, losses, grown)


def _write(model, took_s, gaps_s, losses, grown):
    folder = os.environ.get("SOAK_RESULTS")
    if not folder:
        return
    gaps_s = sorted(gaps_s)
    cells = {
        "model": model,
        "frames": FRAMES,
        "kills": KILLS,
        "lost, denoise": losses["denoise"],
        "lost, decode": losses["decode"],
        "seconds": round(took_s, 1),
        "p50_gap_ms": round(1e3 * gaps_s[len(gaps_s) // 2], 2),
        "p99_gap_ms": round(1e3 * gaps_s[len(gaps_s) * 99 // 100], 2),
        "longest_gap_s": round(gaps_s[-1], 2),
        "grown_mib": round(grown / 2**20, 1),
    }
    table = Table("Frames while workers are killed", tuple(cells), (tuple(cells.values()),))
    settings = {"frames": FRAMES, "kills": KILLS, "window": 3, "checkpoint": 8, "spare": True}
    machine = replace(identify([]), command="SOAK_RESULTS=benchmarks/results make soak")
    write(report(f"pools-{model}", machine, settings, [table], {"gap_s": gaps_s[-200:]}), Path(folder))
