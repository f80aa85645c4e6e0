"""`trt-run compare`: what is compared, what passes, and what a failure of one component does to the rest."""

import json
import shutil

import numpy as np
import pytest
import torch

from worldrt.engine import cuda as engine_cuda
from worldrt.engine.compare import difference
from worldrt.engine.errors import BackendError
from worldrt.runtime import probes
from worldrt.runtime.cli import main
from worldrt.runtime.compare import Row, psnr_db
from worldrt.runtime.compare_cli import parse_backend
from worldrt.runtime.models import Models
from worldrt.runtime.probes import Case, to_bits

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install

VAE = [("vae", f"{way}_{step}") for way in ("encode", "decode") for step in ("first", "next")]


def compared(capsys, *arguments):
    """Exit code and JSON report."""
    code = main(["compare", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def test_a_backend_equals_itself_in_every_component(nano_bundle, capsys):
    backends = "onnxruntime+threads=1,onnxruntime:cpu+threads=1"
    code, report = compared(capsys, "--backends", backends, "--bundle", nano_bundle, "--steps", 1, "--rounds", 2)
    assert code == 0 and report["passed"]
    assert all(row["equal"] and row["passed"] for row in report["rows"])
    found = {(row["component"], row["tensor"]) for row in report["rows"]}
    assert {("text/encode", "text"), ("vae/encode_first", "latent"), ("vae/decode_next", "frames")} <= found
    assert ("vae/decode_next", "32 caches") in found
    for task in ("text2image", "video2world"):
        assert {(task, "x0 of prompt at sigma 80"), (task, "x after step 2"), (task, "frames of the run")} <= found
    work = {(t["component"], t["work"]) for t in report["timings"]}
    assert {("text/encode", "run"), ("video2world", "evaluation"), ("video2world", "step")} <= work
    assert all(len(t["seconds"]) == 2 and t["median_s"] > 0 for t in report["timings"])
    assert len(report["timings"]) == 2 * len(work)


def test_torch_agrees_with_onnxruntime_until_the_tolerance_is_too_small(nano_bundle, capsys):
    arguments = ["--backends", "onnxruntime,torch", "--bundle", nano_bundle, "--components", "text", "--rounds", 0]
    code, report = compared(capsys, *arguments)
    (row,) = report["rows"]
    assert code == 0 and row["passed"] and row["tolerance"] == 5e-3 and 0 < row["relative"] < 1e-5
    code, report = compared(capsys, *arguments, "--tolerance", "float16=1", "float32=1e-12")
    assert code == 1 and not report["passed"] and report["rows"][0]["tolerance"] == 1e-12


def test_other_weights_are_seen_where_they_are_and_nowhere_else(nano_bundle, tmp_path, capsys):
    """The same header, other values: only the errors can tell."""
    shutil.copytree(nano_bundle / "checkpoint", tmp_path / "checkpoint")
    weights = tmp_path / "checkpoint" / "text_encoder" / "model.safetensors"
    data = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    start = 8 + int(data[:8].view("<u8")[0])
    data[start:].view("<f4")[...] *= np.float32(1.1)
    weights.write_bytes(data.tobytes())
    arguments = ["--backends", "onnxruntime,onnxruntime:cpu", "--bundle", nano_bundle, "--rounds", 0]
    places = ["--checkpoint", tmp_path / "checkpoint", "--reference_bundle", nano_bundle]
    code, report = compared(capsys, *arguments, *places, "--components", "text", "vae")
    assert code == 1
    assert {row["component"] for row in report["rows"] if not row["passed"]} == {"text/encode"}
    assert all(row["equal"] for row in report["rows"] if row["component"].startswith("vae"))


def refusing(monkeypatch, device):
    """Text encoders cannot be loaded on the contender that spells its device so."""
    load = probes.probe

    def loading(models, part, case):
        if part[0] == "text" and models.execution.options == {"threads": device}:
            raise BackendError("no kernels\nfor it")
        return load(models, part, case)

    monkeypatch.setattr(probes, "probe", loading)


def test_a_component_that_fails_is_named_and_the_rest_goes_on(nano_bundle, capsys, monkeypatch):
    refusing(monkeypatch, 2)
    backends = "onnxruntime+threads=1,onnxruntime+threads=2"
    arguments = ["--backends", backends, "--bundle", nano_bundle, "--components", "text", "vae", "--rounds", 1]
    code, report = compared(capsys, *arguments)
    assert code == 1
    failed = {row["component"]: row["problem"] for row in report["rows"] if row["passed"] is False}
    assert failed == {"text/encode": "no kernels for it"}
    assert {row["component"] for row in report["rows"] if row["passed"]} == {"/".join(part) for part in VAE}
    timed = {(t["component"], t["backend"]) for t in report["timings"]}
    assert ("text/encode", "onnxruntime+threads=1") in timed
    assert ("text/encode", "onnxruntime+threads=2") not in timed


def test_a_reference_that_fails_fails_the_others(nano_bundle, capsys, monkeypatch):
    refusing(monkeypatch, 1)
    arguments = ["--backends", "onnxruntime+threads=1,onnxruntime", "--bundle", nano_bundle, "--components", "text"]
    code, report = compared(capsys, *arguments, "--rounds", 0)
    problems = {row["backend"]: row["problem"] for row in report["rows"]}
    assert code == 1 and problems["onnxruntime+threads=1"] == "no kernels for it"
    assert problems["onnxruntime"] == "the reference failed: no kernels for it"


def test_null_is_timed_and_not_compared(nano_bundle, capsys):
    code, report = compared(
        capsys, "--backends", "onnxruntime,null+latency_s=0", "--bundle", nano_bundle, "--components", "text"
    )
    assert code == 0 and not report["rows"]
    assert {t["backend"] for t in report["timings"]} == {"onnxruntime", "null+latency_s=0"}


def test_one_at_a_time_holds_one_backend(nano_bundle, capsys, monkeypatch):
    held, most, load, close = set(), [], probes.probe, Models.close

    def loading(models, part, case):
        held.add(models)
        most.append(len(held))
        return load(models, part, case)

    def closing(models):
        held.discard(models)
        close(models)

    monkeypatch.setattr(probes, "probe", loading)
    monkeypatch.setattr(Models, "close", closing)
    arguments = ["--backends", "onnxruntime,null", "--bundle", nano_bundle, "--components", "text", "vae"]
    assert compared(capsys, *arguments)[0] == 0 and max(most) == 2
    most.clear()
    assert compared(capsys, *arguments, "--one_at_a_time")[0] == 0 and max(most) == 1


def test_the_tables_name_failures_and_times(nano_bundle, capsys):
    arguments = ["--backends", "onnxruntime,torch", "--bundle", str(nano_bundle), "--components", "text"]
    assert main(["compare", *arguments, "--tolerance", "1e-12"]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said and "text/encode" in said and "torch ms" in said


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--backends", "onnxruntime"], "--backends: expected two or more different ones"),
        (["--backends", "onnxruntime,onnxruntime"], "two or more different ones"),
        (["--backends", "null,onnxruntime"], "null computes nothing"),
        (["--backends", "onnxruntime,nobody"], "backends: no 'nobody' here"),
        (["--backends", "onnxruntime,torch:cuda:99"], "cuda"),
        (["--backends", "onnxruntime,null", "--components", "sound"], "--components: no 'sound' in every bundle"),
        (["--backends", "onnxruntime,null", "--tolerance", "0"], "--tolerance: expected a number above 0"),
        (["--backends", "onnxruntime,null", "--tolerance", "float8=1"], "--tolerance: expected a number above 0"),
        (["--backends", "onnxruntime,null", "--steps", "0"], "--steps: expected 1 or more"),
        (["--backends", "onnxruntime,null+block_weights=constants"], "--block_weights: it is about engines"),
        (["--backends", "onnxruntime,null+latency_s=soon"], "null+latency_s: expected a number of 0 or more"),
        (["--backends", "onnxruntime,onnxruntime+threads=many"], "threads: expected a whole number of 0 or more"),
        (["--backends", "onnxruntime,onnxruntime+threads=-1"], "threads: expected a whole number of 0 or more"),
        (["--backends", "onnxruntime,onnxruntime+threads"], "threads: expected a whole number of 0 or more"),
        (["--backends", "onnxruntime,torch+compile=maybe"], "torch+compile: expected no value"),
        (["--backends", "onnxruntime,onnxruntime+thread=1"], "no option 'thread'; there are: threads, low_memory"),
        (["--backends", "onnxruntime,onnxruntime+"], "onnxruntime has no option ''"),
        (["--backends", "onnxruntime,null", "--width", "17"], "--width: expected a multiple of 16, got 17"),
        (["--backends", "onnxruntime,null", "--num_frames", "3"], "--num_frames: expected 1 more than a multiple of 4"),
    ],
)
def test_mistakes_are_one_line(nano_bundle, arguments, words, capsys):
    assert main(["compare", "--bundle", str(nano_bundle), *arguments]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_flags_of_runs_reach_the_models(nano_bundle, monkeypatch):
    opened = []
    load = Models.open

    def opening(*places, **execution):
        opened.append(execution)
        return load(*places, **execution)

    monkeypatch.setattr(Models, "open", opening)
    backends = "onnxruntime,onnxruntime+threads=1+cfg=sequential+offload+use_cuda_graphs=off"
    arguments = ["--backends", backends, "--bundle", str(nano_bundle), "--components", "text", "--rounds", "0"]
    assert main(["compare", *arguments]) == 0
    first, second = opened
    assert (first["guidance"], first["options"], first["cuda_graphs"]) == ("batched", {}, "auto")
    assert (second["guidance"], second["options"]) == ("sequential", {"threads": 1})
    assert second["offload"] is True and second["cuda_graphs"] == "off" and second["device"] == "cpu"


def test_inputs_depend_on_the_seed_and_on_nothing_else(nano_bundle):
    def given(seed, backend):
        models = Models.open([nano_bundle], backend=backend)
        probe = probes.probe(models, ("vae", "decode_first"), Case("a car", 1, seed))
        return dict(probe.outputs())["frames"]

    assert np.array_equal(given(3, "onnxruntime"), given(3, "onnxruntime"))
    assert not np.array_equal(given(3, "onnxruntime"), given(4, "onnxruntime"))


@pytest.mark.parametrize("values", [[0.0, -1.5, 3.14159, 1e-40, 65504.0, 1.00390625, 1.01171875, -(2.0**-130)]])
def test_bfloat16_bits_are_those_of_torch(values):
    array = np.array(values, np.float32)
    expected = torch.from_numpy(array).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(to_bits(array, "bfloat16"), expected)


@pytest.mark.parametrize("error, tolerance, passes", [(1e-3, 5e-3, True), (1e-2, 5e-3, False), (np.nan, 1.0, False)])
def test_a_tensor_passes_by_its_largest_difference(error, tolerance, passes):
    reference = np.linspace(-1, 1, 101, dtype=np.float32)
    actual = reference.copy()
    actual[7] += error
    row = Row("vae", "latent", "b", tolerance, difference("latent", actual, reference))
    assert row.passed is passes


def test_a_tensor_that_points_elsewhere_fails_though_every_difference_is_small():
    """One large value hides the rest from the relative difference; the cosine sees them."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(10_000)
    actual = rng.standard_normal(10_000)
    reference[0] = actual[0] = 100.0
    found = difference("x", actual, reference)
    assert found.relative < 0.1
    assert Row("vae", "x", "b", 0.1, found).passed is False


def test_pictures_pass_by_their_noise():
    reference = np.full((2, 4, 4, 3), 100, np.uint8)
    assert psnr_db(reference, reference) == np.inf
    assert psnr_db(reference + np.uint8(1), reference) == pytest.approx(20 * np.log10(255))
    zero = difference("frames", reference, reference)
    assert Row("vae", "frames", "b", 0.1, zero, 20.5).passed is True
    assert Row("vae", "frames", "b", 0.1, zero, 19.5).passed is False


def test_backends_carry_a_device_and_options():
    assert parse_backend("tensorrt") == ("tensorrt", "cuda", {})
    assert parse_backend("torch:cuda:1+compile+threads=2+mode=fast+x=0.5") == (
        "torch",
        "cuda:1",
        {"compile": True, "threads": 2, "mode": "fast", "x": 0.5},
    )


def test_each_backend_works_on_its_own_gpu(nano_bundle, monkeypatch):
    """What the driver has current in the thread, whenever one of two backends on two GPUs is used."""
    cuda, seen = FakeCuda(devices=2), []
    monkeypatch.setattr(engine_cuda, "_import_runtime", lambda: cuda)

    def probing(models, part, case):
        def note():
            seen.append((models.execution.device, cuda.current))

        def outputs():
            note()
            yield "text", np.zeros(1, np.float32)

        return probes.Probe(outputs, {"run": (note, 1)})

    monkeypatch.setattr(probes, "probe", probing)
    backends = "onnxruntime:cuda:1,onnxruntime:cuda:0"
    arguments = ["--backends", backends, "--bundle", str(nano_bundle), "--components", "text", "--rounds", "2"]
    assert main(["compare", *arguments]) == 0
    assert len(seen) == 6 and set(seen) == {("cuda:1", 1), ("cuda:0", 0)}


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_engines_on_a_gpu_are_compared_with_the_host(nano_bundle, capsys, monkeypatch, tmp_path, library):
    """On a fake GPU, whose engines compute by ONNX Runtime: every row is there, and equal."""
    cuda = FakeCuda()
    install(monkeypatch, cuda, FakeTrt(cuda, library))
    engines = f"{library}:cuda+use_cuda_graphs=on+plan_cache={tmp_path / 'plans'}"
    arguments = ["--backends", f"onnxruntime+threads=1,{engines}", "--bundle", nano_bundle, "--steps", 2]
    code, report = compared(capsys, *arguments, "--rounds", 1)
    assert (code, [row for row in report["rows"] if not row["passed"]]) == (0, [])
    named = {(row["component"], row["tensor"]) for row in report["rows"] if row["equal"]}
    assert {("text/encode", "text"), ("video2world", "x after step 3"), ("video2world", "frames of the run")} <= named
    assert {t["backend"] for t in report["timings"]} == {"onnxruntime+threads=1", engines}
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 7
