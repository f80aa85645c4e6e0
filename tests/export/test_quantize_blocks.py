"""Nano denoisers quantised in block form: one graph for all blocks, with scales of each."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from worldrt.engine.build import build_plan
from worldrt.engine.bundle import file_sha256, load_bundle, write_manifest
from worldrt.engine.constants import constants_of, with_constants
from worldrt.engine.content import ContentHashes
from worldrt.engine.errors import BundleError, InputError, UnsupportedError
from worldrt.engine.jobs import Wish, jobs_of
from worldrt.engine.plan_key import plan_key
from worldrt.engine.plans import Range, Target
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.weights import open_weights
from worldrt.export.plan import Options
from worldrt.export.quantize import job
from worldrt.export.quantize.blocks import quantize_blocks
from worldrt.export.quantize.calibrate import weight_amax
from worldrt.export.quantize.chain import Chain, block_ranges
from worldrt.export.quantize.find import linears
from worldrt.export.quantize.gate import Limits
from worldrt.export.quantize.measure import buffers, magnitude, probe
from worldrt.export.quantize.runs import recorded
from worldrt.export.quantize.scheme import FP8, INT8, MXFP8
from worldrt.export.quantize.static import KEPT, insert, ranged
from worldrt.export.quantize.twin import float32_twin
from worldrt.export.run import export_bundle
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape

TASK = "video2world"
SCALES = f"{TASK}/scales.safetensors"
PROFILE = {"frames": Range(1, 2, 5), "rows": Range(4, 5, 8), "columns": Range(8, 8, 8), "text": Range(64, 512, 512)}


@pytest.fixture(scope="module")
def half(nano_bundle, tmp_path_factory):
    """The video model in blocks, in bfloat16, on the weights of the nano bundle."""
    folder = tmp_path_factory.mktemp("half") / "blocks"
    options = Options("nano", task=TASK, components=(TASK,), form="block", precision="bf16")
    export_bundle(options, folder, checkpoint=nano_bundle / "checkpoint", verified=False, torch_program=False)
    return folder


@pytest.fixture(scope="module")
def exact(half, tmp_path_factory):
    """The same in float32."""
    folder = tmp_path_factory.mktemp("exact")
    float32_twin(load_bundle(half), folder)
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory, exact):
    """A folder of made-up recorded inputs."""
    folder = tmp_path_factory.mktemp("calls")
    graphs = load_bundle(exact).manifest.denoisers[TASK].graphs
    specs = {s.name: s for s in (*graphs["block"].inputs, *graphs["embed"].inputs)}
    rng = np.random.default_rng(0)
    axes = {"batch": 1, "frames": 2, "rows": 3, "columns": 4, "text": 8}
    wanted = ("x", "clean", "text")
    for index, level in enumerate((30.0, 0.5)):
        inputs = {name: rng.standard_normal(specs[name].resolve(axes)).astype(np.float32) for name in wanted}
        inputs |= {"level": np.full((1, 2), level, np.float32), "position": np.arange(2, dtype=np.float32)}
        inputs |= {"mask": np.array([[1, 0]], np.float32)}
        inputs["x"] *= np.float32(1 + level)
        np.savez(folder / f"{TASK}-{index:04}-cond.npz", **inputs)
    return folder


@pytest.fixture(scope="module")
def fp8(exact, half, calls, tmp_path_factory):
    """Folders of bundles quantised to fp8, in float32 and in bfloat16."""
    made = {}
    for name, source in (("float32", exact), ("bfloat16", half)):
        made[name] = tmp_path_factory.mktemp("fp8") / name
        job.quantize_bundle(source, made[name], job.Settings(FP8, calibration=calls, limits=Limits().loosened(2)))
    return made


def off(actual, exact):
    return np.linalg.norm(actual - exact) / np.linalg.norm(exact)


def x0(bundle, call, folder):
    chain = Chain(bundle, TASK, folder)
    return next(chain.result(name, done).copy() for name, done in chain.blocks(call) if name == "x0")


def quantized_whole(bundle, scheme, keep, calls, folder):
    """The ranges of the whole form for the layers that the block graph holds, and x0 of each call where they are
    quantised."""
    graph = bundle.manifest.denoisers[TASK].graphs["denoise"]

    def layers(model):
        kept = [KEPT, keep] if keep else [KEPT]
        names = [w.name for w in graph.weights if not any(pattern.search(w.name) for pattern in kept)]
        inside = {i: {"rest": i < 3, "projection": i > 0} for i in range(4)}
        found = ((linear, re.search(r"blocks\.(\d)\.(\w+)\.", linear.name)) for linear in linears(model.graph, names))
        return [linear for linear, place in found if inside[int(place[1])][place[2]]]

    model = ir.load(bundle.path(graph.file))
    values = ranged(layers(model), scheme)
    names = [value.name for value in values]
    scalars = {f"amax {value.name}": magnitude(model.graph, value) for value in values}
    measure = probe(bundle, graph, folder / "ranges.onnx", model, scalars)
    rows = [measure(call) for call in calls]
    amax = {name: max(row[f"amax {name}"] for row in rows) for name in names}
    model = ir.load(bundle.path(graph.file))
    store = open_weights(bundle, bundle.manifest.denoisers[TASK])
    keys = {weight.name: weight.key for weight in graph.weights}
    insert(model.graph, layers(model), scheme, amax, lambda name, block: weight_amax(store, keys[name], block))
    whole = probe(bundle, graph, folder / "whole.onnx", model, {})
    return amax, [whole.run(buffers(call))["x0"].numpy().copy() for call in calls]


@pytest.mark.parametrize(
    ("scheme", "layers"), [(FP8, ""), (FP8, "mlp_out"), (FP8, r"rest\.output"), (INT8, ""), (INT8, "mlp_out")]
)
def test_blocks_are_the_whole_form_where_the_same_layers_are_quantised(
    nano_bundle, exact, calls, tmp_path, scheme, layers
):
    """A value at the middle of two steps may fall to either side, which moves others: after a few layers all of them.
    So x0 is compared for one layer of each block."""
    given, keep = recorded(calls, TASK), re.compile(f"^(?!.*{layers})") if layers else None
    bundle = load_bundle(exact)
    entry = bundle.manifest.denoisers[TASK]
    shutil.copytree(exact, tmp_path / "blocks")
    amax = block_ranges(bundle, TASK, scheme, keep, given)
    assert all(row.shape == (3,) and len(set(row)) > 1 for name, row in amax.items() if "_to_copy" not in name)
    made, files = quantize_blocks(tmp_path / "blocks", entry, scheme, keep, amax, open_weights(bundle, entry))
    entry = replace(made, quantization=scheme.name)
    write_manifest(tmp_path / "blocks", replace(bundle.manifest, denoisers={TASK: entry}, files=files))
    blocks = load_bundle(tmp_path / "blocks")
    ranges, expected = quantized_whole(load_bundle(nano_bundle), scheme, keep, given, tmp_path)
    ours, theirs = (np.array(sorted(values)) for values in (np.concatenate(list(amax.values())), ranges.values()))
    for these, those in ((ours, theirs), (theirs, ours)):  # one side has its text once for each block
        assert (np.abs(these[:, None] / those - 1).min(axis=1) < 1e-5).all()
    for number, (call, reference) in enumerate(zip(given, expected, strict=True)):
        actual = x0(blocks, call, tmp_path / f"actual {number}")
        untouched = x0(bundle, call, tmp_path / f"exact {number}")
        assert off(actual, reference) < (0.25 if layers else 1) * off(actual, untouched)
        assert 1e-5 < off(actual, untouched) < 0.1


def test_the_gate_measures_blocks_and_steps(exact, fp8):
    before, after = (load_bundle(folder) for folder in (exact, fp8["float32"]))
    old, new = (bundle.manifest.denoisers[TASK] for bundle in (before, after))
    assert (new.quantization, new.scales, list(after.manifest.files)) == ("fp8", SCALES, [SCALES])
    assert new.quality.psnr_db is None and [step.level for step in new.quality.steps] == [30, 0.5]
    assert set(new.quality.blocks) == {"0", "1", "2"} and all(1e-3 < e < 0.1 for e in new.quality.blocks.values())
    assert (old.graphs["embed"], old.graphs["head"]) == (new.graphs["embed"], new.graphs["head"])
    assert new.graphs["block"].weights[: len(old.graphs["block"].weights)] == old.graphs["block"].weights
    assert after.path(SCALES).stat().st_size < 100_000


def test_what_is_worse_than_the_limit_is_not_written(exact, calls, tmp_path):
    settings = job.Settings(FP8, calibration=calls, limits=Limits(step_error=1e-4))
    with pytest.raises(InputError, match="x0 is off by"):
        job.quantize_bundle(exact, tmp_path / "out", settings)
    assert not any(tmp_path.iterdir())


def test_ranges_that_are_no_numbers_are_named(exact, calls, tmp_path):
    (call, *_) = recorded(calls, TASK)
    wrong = replace(call, inputs={**call.inputs, "text": call.inputs["text"] * np.float32(np.nan)})
    with pytest.raises(InputError, match="of block 0' has a magnitude of nan"):
        block_ranges(load_bundle(exact), TASK, FP8, None, [wrong])


def test_a_runtime_runs_blocks_with_their_scales(fp8, calls, tmp_path):
    bundle = load_bundle(fp8["float32"])
    model = DenoiserModel(Opener(bundle, Execution()), bundle.manifest.denoisers[TASK])
    (call, *_) = recorded(calls, TASK)
    inputs = dict(call.inputs)
    text = inputs.pop("text")[0]
    bound = model.bind(DenoiserShape(16, 2, 6, 8, len(text)), guided=False)
    for name, array in inputs.items():
        bound.fill(name, array)
    bound.fill_text(text, None)
    bound.run()
    assert off(bound.cond.numpy(), x0(bundle, call, tmp_path / "chain")) < 1e-6


def test_scales_are_constants_of_each_block(fp8):
    """They lie in the ONNX bytes, whatever folder the checkpoint is in; the file itself is the oracle."""
    bundle = load_bundle(fp8["float32"])
    entry = bundle.manifest.denoisers[TASK]
    graph, stored = entry.graphs["block"], load_file(bundle.path(SCALES))
    held = [weight.name for weight in graph.weights if weight.key.startswith("scale.")]
    assert len(held) == 10 + 13 and len(stored) == 3 * len(held)
    for block in range(3):
        constants = constants_of(graph, open_weights(bundle, entry), block)
        model = onnx.load_model_from_string(with_constants(bundle.path(graph.file).read_bytes(), constants))
        found = {tensor.name: tensor for tensor in model.graph.initializer}
        for name in held:
            assert np.array_equal(numpy_helper.to_array(found[name]), stored[f"scale.{block}.{name}"])
        assert {entry.value for entry in found["rest.mlp_in.weight"].external_data if entry.key == "location"} == {
            f"{TASK}/diffusion_pytorch_model.safetensors"
        }


def jobs(bundle, block_weights="auto", capability="8.9"):
    store = open_weights(bundle, bundle.manifest.denoisers[TASK])
    wish = Wish("tensorrt_rtx", Target((capability,)), overrides=PROFILE, block_weights=block_weights)
    return jobs_of(bundle, TASK, store, wish)


def test_scales_are_part_of_the_key_of_a_plan(fp8, tmp_path):
    def keys(folder):
        made = [job for job in jobs(load_bundle(folder)) if job.block is not None]
        return [plan_key(job, "1.7.1", ContentHashes()).digest for job in made]

    shutil.copytree(fp8["float32"], tmp_path / "moved")
    before = keys(fp8["float32"])
    assert len(set(before)) == 3 and keys(tmp_path / "moved") == before
    change(tmp_path / "moved", lambda scales: scales["scale.1.rest.mlp_in.weight.scale"].__imul__(np.float32(2)))
    assert [a == b for a, b in zip(keys(tmp_path / "moved"), before, strict=True)] == [True, False, True]


def change(folder, edit):
    """Edit the scales of a bundle, and have it believe in them."""
    scales = {key: array.copy() for key, array in load_file(folder / SCALES).items()}
    edit(scales)
    save_file(scales, folder / SCALES)
    place = folder / "bundle.json"
    data = json.loads(place.read_text())
    data["files"][SCALES] = file_sha256(folder / SCALES)
    place.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda scales: scales["scale.0.rest.mlp_in.weight.scale"].__setitem__(3, 0), "finite scales above 0"),
        (lambda scales: scales["scale.2.rest.mlp_in.weight.scale"].__setitem__(3, np.nan), "finite scales above 0"),
        (lambda scales: scales["scale.1.rest.mlp_in.weight.scale"].__setitem__(0, np.inf), "finite scales above 0"),
        (lambda scales: scales["scale.1.rest.mlp_in.weight.scale"].__imul__(np.float32(-1)), "finite scales above 0"),
        (lambda scales: scales.pop("scale.2.rest.mlp_in.weight.scale"), "scale.2.rest.mlp_in.*no weight file holds"),
        (
            lambda scales: scales.update({"scale.0.rest.mlp_in.weight.scale": np.ones(3, np.float32)}),
            "expected float32",
        ),
        (lambda scales: scales.update({"patch_embed.proj.weight": np.ones(3, np.float32)}), "expected finite scales"),
    ],
)
def test_broken_scales_are_refused(fp8, tmp_path, edit, words):
    shutil.copytree(fp8["float32"], tmp_path / "bundle")
    change(tmp_path / "bundle", edit)
    bundle = load_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match=words):
        open_weights(bundle, bundle.manifest.denoisers[TASK])


def test_scales_that_were_changed_or_are_gone_are_refused(fp8, tmp_path):
    shutil.copytree(fp8["float32"], tmp_path / "bundle")
    with (tmp_path / "bundle" / SCALES).open("ab") as file:
        file.write(b"0")
    with pytest.raises(BundleError, match="changed since the export"):
        load_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / SCALES).unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("place", ["../scales.safetensors", "/{}/scales.safetensors", "link/scales.safetensors"])
def test_scales_lie_in_the_bundle(fp8, tmp_path, place):
    """A file outside is not read, even where the manifest has its right hash."""
    folder = tmp_path / "bundle"
    shutil.copytree(fp8["float32"], folder)
    shutil.copyfile(folder / SCALES, tmp_path / "scales.safetensors")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    place = place.replace("/{}", str(tmp_path))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["denoisers"][TASK]["scales"] = place
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"scales: expected one of the bundle's files"):
        load_bundle(folder)
    manifest["files"] = {place: file_sha256(tmp_path / "scales.safetensors")}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="must stay inside it"):
        load_bundle(folder)


def test_scales_belong_to_quantised_blocks(fp8, tmp_path):
    bundle = load_bundle(fp8["float32"])
    entry = replace(bundle.manifest.denoisers[TASK], quantization=None, quality=None)
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    write_manifest(tmp_path / "bundle", replace(bundle.manifest, denoisers={TASK: entry}))
    with pytest.raises(BundleError, match="scales: expected a quantised denoiser in block form"):
        load_bundle(tmp_path / "bundle")


def test_half_precision_has_scales_of_both_kinds(fp8):
    """What a weight is quantised by, in float32, is what it is dequantised by, in bfloat16."""
    file = SafetensorsFile.open(load_bundle(fp8["bfloat16"]).path(SCALES))
    key = "scale.1.rest.mlp_in.weight.scale"
    fine, coarse = file[key].numpy(), file[f"{key}.BFLOAT16"].numpy()
    assert fine.dtype == np.float32 and file.tensors[f"{key}.BFLOAT16"].dtype == "bfloat16"
    assert np.array_equal(fine.view(np.uint32), coarse.astype(np.uint32) << 16)


@pytest.mark.tensorrt
@pytest.mark.parametrize("capability", ["8.9", "12.0"])
def test_blocks_are_compiled_in_fp8_with_their_weights_as_constants(fp8, tmp_path, capability):
    pytest.importorskip("tensorrt_rtx")
    made = {job.name.removeprefix(f"{TASK}/"): job for job in jobs(load_bundle(fp8["bfloat16"]), "auto", capability)}
    assert list(made) == ["embed", "block 0", "block 1", "block 2", "head"]
    report = build_plan(made["block 1"], tmp_path / "plan")
    taken = {line: re.findall(r"(\w+)\[", line.partition(": ")[2].partition(" -> ")[0]) for line in report.layers}
    names = " ".join(line for line, types in taken.items() if line.startswith("gemm ") and "FP8" in types)
    assert all(f"rest.0.node_linear_{layer}_" in names for layer in (2, 5, 8, 11, 12))
    assert "rest.0.node_linear_6" in names and "project.0.node_linear_2" in names
    attentions = [types for line, types in taken.items() if "_gemm_mha" in line.partition(":")[0]]
    assert len(attentions) == 2 and all(set(types) == {"FP8"} for types in attentions) and not report.warnings
    store = open_weights(load_bundle(fp8["bfloat16"]), load_bundle(fp8["bfloat16"]).manifest.denoisers[TASK])
    matrices = {c.name: c for c in made["block 1"].constants if len(c.shape) == 2}
    quantised = [name for name in matrices if not KEPT.search(name)]
    assert len(quantised) == 10 and store.own is not None
    expected = sum(np.prod(c.shape) * (1 if name in quantised else 2) for name, c in matrices.items())
    assert report.weight_bytes == pytest.approx(expected, rel=0.02)


def test_quantised_blocks_do_not_take_their_weights_as_inputs(fp8):
    with pytest.raises(UnsupportedError, match="--block_weights constants"):
        jobs(load_bundle(fp8["bfloat16"]), "inputs")


def test_weights_alone_are_for_the_whole_form(exact, calls, tmp_path):
    with pytest.raises(InputError, match="mxfp8 wants a denoiser in whole form"):
        job.quantize_bundle(exact, tmp_path / "out", job.Settings(MXFP8, calibration=calls))
    assert not any(tmp_path.iterdir())
