"""The suite of a GPU machine, dry on a CPU: parts fail, hang and crash alone, and what they made is kept."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.benchmarks.cli import main
from worldrt.benchmarks.gpu import _engines, backend, block, build, child, model, suite
from worldrt.benchmarks.gpu.base import CheckError, MissingError, Setup
from worldrt.benchmarks.gpu.suite import Step, Suite
from worldrt.benchmarks.results import FAILED, Table, read
from worldrt.engine import plugin
from worldrt.engine.packaged import packaged
from worldrt.runtime.compare import Comparison

HOUSE = Path(__file__).parents[2]
MADE = {"tables": [{"title": "half", "columns": ["a"], "rows": [[1]]}], "samples": {"x_s": [1.0]}}
GOOD = "write('passed')"


@pytest.fixture
def steps(monkeypatch):
    """Parts that are lines of Python: `write(outcome)` writes a result."""

    def make(limit_s=20.0, bundles=False, **parts):
        def command(step, setup, result):
            write = (
                f"write = lambda o: open({str(result)!r}, 'w').write(json.dumps({MADE!r} | dict(outcome=o, reason='')))"
            )
            return [sys.executable, "-c", f"import json, os, subprocess, sys, time\n{write}\n{parts[step.name]}"]

        monkeypatch.setattr(suite, "STEPS", tuple(Step(name, limit_s, bundles) for name in parts))
        monkeypatch.setattr(suite, "_command", command)
        return list(parts)

    return make


def run(tmp_path, names, budget_s=60.0, bundles=None):
    saved = []
    setup = Setup("cpu", 1, tmp_path, bundles=bundles or {})
    tables, samples = Suite(setup, budget_s, lambda text: None, saved.append).run(names)
    return {row[0]: row[1:] for row in tables[0].rows}, tables, samples, saved


def test_a_part_that_crashes_leaves_what_it_made_and_the_rest_goes_on(tmp_path, steps):
    names = steps(first="write(''); os.abort()", second="sys.exit(3)", third=GOOD)
    outcomes, tables, samples, saved = run(tmp_path, names)
    assert outcomes["first"][0] == "FAILED" and "ended with -6" in outcomes["first"][2]
    assert outcomes["second"][0] == "FAILED" and "ended with 3" in outcomes["second"][2]
    assert outcomes["third"][0] == "passed"
    assert samples == {"first/x_s": [1.0], "third/x_s": [1.0]}
    assert [table.title for table in tables if table.columns == FAILED] == ["first", "second"]
    assert [len(made[0][0].rows) for made in saved] == [1, 2, 3], "written after every part"


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(tmp_path, steps):
    pid = tmp_path / "pid"
    hang = (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid)); write('')\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    )
    names = steps(limit_s=2.0, hanging=hang, after=GOOD)
    start = time.monotonic()
    outcomes, _, samples, _ = run(tmp_path, names)
    assert time.monotonic() - start < 30
    assert outcomes["hanging"][0] == "FAILED" and "stopped after" in outcomes["hanging"][2]
    assert outcomes["after"][0] == "passed" and "hanging/x_s" in samples
    assert not alive(int(pid.read_text()))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_budget_is_for_all_parts_together(tmp_path, steps):
    names = steps(limit_s=600.0, long="time.sleep(600)", late=GOOD)
    start = time.monotonic()
    outcomes, _, _, _ = run(tmp_path, names, budget_s=7.0)
    assert time.monotonic() - start < 20
    assert "stopped after" in outcomes["long"][2]
    assert outcomes["late"] == ("skipped", 0.0, "no time is left for it")


def test_bundles_are_exported_once_beside_the_parts_that_need_none(tmp_path, steps, monkeypatch):
    names = steps(bundles=True, first=GOOD, second=GOOD)
    started = []
    start = Suite._start
    monkeypatch.setattr(Suite, "_start", lambda self, step: started.append(step.name) or start(self, step))
    command = suite._command
    export = [sys.executable, "-c", "pass"]
    monkeypatch.setattr(suite, "_command", lambda s, *a: export if s is suite.EXPORT else command(s, *a))
    run(tmp_path, names, bundles={"float32": tmp_path / "nowhere"})
    assert started == ["export", "first", "second"]


def test_how_a_part_ends_is_said(tmp_path, monkeypatch):
    def ending(failure):
        def part(setup):
            yield [Table("half", ("a",), ((1,),))], {"x_s": [0.5]}
            if failure:
                raise failure

        monkeypatch.setattr(plugin, "load", lambda package, name: SimpleNamespace(run=part))
        end = child.run("any", Setup("cpu", 1, tmp_path), tmp_path / "result.json")
        data = json.loads((tmp_path / "result.json").read_text())
        assert data["tables"][0]["title"] == "half" and data["samples"] == {"x_s": [0.5]}
        assert (data["outcome"], data["reason"]) == end
        return end

    assert ending(None) == ("passed", "")
    assert ending(MissingError("no cmake")) == ("skipped", "no cmake")
    assert ending(CheckError("past the tolerance")) == ("FAILED", "past the tolerance")
    assert ending(ZeroDivisionError("division\nby zero")) == ("FAILED", "ZeroDivisionError: division")


def test_real_parts_write_one_report_and_say_what_is_missing(tmp_path, capsys):
    parts = ["kernels", "graphs", "backend:tensorrt"]
    (tmp_path / "bundle.json").write_text("{}")  # there, so none is exported; no part here reads it
    arguments = ["gpu", "--device", "cpu", "--rounds", "1", "--bundle", str(tmp_path)]
    assert main([*arguments, "--output", str(tmp_path), "--parts", *parts]) == 0
    said = capsys.readouterr()
    (path,) = tmp_path.glob("*-gpu.json")
    tables = {table.title: table for table in read(path).tables}
    outcomes = {row[0]: row[1:] for row in tables["Parts"].rows}
    assert outcomes["kernels"][0] == "passed" and [row[3] for row in tables["Kernels on cpu"].rows] == [0, 0, 0]
    assert outcomes["graphs"] == ("skipped", outcomes["graphs"][1], "a CUDA graph needs a GPU")
    assert outcomes["backend:tensorrt"][0] == "skipped"
    assert "graphs: SKIPPED" in said.err and "## Parts" in said.out
    assert path.with_suffix(".md").read_text() in said.out


def test_a_folder_that_cannot_be_written_to_is_known_before_the_work(tmp_path, steps, capsys):
    names = steps(first="open('begun', 'w')")
    (tmp_path / "results").write_text("a file")
    assert main(["gpu", "--device", "cpu", "--output", str(tmp_path / "results"), "--parts", *names]) == 2
    assert "gpu suite: first" not in capsys.readouterr().err


def test_results_that_cannot_be_written_are_printed(tmp_path, steps, capsys):
    folder = tmp_path / "results"
    broken = f"{GOOD}; import shutil; shutil.rmtree({str(folder)!r}); open({str(folder)!r}, 'w').close()"
    names = steps(first=broken, second=GOOD)
    assert main(["gpu", "--device", "cpu", "--output", str(folder), "--parts", *names]) == 2
    said = capsys.readouterr()
    assert "warning: " in said.err and "second: PASSED" in said.err and "## Parts" in said.out


def test_without_the_cuda_kernels_everything_but_transformers_is_compared(tmp_path, monkeypatch):
    """As on a machine that has a driver and no nvcc."""
    parts, asked = [("text", "encode"), ("vae", "decode_first"), ("video2world", "")], []
    (tmp_path / "bundle.json").write_text("{}")
    models = SimpleNamespace(bundles=[SimpleNamespace(manifest=None)])
    monkeypatch.setattr(backend.Models, "open", lambda *places, **execution: models)
    monkeypatch.setattr(backend.probes, "parts", lambda manifest: parts)
    monkeypatch.setattr(backend, "_has_programs", lambda folder: True)
    monkeypatch.setattr(backend.cuda, "missing", lambda: "not built")
    done = Comparison(("onnxruntime:cpu", "torch"), (), ())
    monkeypatch.setattr(backend.compare, "run", lambda contenders, chosen, *rest: asked.extend(chosen) or done)
    setup = Setup("cuda", 1, tmp_path, "torch", {"float32": tmp_path})
    with pytest.raises(MissingError, match="transformers were not run: CUDA kernels: not built"):
        list(backend.run(setup))
    assert asked == parts[:2]


def test_the_bundle_of_the_package_serves_where_none_could_be_exported(tmp_path):
    setup = Setup("cpu", 1, tmp_path, "torch", {"float32": tmp_path / "none", "bfloat16": tmp_path / "none"})
    assert setup.bundle() == packaged("nano") and setup.found("bfloat16") is None
    with pytest.raises(MissingError, match="holds no torch programs"):
        list(backend.run(setup))
    with pytest.raises(MissingError, match="no bfloat16 bundle"):
        setup.bundle("bfloat16")


def test_a_mode_that_never_ends_takes_no_other_along(tmp_path, monkeypatch):
    """Each is handed on before the next begins, the one that compiles last."""
    setup = Setup("cpu", 1, tmp_path)
    modes = {"eager": lambda: lambda: None, "compiled": lambda: pytest.fail("begun")}
    monkeypatch.setattr(model, "_modes", lambda *given: modes)
    titles = []
    with pytest.raises(pytest.fail.Exception):
        for made, _ in model.run(setup):
            titles += [table.title for table in made]
    assert titles[-1].endswith("evaluations, eager")
    parts = [table.title for made, _ in block.run(setup) for table in made]
    assert len(parts) == 2 and parts[-1].endswith("tiny, compiled")


def test_kernels_are_built_without_cmake_by_the_same_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None if name == "cmake" else f"/bin/{name}")
    assert build.by_cmake(True) == []
    cpu, cuda = build.directly(tmp_path, True)
    recipe = (HOUSE / "kernels" / "CMakeLists.txt").read_text()
    assert {"-O3", "-ffp-contract=off", "-fopenmp"} <= set(cpu) and "-O3 -ffp-contract=off" in recipe
    assert "--fmad=false" in cuda and "--fmad=false" in recipe and "-ffp-contract=off" in " ".join(cuda)
    assert cpu[-1].endswith("libworldrt_cpu.so") and cuda[-1].endswith("libworldrt_cuda.so")
    assert len(build.directly(tmp_path, False)) == 1
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="neither cmake nor a compiler"):
        list(build.run(Setup("cpu", 1, tmp_path)))


def test_names_of_parts():
    assert suite.names(None) == [step.name for step in suite.STEPS]
    assert suite.names(["tests", "backend"])[-1] == "backend:torch+compile"
    assert suite.names(["backend:torch"]) == ["backend:torch"]
    limits = [step.limit_s for step in suite.STEPS]
    assert min(limits) > 0 and max(limits) < 460


@pytest.mark.slow
def test_weights_as_constants_and_as_inputs_give_the_same_block(tmp_path):
    """What the first question compares is the same work."""
    setup = Setup("cpu", 1, tmp_path)
    bundle = _engines.block_bundle("nano", setup.scratch)
    spec = bundle.manifest.denoisers["video2world"]
    store, device = _engines.open_weights(bundle, spec), _engines.open_device("cpu")
    axes, made = _engines.axes_of((2, 3, 4)), []
    for as_constants in (True, False):
        session = _engines._open("onnxruntime", bundle, spec, store, device, axes, as_constants=as_constants)
        weights = {} if as_constants else store.of_graph(spec.graphs["block"])
        call = session.bind(axes, weights)
        rng = np.random.default_rng(0)
        for tensor in session.graph.inputs:
            device.upload(call[tensor.name], rng.standard_normal(call[tensor.name].shape, np.float32))
        call.run()
        made.append([np.array(call[tensor.name].numpy()) for tensor in session.graph.outputs])
    for constant, given in zip(*made, strict=True):
        assert np.abs(constant).max() > 0
        np.testing.assert_allclose(constant, given, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_whole_suite_runs_dry_in_four_minutes(nano_bundle, tmp_path):
    parts = [name for name in suite.names(None) if name != "build"]
    given = {"PYTHON": sys.executable, "DEVICE": "cpu", "OUT": str(tmp_path), "BUNDLE": str(nano_bundle)}
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "benchmarks/gpu_suite.sh"], cwd=HOUSE, env=os.environ | given | {"PARTS": " ".join(parts)}, timeout=300
    )
    assert done.returncode == 0 and time.monotonic() - start < 240
    (path,) = tmp_path.glob("*-gpu.json")
    outcomes = {row[0]: row[1] for row in read(path).tables[0].rows}
    assert list(outcomes) == parts and "FAILED" not in outcomes.values()
    assert {"kernels", "weights", "model", "block", "backend:onnxruntime"} <= {
        n for n, o in outcomes.items() if o == "passed"
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_written_out_rotary_embedding_is_that_of_the_model(dtype):
    import torch

    from worldrt.benchmarks.gpu._torch import rotate
    from worldrt.export.families.cosmos import rope

    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=getattr(torch, dtype))
    angles = torch.rand(2, 5, 4) * 6
    given = (x, angles.cos(), angles.sin())
    torch.testing.assert_close(rotate(*given), rope.rotate(*given))
