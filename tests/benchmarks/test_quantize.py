"""int8 against the exact graph, and against the formula in float64."""

import numpy as np
import onnx_ir as ir
import pytest

from worldrt.engine.bundle import load_bundle
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import InputError
from worldrt.engine.session import open_session
from worldrt.engine.weights import open_weights
from worldrt.export.quantize.dynamic import LIMIT, quantize_bundle, quantized
from worldrt.export.quantize.static import KEPT


@pytest.fixture(scope="module")
def int8(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "nano"
    quantize_bundle(bundle, folder)
    return folder


def x0(folder, level):
    bundle = load_bundle(folder)
    spec = bundle.manifest.denoisers["video2world"]
    graph = spec.graphs["denoise"]
    session = open_session(
        "onnxruntime", bundle.path(graph.file), graph, HostDevice(), weight_root=bundle.weight_root,
        options={"threads": 1},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    text_width = next(s for s in graph.inputs if s.name == "text").shape[2]
    shape = (1, 16, 3, 8, 12)
    given = {
        "x": rng.standard_normal(shape, np.float32) * np.float32(1 + level),
        "level": np.full((1, 3), level, np.float32),
        "text": rng.standard_normal((1, 9, text_width), np.float32),
        "position": np.arange(3, dtype=np.float32),
        "clean": rng.standard_normal(shape, np.float32),
        "mask": np.eye(1, 3, dtype=np.float32),
    }
    call = session.bind({}, {name: host_buffer(array) for name, array in given.items()})
    call.run()
    return call["x0"].numpy().copy()


def test_the_error_of_x0_is_small_but_not_zero(bundle, int8):
    for level in (80.0, 2.0, 0.05):
        exact = x0(bundle, level).astype(np.float64)
        error = np.linalg.norm(x0(int8, level) - exact) / np.linalg.norm(exact)
        assert 1e-5 < error < 0.04, level


def test_the_manifest_says_what_was_done(bundle, int8):
    before, after = (load_bundle(folder).manifest.denoisers["video2world"] for folder in (bundle, int8))
    assert (before.quantization, after.quantization) == (None, "int8")
    left = {weight.name for weight in after.graphs["denoise"].weights}
    gone = {weight.name for weight in before.graphs["denoise"].weights} - left
    assert gone and all(name.endswith(".weight") and not KEPT.search(name) for name in gone)
    assert any("to_q" in name for name in gone) and any("norm" in name for name in left)
    assert after.graphs["denoise"].program is None
    open_weights(load_bundle(int8), after)  # the others still lie in the checkpoint


def test_integers_in_the_file_are_those_of_the_formula(bundle, int8):
    loaded = load_bundle(int8)
    graph = loaded.manifest.denoisers["video2world"].graphs["denoise"]
    tensors = ir.load(loaded.path(graph.file)).graph.initializers
    exact = load_bundle(bundle)
    spec = exact.manifest.denoisers["video2world"]
    store = open_weights(exact, spec)
    (weight,) = (w for w in spec.graphs["denoise"].weights if w.name.endswith("blocks.1.rest.mlp_in.weight"))
    values = store[weight.key].numpy().astype(np.float64)
    step = np.abs(values).max(axis=1) / LIMIT
    stored = tensors[f"{weight.name}.int8"].const_value.numpy()
    assert stored.dtype == np.int8 and np.abs(stored).max() == LIMIT
    assert np.abs(stored.T * step[:, None] - values).max() <= 0.5001 * step.max()
    np.testing.assert_allclose(tensors[f"{weight.name}.scale"].const_value.numpy(), step, rtol=1e-6)


def test_a_row_of_zeros_has_a_scale():
    values, scale = quantized(np.zeros((2, 3), np.float32))
    assert values.shape == (3, 2) and not values.any() and (scale == 1).all()


def test_sums_of_pairs_fit_16_bits():
    assert 2 * 255 * LIMIT < 2**15


def test_blocks_and_half_precision_are_refused(bundle, tmp_path):
    from dataclasses import replace

    from worldrt.export.quantize.dynamic import quantize_manifest

    manifest = load_bundle(bundle).manifest
    entry = manifest.denoisers["video2world"]
    for change, words in (({"form": "block"}, "whole form"), ({"precision": "bfloat16"}, "float32")):
        changed = replace(manifest, denoisers={"video2world": replace(entry, **change)})
        with pytest.raises(InputError, match=words):
            quantize_manifest(changed, tmp_path, tmp_path)


def test_a_bundle_with_torch_programs_stays_whole(nano_bundle, tmp_path):
    """Those of the quantised graphs go, the others stay and are checked like every file."""
    quantize_bundle(nano_bundle, tmp_path / "int8")
    manifest = load_bundle(tmp_path / "int8").manifest
    assert "video2world/denoise.pt2" not in manifest.files and not list((tmp_path / "int8").glob("*2*/*.pt2"))
    assert "vae/decode_next.pt2" in manifest.files
