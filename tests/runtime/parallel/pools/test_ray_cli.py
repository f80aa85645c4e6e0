"""`trt-run` on a cluster of Ray of its own: the results of one process, and nothing that stays behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RUN = [sys.executable, "-m", "worldrt.runtime"]
SMALL = ["--steps", "2", "--num_frames", "5", "--width", "64", "--height", "48", "--threads", "1"]
DEADLINE_S = 1800
ITEMS = ("A red car", "A boat", "A tree", " ")


def command(folder, bundle, *more):
    """A batch into a folder; its last item has no prompt."""
    items = [{"prompt": p, "output_video": str(folder / f"{i}.mp4"), "seed": i} for i, p in enumerate(ITEMS)]
    folder.mkdir()
    (folder / "list.json").write_text(json.dumps(items))
    given = ["--bundle", str(bundle), "--batch_input_json", str(folder / "list.json"), "--json"]
    return [*RUN, "text2world", *given, *SMALL, *more]


def of_ray(folder):
    """Processes that have a folder among their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue  # it ended
    return found


def test_a_batch_on_ray_has_the_results_of_one_process(nano_bundle, tmp_path):
    runs = {}
    for name, more in (("alone", ()), ("ray", ("--ray", "--num_gpus", "2"))):
        done = subprocess.run(command(tmp_path / name, nano_bundle, *more), capture_output=True, timeout=DEADLINE_S)
        assert done.returncode == 2, done.stderr.decode()  # of the item without a prompt
        runs[name] = json.loads(done.stdout)
    statuses = [[item["status"] for item in run] for run in runs.values()]
    assert statuses == [["made", "made", "made", "failed"]] * 2
    for i in range(3):
        alone, ray = (tmp_path / name / f"{i}.mp4" for name in ("alone", "ray"))
        assert alone.read_bytes() == ray.read_bytes()
        notes = [json.loads(path.with_suffix(".json").read_text()) for path in (alone, ray)]
        for note in notes:
            note.pop("timings_s")
        assert notes[0] == notes[1]


def test_an_interruption_leaves_no_process_and_no_file(nano_bundle, tmp_path):
    scratch = Path("/tmp") / f"wr{os.getpid()}"  # the names of sockets are to be short
    scratch.mkdir()
    folder = tmp_path / "out"
    run = subprocess.Popen(
        command(folder, nano_bundle, "--ray", "--num_gpus", "2"),
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + DEADLINE_S
    while len(of_ray(scratch)) < 3:  # Ray is on its way
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 130 and b"interrupted" in said
    while of_ray(scratch):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [path.name for path in folder.iterdir()] == ["list.json"]
    assert not list(scratch.glob("worldrt-ray-*"))
    shutil.rmtree(scratch)
