"""Quantising nano from end to end: calibration, what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from worldrt.engine.bundle import load_bundle, write_manifest
from worldrt.engine.errors import BackendError, BundleError, InputError, ShapeError
from worldrt.engine.quality import Quality, StepError
from worldrt.engine.schema import SchemaError
from worldrt.engine.validate import check_manifest
from worldrt.engine.weights import open_weights
from worldrt.export.cli import main
from worldrt.export.quantize import gate, job
from worldrt.export.quantize.calibrate import ranges
from worldrt.export.quantize.measure import magnitude, probe
from worldrt.export.quantize.runs import Recorded, Size, recorded, size_of, usual_size
from worldrt.export.quantize.scheme import FP8, scheme_of

TASK = "video2world"
SMALL = Size(width=64, height=48, num_frames=5, steps=12, recorded_steps=3)


@pytest.fixture(scope="module")
def video(nano_bundle, tmp_path_factory):
    """The nano bundle with one denoiser, so that there is half as much to do."""
    folder = tmp_path_factory.mktemp("video") / "nano"
    bundle = load_bundle(nano_bundle)
    manifest = bundle.manifest
    shutil.copytree(nano_bundle, folder, ignore=shutil.ignore_patterns("*.pt2", "checkpoint", "text2image"))
    files = {name: sha256 for name, sha256 in manifest.files.items() if not name.endswith(".pt2")}

    def bare(component):
        return replace(component, graphs={n: replace(g, program=None) for n, g in component.graphs.items()})

    weights = replace(manifest.weights, root=str(bundle.weight_root.absolute()))
    changed = replace(manifest, weights=weights, denoisers={TASK: bare(manifest.denoisers[TASK])}, files=files)
    write_manifest(folder, replace(changed, vae=bare(manifest.vae), text=bare(manifest.text)))
    return folder


@pytest.fixture(scope="module")
def fp8(video, tmp_path_factory):
    """Folder of the quantised bundle, the lines that were said, and the steps that were reported."""
    said = []
    folder = tmp_path_factory.mktemp("fp8") / "nano"
    settings = job.Settings(FP8, size=SMALL)
    return folder, job.quantize_bundle(video, folder, settings, said.append), said


@pytest.fixture(scope="module")
def calls(tmp_path_factory, video):
    """A folder of made-up recorded inputs."""
    folder = tmp_path_factory.mktemp("calls")
    graph = load_bundle(video).manifest.denoisers[TASK].graphs["denoise"]
    rng = np.random.default_rng(0)
    axes = {"batch": 1, "frames": 2, "rows": 3, "columns": 4, "text": 8}
    for index, level in enumerate((30.0, 0.5)):
        inputs = {s.name: rng.standard_normal(s.resolve(axes)).astype(np.float32) for s in graph.inputs}
        inputs |= {"level": np.full((1, 2), level, np.float32), "position": np.arange(2, dtype=np.float32)}
        inputs |= {"mask": np.array([[1, 0]], np.float32)}
        inputs["x"] *= np.float32(1 + level)
        np.savez(folder / f"{TASK}-{index:04}-cond.npz", **inputs)
    return folder


def test_nano_passes_its_gate_in_fp8(fp8):
    folder, lines, said = fp8
    quality = load_bundle(folder).manifest.denoisers[TASK].quality
    assert quality.calibration == "largest magnitude of 12 calls"  # 2 runs, 3 rows, 2 texts
    assert [step.level for step in quality.steps] == sorted((step.level for step in quality.steps), reverse=True)
    assert len(quality.steps) == 3 and quality.steps[0].level == 80
    assert 1e-3 < quality.worst_step < quality.step_limit == 0.05
    assert quality.psnr_db is not None and 30 < quality.psnr_db < 80
    assert quality.blocks["0"] == 0 and all(1e-3 < quality.blocks[number] < 0.1 for number in "123")
    assert len(lines) == 1 and "fp8" in lines[0] and f"{quality.psnr_db:.1f} dB" in lines[0]
    assert [text.partition(": ")[2] for text in said] == [
        "sampling for calibration", "ranges of activations", "errors of blocks and steps", "frames of a whole run",
    ]  # fmt: skip


def test_weights_stay_in_the_checkpoint(video, fp8):
    before, after = (load_bundle(folder) for folder in (video, fp8[0]))
    entries = [bundle.manifest.denoisers[TASK] for bundle in (before, after)]
    assert entries[0].graphs["denoise"].weights == entries[1].graphs["denoise"].weights
    assert (entries[0].quantization, entries[1].quantization) == (None, "fp8")
    open_weights(after, entries[1])
    sizes = [
        bundle.path(e.graphs["denoise"].file).stat().st_size for bundle, e in zip((before, after), entries, strict=True)
    ]
    assert sizes[1] - sizes[0] < 150_000  # names and scales
    nodes = [node.op_type for node in ir.load(after.path(entries[1].graphs["denoise"].file)).graph]
    assert nodes.count("QuantizeLinear") == nodes.count("DequantizeLinear") > 30 and nodes.count("Attention") == 8


def test_inspect_says_what_quantisation_does(fp8, capsys):
    from worldrt.runtime.inspection import inspect

    quality = load_bundle(fp8[0]).manifest.denoisers[TASK].quality
    assert inspect(fp8[0], None, full=False, as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)["components"]
    assert facts[TASK]["quantization"] == "fp8" and facts["vae"]["quantization"] is None
    assert facts[TASK]["quality"]["psnr_db"] == pytest.approx(quality.psnr_db)
    assert inspect(fp8[0], None, full=False, as_json=False) == 0
    assert f"x0 off by at most {quality.worst_step:.2%} (limit 5.00%)" in capsys.readouterr().out


def test_a_quantised_bundle_is_not_quantised_again(fp8, tmp_path):
    with pytest.raises(InputError, match="already quantised"):
        job.quantize_bundle(fp8[0], tmp_path / "again", job.Settings(FP8, size=SMALL))
    assert not any(tmp_path.iterdir())


def test_half_precision_is_measured_in_float32_on_the_same_weights(half_bundle, calls, tmp_path):
    """A bundle without VAE and text encoder can be quantised too, by inputs that are given; its frames are unknown."""
    bundle = load_bundle(half_bundle)
    entry = bundle.manifest.denoisers[TASK]
    weights = replace(bundle.manifest.weights, root=str(bundle.weight_root.absolute()))
    alone = replace(bundle.manifest, weights=weights, denoisers={TASK: entry}, vae=None, text=None, files={})
    graph = entry.graphs["denoise"].file
    (tmp_path / "alone" / TASK).mkdir(parents=True)
    shutil.copyfile(bundle.path(graph), tmp_path / "alone" / graph)
    write_manifest(tmp_path / "alone", alone)
    with pytest.raises(InputError, match="cannot be sampled for calibration"):
        job.quantize_bundle(tmp_path / "alone", tmp_path / "out", job.Settings(FP8))
    (line,) = job.quantize_bundle(tmp_path / "alone", tmp_path / "out", job.settings_of("fp8", None, calls, 100.0, 1.0))
    made = load_bundle(tmp_path / "out").manifest.denoisers[TASK]
    assert made.precision == entry.precision and made.quality.psnr_db is None and "not measured" in line
    assert [step.level for step in made.quality.steps] == [30.0, 0.5] and 1e-4 < made.quality.worst_step < 0.05


def test_weights_alone_need_no_ranges(video, calls, tmp_path):
    """And four bits are worse than the limit allows, until it is loosened."""
    (line,) = _of_steps(video, calls, tmp_path / "mx", "mxfp8", 1.0)
    with pytest.raises(InputError, match="x0 is off by"):
        _of_steps(video, calls, tmp_path / "fp4", "nvfp4", 0.5)
    (worse,) = _of_steps(video, calls, tmp_path / "fp4", "nvfp4", 4.0)
    assert "mxfp8" in line and "nvfp4" in worse
    errors = [load_bundle(tmp_path / name).manifest.denoisers[TASK].quality for name in ("mx", "fp4")]
    assert 1e-3 < 2 * errors[0].worst_step < errors[1].worst_step and "weights alone" in errors[0].calibration


def _of_steps(video, calls, output, kind, limit):
    """Quantise what has no VAE, so that no frames are made."""
    alone = output.parent / f"{output.name}-source-{limit}"
    shutil.copytree(video, alone)
    manifest = load_bundle(video).manifest
    write_manifest(alone, replace(manifest, vae=None, text=None, files={}))
    return job.quantize_bundle(alone, output, job.settings_of(kind, None, calls, 100.0, limit))


def test_a_broken_scale_is_refused(video, calls, tmp_path, monkeypatch):
    """Ranges that are sixteen times too small cut most activations off."""
    monkeypatch.setattr(job, "ranges", lambda *a: {name: value / 16 for name, value in ranges(*a).items()})
    settings = job.settings_of("fp8", None, calls, 100.0, 1.0)
    with pytest.raises(InputError, match=r"x0 is off by .* expected at most 0\.05.*--quantize_limit"):
        job.quantize_bundle(video, tmp_path / "out", settings)
    assert not any(tmp_path.iterdir())


def test_frames_below_the_limit_are_refused():
    limits = gate.Limits(psnr_db=35)
    gate.check_frames(TASK, 35.0, limits)
    gate.check_frames(TASK, None, limits)
    for bad in (34.9, float("nan")):
        with pytest.raises(InputError, match=r"PSNR of .* at least 35\.0 dB"):
            gate.check_frames(TASK, bad, limits)


def test_an_error_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="off by nan"):
        gate.check_steps(TASK, [StepError(80.0, float("nan"))], gate.Limits())


def test_a_factor_loosens_both_limits_alike():
    limits = gate.Limits(0.05, 30.0).loosened(10)
    assert limits == gate.Limits(0.5, 10.0)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--quantize_limit"):
            gate.Limits().loosened(bad)


def test_psnr_is_that_of_the_formula():
    a, b = (np.random.default_rng(i).integers(0, 256, (3, 4, 5, 3), np.uint8) for i in range(2))
    mean = np.mean((a.astype(float) - b) ** 2)
    assert gate.psnr_db(a, b) == pytest.approx(10 * np.log10(255**2 / mean))
    assert gate.psnr_db(a, a) == gate.BEST_PSNR_DB
    with pytest.raises(ValueError):
        gate.psnr_db(a, b[:2])


def test_ranges_are_those_of_numpy(video, calls):
    """Of a value that the graph gives anyway, and of one that numpy can make from it."""
    bundle = load_bundle(video)
    spec = bundle.manifest.denoisers[TASK]
    graph = spec.graphs["denoise"]
    found = recorded(calls, TASK)
    made = ranges(bundle, spec, FP8, None, found)
    texts = [np.abs(call.inputs["text"]) for call in found]
    assert made["text"] == pytest.approx(max(text.max() for text in texts))
    part = ranges(bundle, spec, FP8, None, found, 99.0)
    assert part["text"] == pytest.approx(max(np.quantile(t, 0.99, method="higher") for t in texts), rel=0.02)
    assert all(part[name] <= made[name] for name in made) and len(made) == len(part) > 20
    assert graph.weights


def test_the_percentile_of_a_few_numbers(tmp_path, video):
    """10 of 1000 numbers lie beyond the 99th percentile."""
    bundle = load_bundle(video)
    x = ir.Value(name="x", shape=ir.Shape(["n"]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 23}, name="numbers")
    from worldrt.engine.bundle import Graph
    from worldrt.engine.tensors import TensorSpec

    record = Graph("numbers.onnx", "", (TensorSpec("x", "float32", ("n",)),), (), "external", ())
    model = ir.Model(graph, ir_version=10)
    scalars = {f"p{p:g}": magnitude(graph, x, p) for p in (99.0, 100.0)}
    measure = probe(bundle, record, tmp_path / "numbers.onnx", model, scalars)
    numbers = -np.random.default_rng(0).permutation(1000).astype(np.float32)
    assert measure(Recorded({"x": numbers})) == {"p99": 989.0, "p100": 999.0}


def test_what_is_not_finite_is_no_range(video, calls):
    bundle = load_bundle(video)
    broken = [
        replace(call, inputs=dict(call.inputs) | {"text": call.inputs["text"] * np.nan})
        for call in recorded(calls, TASK)
    ]
    with pytest.raises(InputError, match="expected a finite one"):
        ranges(bundle, bundle.manifest.denoisers[TASK], FP8, None, broken)


def test_recorded_inputs_of_another_model_are_refused(video, calls):
    bundle = load_bundle(video)
    (call, *_) = recorded(calls, TASK)
    short = Recorded({name: value for name, value in call.inputs.items() if name != "mask"})
    with pytest.raises(InputError, match="expected 'mask' among them"):
        ranges(bundle, bundle.manifest.denoisers[TASK], FP8, None, [short])
    wide = Recorded(dict(call.inputs) | {"text": np.zeros((1, 8, 3), np.float32)})
    with pytest.raises(ShapeError, match="text"):
        ranges(bundle, bundle.manifest.denoisers[TASK], FP8, None, [wide])


def test_mistakes_are_said_before_any_sampling(video, calls, tmp_path, capsys):
    def refused(text, *flags):
        assert main(["--bundle", str(video), "-o", str(tmp_path / "out"), *map(str, flags)]) == 2
        assert text in capsys.readouterr().err
        assert not any(tmp_path.iterdir())

    fp8 = ("--quantize", "fp8")
    refused("no regular expression", *fp8, "--quantize_keep", "(")
    refused("no layer is left", *fp8, "--quantize_keep", "weight", "--calibration", calls)
    refused("expected 50 to 100", *fp8, "--calibration_percentile", "101")
    refused("expected a factor above 0", *fp8, "--quantize_limit", "0")
    refused("is no folder", *fp8, "--calibration", tmp_path / "none")
    refused("expected WIDTHxHEIGHTxFRAMES", *fp8, "--calibration_size", "64x48")
    refused("is about --quantize fp8", "--quantize", "int8", "--calibration_percentile", "99")
    assert main(["--bundle", str(video), *fp8]) == 2
    assert "-o" in capsys.readouterr().err


def test_weights_alone_in_blocks_are_refused_before_they_are_traced(tmp_path, capsys):
    flags = ("--model", "nano", "--form", "block", "--components", TASK, "--quantize", "mxfp8", "-o", tmp_path / "out")
    assert main([*map(str, flags)]) == 2
    assert "video2world: mxfp8 wants a denoiser in whole form, got blocks; --form whole" in capsys.readouterr().err


def test_a_folder_without_the_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="no recorded inputs of video2world"):
        recorded(tmp_path, TASK)
    (tmp_path / f"{TASK}-0000-cond.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        recorded(tmp_path, TASK)


def test_a_run_that_fails_says_why(video, tmp_path):
    """The runtime's own words; 40 pixels are no multiple of 16."""
    settings = job.Settings(FP8, size=replace(SMALL, width=40))
    with pytest.raises(BackendError, match="sampling run for quantisation failed: .*16"):
        job.quantize_bundle(video, tmp_path / "out", settings)
    assert not any(tmp_path.iterdir())


def test_runs_have_the_size_of_the_model_where_that_is_small(video):
    manifest = load_bundle(video).manifest
    assert usual_size(manifest) == Size(128, 80, 17)
    large = replace(manifest.denoisers[TASK], sizes={"480": {"16:9": (832, 480)}}, frames={"16": 93})
    assert usual_size(replace(manifest, denoisers={TASK: large})) == Size(160, 96, 9)


def test_sizes_are_read():
    assert size_of("160x96x9") == Size(160, 96, 9)
    assert scheme_of("int8_static").largest == 127


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization": None}, "none without quantization"),
        ({"quality": Quality("", (), {}, 0.1, 30)}, "at least one step"),
        ({"quality": Quality("", (StepError(1, -0.1),), {}, 0.1, 30)}, "from 0 up"),
        ({"quality": Quality("", (StepError(1, 0.1),), {"3": -1}, 0.1, 30)}, "from 0 up"),
    ],
)
def test_a_record_that_no_measurement_gives_is_refused(fp8, change, words):
    manifest = load_bundle(fp8[0]).manifest
    broken = replace(manifest, denoisers={TASK: replace(manifest.denoisers[TASK], **change)})
    with pytest.raises(SchemaError, match=words):
        check_manifest(broken)


def test_a_kind_that_nobody_knows_is_refused(fp8, tmp_path):
    shutil.copytree(fp8[0], tmp_path / "odd")
    path = tmp_path / "odd" / "bundle.json"
    path.write_text(path.read_text().replace('"fp8"', '"fp3"'))
    with pytest.raises(BundleError, match="denoisers.video2world.quantization"):
        load_bundle(tmp_path / "odd")
