"""Result files: what they hold, that they come back, that they say where they were measured."""

import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from worldrt.benchmarks import machine as machines
from worldrt.benchmarks.render import markdown
from worldrt.benchmarks.results import Table, read, report, write
from worldrt.benchmarks.scrub import clean
from worldrt.engine.errors import InputError

TABLE = Table(
    "Speed", ("stage", "min_ms", "of x"), (("text", 1.23456, None), ("a|b", 1234567.0, 0.5), ("no", 0, 1)), ("Why.",)
)


@pytest.fixture(scope="module")
def machine():
    return machines.identify(["cpu", "--rounds", "5"])


def test_the_machine_is_this_one(machine):
    assert machine.command == "trt-bench cpu --rounds 5"
    assert machine.python == platform.python_version()
    assert (machine.packages["numpy"], machine.packages["onnxruntime"]) == (np.__version__, onnxruntime.__version__)
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.ram_bytes > 1e8 and machine.cpu
    assert machine.commit is None or len(machine.commit) == 40


def test_a_result_comes_back_as_it_was(machine, tmp_path):
    made = report("cpu", machine, {"steps": 3}, [TABLE], {"worldrt/whole_s": [0.5, 0.25]})
    path = write(made, tmp_path)
    assert path.name == made.file_name and path.name.endswith("-cpu.json") and machine.slug in path.name
    assert read(path) == made
    assert json.loads(path.read_text())["machine"]["cpu"] == machine.cpu


@pytest.mark.parametrize("change", [{"schema": 99}, {"tables": 1}, {"nonsense": 0}])
def test_a_foreign_file_is_refused(machine, tmp_path, change):
    path = write(report("cpu", machine, {}, [TABLE]), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=path.name):
        read(path)


def test_what_is_not_a_number_is_not_written(machine, tmp_path):
    with pytest.raises(ValueError):
        write(report("cpu", machine, {}, [TABLE], {"x_s": [float("nan")]}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_rendering(machine):
    lines = markdown(report("cpu", replace(machine, commit="0123456789abcdef", dirty=True), {"steps": 3}, [TABLE]))
    assert "| stage | min_ms | of x |".replace(" ", "") in lines.replace(" ", "")
    rows = [line for line in lines.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1, "columns are aligned"
    assert [cell.strip() for cell in rows[2].strip("|").split("|")] == ["text", "1.23", "-"]
    assert "1.23e+06" in rows[3] and "a\\|b" in rows[3]
    assert "0123456789ab with uncommitted changes" in lines and "Why." in lines and "steps 3" in lines


def test_no_folder_of_the_machine_is_written(machine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, other = str(tmp_path / "out" / "nano"), "/home/someone/secret place/x"
    command = f"trt-bench cpu --bundle {here} --output /srv/results/today --note ~/notes/a.txt"
    table = Table(f"Of {here}", ("why", "n"), (("/opt/lib/python3/onnx.py:3: no '/mnt/disk/w.bin'", 1),), (other,))
    changed = replace(machine, command=command)
    made = report("cpu", changed, {"bundle": Path(here), "n": 3}, [table], {}, note="see https://a.org/b/c, 3 GB/s")
    text = write(made, tmp_path).read_text()
    assert not any(part in text for part in ("/home", "/srv", "/opt", "/mnt", "~", str(tmp_path)))
    assert made.machine.command == "trt-bench cpu --bundle out/nano --output today --note a.txt"
    assert made.tables[0].title == "Of out/nano" and made.tables[0].rows[0][0] == "onnx.py:3: no 'w.bin'"
    assert made.settings == {"bundle": "out/nano", "n": 3} and made.note == "see https://a.org/b/c, 3 GB/s"


def test_committed_results_hold_no_folder_of_a_machine():
    for path in sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("2*.json")):
        made = read(path)
        assert clean(made) == made, path.name
