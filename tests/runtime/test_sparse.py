"""Sparse models: their chain of graphs on the host and on a fake GPU, what they refuse, and which bundle serves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.engine import bundle as b
from worldrt.engine.errors import BundleError, InputError, ShapeError
from worldrt.engine.plans import Range
from worldrt.engine.schema import SchemaError
from worldrt.engine.validate import check_manifest
from worldrt.export.families.cosmos.windows import Window, Windows
from worldrt.runtime import natten
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.request import Request, video_settings

from .test_engines import Gpu, load, run, same

A, B = Window((2, 3), dilation=(2, 2)), Window((2, 4), stride=(2, 2))
WINDOWS = Windows((4, 6), (A, B, A, B, A))
SHAPE = DenoiserShape(channels=16, frames=3, height=8, width=12, text=7)


@pytest.fixture(scope="module")
def bundle(stubs, tmp_path_factory):
    """A tiny sparse denoiser as ONNX graphs, in block form."""
    config, weights = stubs.tiny_weights(len(WINDOWS.blocks))
    folder = tmp_path_factory.mktemp("sparse") / "block"
    return stubs.denoiser_bundle(folder, replace(config, windows=WINDOWS), weights, "block", True)[0]


def spec_of(bundle) -> b.Denoiser:
    return bundle.manifest.denoisers["task"]


def test_a_graph_serves_the_blocks_of_its_window(bundle):
    spec = spec_of(bundle)
    assert list(spec.graphs) == ["embed", "block_2x3", "block_2x4", "head"]
    assert [list(spec.instances(name)) for name in spec.graphs] == [[0], [0, 2], [1, 3], [0]]
    assert [spec.block_graph(i) for i in range(4)] == ["block_2x3", "block_2x4"] * 2


def test_the_chain_of_graphs_is_the_whole_network(stubs, make_denoiser, bundle):
    config, weights = stubs.tiny_weights(len(WINDOWS.blocks))
    bound = load(bundle, options={"threads": 1}).bind(SHAPE, guided=True)
    assert bound.inputs["row"].numpy().tolist() == [[0, 4]] * 3, "all rows of tokens of each frame"
    chain = run(bound)
    whole = run(make_denoiser(replace(config, windows=WINDOWS), weights, "whole", "batched").bind(SHAPE, guided=True))
    dense = run(make_denoiser(config, weights, "block", "batched").bind(SHAPE, guided=True))
    scale = np.abs(whole[-1]).max()
    assert np.abs(chain[-1] - whole[-1]).max() < 1e-4 * scale < 1e-2 * np.abs(dense[-1] - whole[-1]).max()


@pytest.mark.parametrize("weights", ["inputs", "constants"])
def test_engines_sample_as_onnx_runtime(monkeypatch, tmp_path, bundle, weights):
    gpu = Gpu(monkeypatch, tmp_path / "plans", lambda form: bundle)
    model = gpu.model(block_weights=weights, profile={"text": Range(7, 7, 7)})
    same(run(model.bind(SHAPE, guided=True)), run(load(bundle, options={"threads": 1}).bind(SHAPE, guided=True)))
    assert len(gpu.trt.builds) == {"inputs": 4, "constants": 6}[weights] and not gpu.cuda.violations


def test_blocks_of_all_windows_come_to_the_device_in_turn(monkeypatch, tmp_path, bundle):
    def make(limit=None):
        gpu = Gpu(monkeypatch, tmp_path / "plans", lambda form: bundle)
        return gpu, gpu.model(profile={"text": Range(7, 7, 7)}, gpu_memory_gb=limit)

    _, whole = make()
    kept = whole.bind(SHAPE, guided=True)
    need, block = whole.device.held_bytes, kept.blocks.block_bytes
    gpu, model = make((need - 0.5 * block) / 1e9)
    made = run(model.bind(SHAPE, guided=True))
    assert model._blocks.resident == 1 and not gpu.cuda.violations
    same(made, run(load(bundle, options={"threads": 1}).bind(SHAPE, guided=True)))


def test_another_size_and_a_single_frame_are_refused(bundle):
    with pytest.raises(ShapeError, match=r"8, 12"):
        load(bundle).bind(replace(SHAPE, height=4), guided=True)
    with pytest.raises(ShapeError, match="two latent frames or more, got 1"):
        load(bundle).bind(replace(SHAPE, frames=1), guided=True)


def test_a_request_must_fit_the_windows(bundle):
    spec = replace(spec_of(bundle), frames={"16": 17})

    def settle(**request):
        return video_settings(Request("a car", **request), spec, temporal=4, clean_frames=0)

    settings = settle()
    assert (settings.width, settings.height) == (96, 64)
    for request, message in (
        ({"width": 128, "height": 64}, "windows for 96x64 alone"),
        ({"aspect_ratio": "1:1"}, "16:9"),
        ({"num_frames": 1}, "makes clips, got 1 frame"),
    ):
        with pytest.raises(InputError, match=message):
            settle(**request)


@pytest.mark.parametrize(
    ("sparse", "sizes", "message"),
    [
        (b.Sparse((4, 6), ("2x3",) * 4), {}, "one for each of 5 blocks, got 4"),
        (b.Sparse((4, 6), ("2x3",) * 4 + ("../x",)), {}, "names such as 12x24"),
        (b.Sparse((4, 8), WINDOWS.names()), {}, r"\(128, 64\) alone"),
        (b.Sparse((4, 6), WINDOWS.names()), {"1:1": (96, 96)}, r"\(96, 64\) alone"),
        (b.Sparse((4, 6), ("2x3",) * 5), {}, "block_2x3 and embed and head"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle, sparse, sizes, message):
    spec = spec_of(bundle)
    spec = replace(spec, sparse=sparse, sizes={"any": spec.sizes["any"] | sizes})
    check_manifest(bundle.manifest)
    with pytest.raises(SchemaError, match=message):
        check_manifest(replace(bundle.manifest, denoisers={"task": spec}))


def kinds(stubs, folder, windows):
    """A bundle on disk of a video model that nothing is run with."""
    spec = stubs.denoiser_spec({}, "whole", 5, "m", sizes={"any": {"16:9": (96, 64)}}, frames={"16": 17})
    spec = replace(spec, sparse=b.Sparse((4, 6), windows.names()) if windows else None)
    manifest = b.Manifest(b.SCHEMA, "cosmos", "2B", {}, b.Weights(".", {}), {"video2world": spec})
    folder.mkdir()
    b.write_manifest(folder, manifest)
    assert b.read_manifest(folder) == manifest
    return SimpleNamespace(folder=folder, manifest=manifest)


def test_the_kind_that_is_asked_for_serves(stubs, tmp_path):
    dense, sparse = kinds(stubs, tmp_path / "2B", None), kinds(stubs, tmp_path / "2B-natten", WINDOWS)
    found = [dense.folder, sparse.folder]
    assert natten.ordered(found, False) == found and natten.ordered(found, True) == found[::-1]

    def check(bundle, task, asked, named=False):
        opener = SimpleNamespace(bundle=bundle)
        natten.check(SimpleNamespace(opener=lambda task: opener), task, asked, named=named)

    for task in ("video2world", "text2world", "bestofn"):
        check(dense, task, False)
        check(sparse, task, True)
        check(sparse, task, False, named=True)
        with pytest.raises(InputError, match="trt-export --model 2B --natten"):
            check(dense, task, True, named=True)
        with pytest.raises(InputError, match="run it with --natten"):
            check(sparse, task, False)
    check(sparse, "text2image", False)
    with pytest.raises(InputError, match="about videos"):
        check(dense, "text2image", True)


def test_a_folder_without_a_bundle_is_named(tmp_path):
    with pytest.raises(BundleError, match="no bundle here"):
        natten.ordered([tmp_path], True)
