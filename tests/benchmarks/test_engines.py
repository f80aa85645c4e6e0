"""What is measured of engine builds: all processes, random weights of the true shape, plans found again."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from worldrt.benchmarks import checkpoints, engines, processes
from worldrt.benchmarks.cli import main
from worldrt.benchmarks.processes import Cost, family, run_cli
from worldrt.benchmarks.results import read
from worldrt.engine.errors import BackendError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.weights import WeightStore
from worldrt.export.fabricate import write_sparse

MB = 2**20
GRANDCHILD = """
import subprocess, sys
work = "import time; held = bytearray(b'1' * (200 << 20)); time.sleep(1.5)"
subprocess.run([sys.executable, "-c", work], start_new_session=True, check=True)
print("made", sys.argv[1])
"""


def test_a_builder_in_a_session_of_its_own_is_counted(monkeypatch):
    monkeypatch.setattr(processes, "CALL", GRANDCHILD)
    cost = run_cli("export", ["it"])
    assert 200 * MB < cost.peak_bytes < 400 * MB
    assert 1.5 < cost.wall_s < 30 and cost.output == "made it\n"


def test_a_command_that_fails_says_its_last_line(monkeypatch):
    monkeypatch.setattr(processes, "CALL", "import sys; print('out'); sys.exit('error: no such thing')")
    with pytest.raises(BackendError, match="error: no such thing"):
        run_cli("export", [])


def test_a_family_has_its_head():
    import os

    members = family(os.getpid())
    assert os.getpid() in members and members[os.getpid()] > 0


def store_of(folder: Path, dtype: str = "bfloat16") -> WeightStore:
    path = folder / "model.safetensors"
    write_sparse(path, {"a": (300, 70), "b": (300, 70), "c": (5_000_000,)}, dtype)
    file = SafetensorsFile.open(path)
    return WeightStore(folder, dict.fromkeys(file.tensors, file))


def values(store: WeightStore, key: str) -> np.ndarray:
    raw = store[key].numpy()
    return raw if raw.dtype == np.float32 else (raw.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_random_weights_have_a_scale_and_no_two_are_equal(tmp_path, dtype):
    """Equal weights would be kept once in a plan, and zeros are not multiplied as other numbers are."""
    checkpoints.randomise(store_of(tmp_path, dtype))
    store = store_of_again(tmp_path)
    for key in store.owner:
        assert 0.019 < values(store, key).std() < 0.021 and abs(values(store, key).mean()) < 1e-3
    assert not np.array_equal(values(store, "a"), values(store, "b"))
    assert np.count_nonzero(values(store, "c")[-1000:]) > 990, "written to its end"


def test_only_the_named_weights_are_written(tmp_path):
    checkpoints.randomise(store_of(tmp_path), ["b"])
    store = store_of_again(tmp_path)
    assert values(store, "b").any() and not values(store, "a").any() and not values(store, "c").any()


def store_of_again(folder: Path) -> WeightStore:
    file = SafetensorsFile.open(folder / "model.safetensors")
    return WeightStore(folder, dict.fromkeys(file.tensors, file))


@pytest.fixture
def commands(monkeypatch):
    """Commands instead of being run answer as `trt-export --json` does: two plans, one of them of two graphs."""
    given = []

    def answer(module, arguments, environment=None):
        given.append((list(arguments), environment))
        hit = "--bundle" in arguments
        output = Path(arguments[arguments.index("--output") + 1]) if not hit else None
        if output is not None:
            output.mkdir()
            (output / "graph.onnx").write_bytes(b"o" * MB)
            plans = Path(environment["WORLDRT_PLAN_CACHE"])
            plans.mkdir(exist_ok=True)
            (plans / "one.plan").write_bytes(b"p" * (2 * MB))
        build = {"seconds": 1.5, "peak_rss_bytes": 300 * MB}
        plan = {"plan_bytes": MB, "seconds": 0.25 if hit else 2.0, "hit": hit, "build": build}
        made = [plan | {"digest": d, "graph": g} for d, g in (("a", "x"), ("b", "y"), ("b", "z"))]
        report = {"seconds": 5.0, "engines": made}
        return Cost(9.0 - len(given), 3.0, 400 * MB, json.dumps(report))

    monkeypatch.setattr(engines, "run_cli", answer)
    monkeypatch.setattr(checkpoints, "make", lambda size, root, task: root.mkdir())
    return given


def test_the_row_of_a_case(commands, tmp_path):
    (table,), samples = engines.run(["14B-inputs"], "tensorrt_rtx", "12.0", 2, tmp_path, lambda text: None)
    (cells,) = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert cells["case"] == "14B-inputs" and cells["plans"] == 2
    assert cells["wall_s"] == 6.0, "the faster of two rounds"
    assert (cells["export_s"], cells["build_s"], cells["longest_s"]) == (5.0, 4.0, 2.0)
    assert (cells["peak_MiB"], cells["builder_MiB"], cells["plans_MiB"], cells["files_MiB"]) == (400, 300, 2, 3)
    assert cells["hits_s"] == 0.5 and cells["again_s"] == 5.0
    assert samples["14B-inputs/wall_s"] == [8.0, 6.0] and len(samples["14B-inputs/hit_s"]) == 4
    first, environment = commands[0]
    assert first[first.index("--compute_capability") + 1] == "12.0"
    assert first[first.index("--block_weights") + 1] == "inputs" and "--form" in first
    assert Path(environment["WORLDRT_PLAN_CACHE"]).parent == tmp_path
    assert not list(tmp_path.iterdir()), "nothing large is left"


def test_a_plan_that_is_not_found_again_is_no_result(commands, tmp_path, monkeypatch):
    answer = engines.run_cli
    monkeypatch.setattr(engines, "run_cli", lambda *a: Cost(1, 1, 1, answer(*a).output.replace("true", "false")))
    with pytest.raises(AssertionError, match="built twice"):
        engines.run(["nano-fp16"], "tensorrt_rtx", "8.9", 1, tmp_path, lambda text: None)


def test_unknown_cases_are_a_mistake(capsys):
    assert main(["engines", "--cases", "70B"]) == 2
    assert "--cases: no 70B; there are nano-fp16" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.tensorrt
def test_nano_is_compiled_and_measured(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    start = time.monotonic()
    arguments = ["--cases", "nano-bf16", "--compute_capability", "12.0", "--scratch", str(tmp_path / "scratch")]
    (tmp_path / "scratch").mkdir()
    assert main(["engines", *arguments, "--output", str(tmp_path), "--quiet"]) == 0
    assert time.monotonic() - start < 300
    (path,) = tmp_path.glob("*-engines.json")
    (table,) = read(path).tables
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["plans"] == 7 and row["plans_MiB"] > 1 and row["again_s"] < row["wall_s"]
    assert row["hits_s"] <= 1.0
