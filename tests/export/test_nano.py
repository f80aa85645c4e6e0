"""A whole bundle: every graph against torch, nothing copied, both forms alike, every size runs."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest

from worldrt.engine.bundle import load_bundle
from worldrt.engine.device import HostDevice
from worldrt.engine.session import open_session
from worldrt.engine.tensors import solve_axes
from worldrt.engine.weights import open_weights
from worldrt.export.check import check_graph
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.export.verify import random_inputs, run_graph

SIZES = [
    {"batch": 1, "frames": 1, "rows": 5, "columns": 8, "text": 1},
    {"batch": 2, "frames": 3, "rows": 3, "columns": 5, "text": 7},
]


@pytest.fixture(scope="module")
def bundle(nano_bundle):
    return load_bundle(nano_bundle)


def graphs_of(bundle):
    return [(c, g) for c in bundle.manifest.components().values() for g in c.graphs.values()]


def test_the_manifest_says_all_that_a_runtime_needs(bundle, nano_bundle):
    m = bundle.manifest
    assert (m.family, m.variant, set(m.denoisers)) == ("cosmos", "nano", {"text2image", "video2world"})
    video = m.denoisers["video2world"]
    assert (video.form, video.blocks, video.precision, video.frames) == ("whole", 4, "float32", {"16": 17, "10": 17})
    assert {n: c.bind for n, c in video.conditions.items()} == {
        "level": "frame", "text": "clip", "position": "frame", "clean": "frame", "mask": "frame",
    }  # fmt: skip
    image = m.denoisers["text2image"]
    assert (image.guidance.scale, video.guidance.scale, video.guidance.convention) == (1, 1, "delta")
    assert (m.vae.channels, m.vae.spatial, m.vae.temporal, m.text.max_tokens) == (
        16,
        8,
        4,
        variant("nano", "text2image").t5.tokens,
    )
    assert bundle.weight_root == nano_bundle / "checkpoint"
    for component in m.components().values():
        open_weights(bundle, component)


def test_no_weight_is_in_the_bundle(bundle):
    """All of 10 M parameters are references; what is embedded are numbers of shapes."""
    stored = sum(f.size_bytes for f in bundle.manifest.weights.files.values())
    assert stored > 30e6
    for component, graph in graphs_of(bundle):
        check_graph(bundle.path(graph.file), bundle.weight_root)
        proto = onnx.load(bundle.path(graph.file), load_external_data=False)
        external = {t.name for t in proto.graph.initializer if t.data_location}
        assert external == {w.name for w in graph.weights}
        embedded = sum(len(t.raw_data) for t in proto.graph.initializer if not t.data_location)
        attributes = sum(len(a.t.raw_data) for n in proto.graph.node for a in n.attribute)
        assert embedded + attributes < 4000, graph.file
        assert bundle.path(graph.program).stat().st_size < 3e6
        assert component.files


def test_every_input_and_output_is_declared(bundle):
    for _, graph in graphs_of(bundle):
        proto = onnx.load(bundle.path(graph.file), load_external_data=False).graph
        assert [v.name for v in proto.input] == [s.name for s in graph.inputs]
        assert [v.name for v in proto.output] == [s.name for s in graph.outputs]
        names = {d.dim_param for v in (*proto.input, *proto.output) for d in v.type.tensor_type.shape.dim}
        assert all(name == "" or name.isidentifier() for name in names)


def torch_call(session, inputs):
    given = {name: session.device.empty(array.shape, array.dtype.name) for name, array in inputs.items()}
    for name, array in inputs.items():
        given[name].numpy()[...] = array
    call = session.bind({}, given)
    call.run()
    return {spec.name: call[spec.name].numpy() for spec in session.graph.outputs}


def test_onnxruntime_and_the_torch_backend_agree_at_any_size(bundle):
    """Also with one frame, one row of text, and odd numbers; the traces were of other sizes."""
    for component, graph in graphs_of(bundle):
        path, root, store = bundle.path(graph.file), bundle.weight_root, open_weights(bundle, component)
        session = open_session("torch", path, graph, HostDevice(), weight_root=root, weights=store)
        for axes in SIZES:
            inputs = random_inputs(graph.inputs, axes)
            actual = run_graph(graph, path, inputs, {}, root)
            for name, value in torch_call(session, inputs).items():
                step = 1 if value.dtype == np.uint8 else 1e-4 * max(1e-3, float(np.abs(value).max()))
                assert np.abs(value.astype(float) - actual[name]).max() <= step, (graph.file, name, axes)


def test_a_bundle_with_its_checkpoint_inside_can_be_moved(nano_bundle, tmp_path):
    shutil.copytree(nano_bundle, tmp_path / "moved")
    bundle = load_bundle(tmp_path / "moved")
    graph = bundle.manifest.text.graphs["encode"]
    inputs = random_inputs(graph.inputs, {"batch": 1, "text": 4})
    run_graph(graph, bundle.path(graph.file), inputs, {}, bundle.weight_root)
    assert bundle.weight_root.is_relative_to(tmp_path)


@pytest.fixture(scope="module")
def blocks(nano_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("block") / "nano"
    options = Options("nano", task="video2world", form="block", components=("video2world",))
    report = export_bundle(options, folder, checkpoint=nano_bundle / "checkpoint", torch_program=False)
    assert all(row.passed for row in report.verified) and len(report.verified) == 7 + 3 + 1
    return load_bundle(folder)


@pytest.mark.parametrize("axes", SIZES, ids=["smallest", "odd"])
def test_the_chain_of_blocks_is_the_whole(bundle, blocks, axes):
    component = blocks.manifest.denoisers["video2world"]
    whole = bundle.manifest.denoisers["video2world"].graphs["denoise"]
    inputs = random_inputs(whole.inputs, axes)
    expected = run_graph(whole, bundle.path(whole.file), inputs, {}, bundle.weight_root)["x0"]
    store = open_weights(blocks, component)
    known = dict(inputs)

    def step(name, block=0):
        graph = component.graphs[name]
        taken = {spec.name: known[spec.name] for spec in graph.inputs}
        made = run_graph(graph, blocks.path(graph.file), taken, store.of_graph(graph, block), blocks.weight_root)
        known.update({key.removeprefix("next_"): value for key, value in made.items()})

    known["row"] = np.array([[0, axes["rows"]]] * axes["frames"], np.float32)
    step("embed")
    for i in range(component.blocks - 1):
        step("block", i)
    step("head")
    np.testing.assert_allclose(known["x0"], expected, atol=1e-5 * np.abs(expected).max())
    assert solve_axes(whole.inputs, {"x": known["x0"].shape})["frames"] == axes["frames"]


def test_attention_reaches_over_more_frames_than_its_own(blocks):
    """`kv` may hold the frames of other devices: half the frames, given all K and V, give half of the result."""
    component = blocks.manifest.denoisers["video2world"]
    graph = component.graphs["block"]
    weights = open_weights(blocks, component).of_graph(graph, 0)
    axes = {"batch": 1, "frames": 4, "context_frames": 4, "tokens": 6, "text": 3}
    inputs = random_inputs(graph.inputs, axes)
    path, root = blocks.path(graph.file), blocks.weight_root
    whole = run_graph(graph, path, inputs, weights, root)
    frame_axis = {"hidden": 1, "q": 2, "emb": 1, "lora": 1, "rope_cos": 0, "rope_sin": 0}
    half = {n: np.ascontiguousarray(v.take((0, 1), frame_axis[n])) if n in frame_axis else v for n, v in inputs.items()}
    part = run_graph(graph, path, half, weights, root)
    scale = np.abs(whole["next_hidden"]).max()
    np.testing.assert_allclose(part["next_hidden"], whole["next_hidden"][:, :2], atol=1e-5 * scale)


def test_half_precision_runs_as_it_is(nano_bundle, tmp_path):
    """float16 in all three graphs of the block form, from float32 weights."""
    options = Options("nano", task="text2image", precision="fp16", form="block", components=("text2image",))
    report = export_bundle(options, tmp_path / "b", checkpoint=nano_bundle / "checkpoint", torch_program=False)
    assert all(row.passed for row in report.verified), report.verified
    graph = load_bundle(tmp_path / "b").manifest.denoisers["text2image"].graphs["block"]
    assert {s.dtype for s in graph.inputs} == {"float16", "float32"}
    assert {w.dtype for w in graph.weights} == {"float32"}


def test_torch_programs_are_among_the_files_that_are_checked(nano_bundle):
    manifest = load_bundle(nano_bundle).manifest
    programs = {graph.program for part in manifest.components().values() for graph in part.graphs.values()}
    assert None not in programs and programs <= set(manifest.files)
