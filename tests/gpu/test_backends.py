"""Every backend that runs on a GPU against ONNX Runtime on the host: the acceptance test of a machine."""

import json

import pytest

from worldrt.engine import plugin
from worldrt.engine.cache import PlanCache
from worldrt.kernels import cuda
from worldrt.runtime.cli import main
from worldrt.runtime.doctor import examine

pytestmark = pytest.mark.gpu
STEPS = "3"


def needs(backend):
    reason = plugin.load("worldrt.engine.backends", backend).unavailable()
    if reason or cuda.missing():
        pytest.skip(reason or f"CUDA kernels: {cuda.missing()}")
    if backend == "onnxruntime" and "CUDAExecutionProvider" not in examine()["onnxruntime_providers"]:
        pytest.skip("this onnxruntime is without the CUDA provider")


def compared(bundle, capsys, contender, *arguments):
    backends = ["--backends", f"onnxruntime:cpu,{contender}"]
    code = main(
        ["compare", "--bundle", str(bundle), *backends, "--steps", STEPS, "--rounds", "0", "--json", *arguments]
    )
    report = json.loads(capsys.readouterr().out)
    return code, [row for row in report["rows"] if not row["passed"]], report["rows"]


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "tensorrt", "tensorrt_rtx"])
def test_every_component_agrees_with_the_host(gpu, bundle, capsys, backend, tmp_path, monkeypatch):
    needs(backend)
    monkeypatch.setenv("WORLDRT_PLAN_CACHE", str(tmp_path / "plans"))
    code, wrong, rows = compared(bundle, capsys, f"{backend}:cuda")
    assert (code, wrong) == (0, [])
    assert {row["component"] for row in rows} >= {"text/encode", "vae/decode_next", "text2image", "video2world"}


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_plans_are_built_once(gpu, bundle, capsys, backend, tmp_path, monkeypatch):
    needs(backend)
    monkeypatch.setenv("WORLDRT_PLAN_CACHE", str(tmp_path / "plans"))

    def plans():
        return {path: path.stat().st_mtime_ns for path in PlanCache(tmp_path / "plans").folder.glob("*.plan")}

    assert compared(bundle, capsys, f"{backend}:cuda", "--components", "text")[0] == 0
    built = plans()
    assert len(built) == 1
    assert compared(bundle, capsys, f"{backend}:cuda", "--components", "text")[0] == 0
    assert plans() == built
