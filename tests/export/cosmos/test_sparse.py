"""Neighbourhood attention against a mask of all pairs of tokens, and against NATTEN itself; sparse models exported."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldrt.engine.bundle import load_bundle
from worldrt.engine.errors import InputError
from worldrt.engine.jobs import Wish, jobs_of
from worldrt.engine.plans import Target
from worldrt.engine.weights import open_weights
from worldrt.export import cli
from worldrt.export.choose import model_of
from worldrt.export.families.cosmos.denoiser import Denoise
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.graphs import denoiser_graphs
from worldrt.export.families.cosmos.neighbourhood import Neighbourhood, axis_groups, calls
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.families.cosmos.windows import WINDOWS_2B, WINDOWS_14B, WINDOWS_NANO, Window
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.export.verify import run_graph

NANO = variant("nano", "video2world").sparse("720")
CASES = [
    *((WINDOWS_NANO.grid, window) for window in WINDOWS_NANO.blocks[:2]),
    ((6, 5), Window((2, 2))),
    ((11, 10), Window((4, 3), stride=(3, 1), dilation=(2, 3))),
    ((9, 12), Window((3, 5), stride=(3, 4))),
    ((8, 6), Window((8, 6))),
    ((12, 20), Window((4, 4), dilation=(3, 5))),
]


def reads(query: int, key: int, length: int, size: int, stride: int, dilation: int) -> bool:
    """NATTEN's own words: the window of a stride group's leader, its centre held back from the borders."""
    if query % dilation != key % dilation:
        return False
    count = len(range(query % dilation, length, dilation))
    left, right = size // 2, size // 2 + size % 2 - 1
    leader = min(query // dilation // stride * stride + stride // 2, count - 1)
    centre = min(max(leader, left), count - 1 - right)
    return -left <= key // dilation - centre <= right


def mask(window: Window, grid: tuple[int, int]) -> torch.Tensor:
    """Whether a token of a frame reads another: (S, S)."""
    axes = [
        torch.tensor([[reads(q, k, *axis) for k in range(axis[0])] for q in range(axis[0])])
        for axis in zip(grid, window.size, window.stride, window.dilation, strict=True)
    ]
    return (axes[0][:, None, :, None] & axes[1][None, :, None, :]).reshape(math.prod(grid), math.prod(grid))


def masked(window: Window, grid: tuple[int, int]):
    """Attention of everything to everything, with a mask."""
    allowed = mask(window, grid)

    def attend(q, k, v):
        spread = allowed.repeat(q.shape[2] // len(allowed), k.shape[2] // len(allowed))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, spread).transpose(1, 2).flatten(2)

    return attend


@pytest.mark.parametrize(("grid", "window"), CASES)
@pytest.mark.parametrize(("frames", "context"), [(3, 3), (1, 4)], ids=["clip", "shard"])
def test_it_is_attention_with_a_mask(grid, window, frames, context):
    tokens = math.prod(grid)
    q, k, v = (torch.randn(2, 3, n * tokens, 8, dtype=torch.float64) for n in (frames, context, context))
    expected = masked(window, grid)(q, k, v)
    assert (Neighbourhood(window, grid)(q, k, v) - expected).abs().max() < 1e-12
    if window.size != grid:
        assert (
            masked(replace(window, size=grid, stride=(1, 1), dilation=(1, 1)), grid)(q, k, v) - expected
        ).std() > 0.1


@pytest.mark.filterwarnings("ignore::")
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_it_is_what_natten_computes(grid, window):
    natten = pytest.importorskip("natten.functional")
    frames, tokens = 3, math.prod(grid)
    q, k, v = (torch.randn(1, 2, frames * tokens, 16) for _ in range(3))
    expected = natten.neighborhood_attention_generic(
        *(x.transpose(1, 2).unflatten(1, (frames, *grid)).contiguous() for x in (q, k, v)),
        kernel_size=(frames, *window.size),
        stride=(1, *window.stride),
        dilation=(1, *window.dilation),
        backend="flex-fna",
    )
    assert (Neighbourhood(window, grid)(q, k, v) - expected.flatten(4).flatten(1, 3)).abs().max() < 1e-5


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_position_reads_its_window(data):
    size, dilation = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 5))
    stride = data.draw(st.integers(1, size))
    length = data.draw(st.integers(size * dilation, size * dilation + 30))
    seen = []
    for queries, keys in axis_groups(length, size, stride, dilation):
        seen += queries
        for query in queries:
            assert list(keys) == [key for key in range(length) if reads(query, key, length, size, stride, dilation)]
        assert len(keys) == size
    assert sorted(seen) == list(range(length))


def test_a_window_that_does_not_fit_is_refused():
    for wrong in ((7, 8, 1, 1), (16, 4, 1, 5), (16, 4, 5, 1), (16, 4, 0, 1)):
        with pytest.raises(ValueError, match="does not fit"):
            axis_groups(*wrong)


# the sparsity of each layer, in percent, as the official configuration states it
PUBLISHED = {
    "2B": {98: [0, 1], 95: [2, 5, 10], 92: [3, 4, 6, 7, 8, 9, 27], 77: [*range(11, 23), 24, 25, 26], 55: [23]},
    "14B": {
        98: range(11),
        95: [11, 12],
        92: range(13, 23),
        77: [23, 25, 29, 30, 33, 35],
        55: [24, 26, 28, 31, 32, 34],
        0: [27],
    },
}


@pytest.mark.parametrize(("size", "windows"), [("2B", WINDOWS_2B), ("14B", WINDOWS_14B)])
def test_the_windows_of_each_layer_leave_what_is_published(size, windows):
    expected = {block: percent for percent, blocks in PUBLISHED[size].items() for block in blocks}
    model = variant(size, "video2world").sparse("720")
    assert sorted(expected) == list(range(model.dit.blocks)) and model.dit.windows is windows
    tokens = math.prod(windows.grid)
    assert {table["16:9"] for table in model.sizes.values()} == {(windows.grid[1] * 16, windows.grid[0] * 16)}
    for block, window in enumerate(windows.blocks):
        done = 1.0
        if window is not None:
            tiles = [tile for call in calls(window, windows.grid) for tile in call]
            done = sum(len(tile.queries) * len(tile.keys) for tile in tiles) / tokens**2
            assert done == pytest.approx(math.prod(window.size) / tokens), "no product that is not needed"
        assert round(100 * (1 - done)) == expected[block]
    named = {window.name: window for window in windows.blocks if window is not None}
    assert len(named) == len({window for window in windows.blocks if window is not None}), "a name for each window"


def test_no_operator_gathers_much():
    for window in {window for window in WINDOWS_14B.blocks if window is not None}:
        for call in calls(window, WINDOWS_14B.grid):
            gathered = sum(len(tile.keys) for tile in call)
            assert gathered <= math.prod(WINDOWS_14B.grid)
            assert len({(len(tile.queries), len(tile.keys)) for tile in call}) == 1


def reference(state: dict[str, torch.Tensor]) -> Denoise:
    """The nano model as a dense one whose attention is masked."""
    dit = DiT(replace(NANO.dit, windows=None))
    dit.load_state_dict(state)
    for i, window in enumerate(WINDOWS_NANO.blocks):
        if window is not None:
            dit.block(i).rest.attend = masked(window, WINDOWS_NANO.grid)
    return Denoise(dit).requires_grad_(False)


def inputs(frames: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    shape = (2, 16, frames, 10, 16)
    return {
        "x": 3 * torch.randn(shape),
        "level": torch.rand(2, frames) * 5,
        "text": torch.randn(2, 7, NANO.dit.text_width),
        "position": torch.arange(frames, dtype=torch.float32),
        "clean": torch.randn(shape),
        "mask": torch.eye(1, frames).expand(2, -1),
    }


def test_the_network_in_both_forms_is_the_masked_one():
    dit = DiT(NANO.dit).requires_grad_(False)
    given = inputs()
    expected = reference(dit.state_dict())(*given.values())
    assert (Denoise(dit)(*given.values()) - expected).abs().max() < 1e-5 * expected.abs().max()
    dense = Denoise(DiT(replace(NANO.dit, windows=None)).requires_grad_(False))
    dense.dit.load_state_dict(dit.state_dict())
    assert (dense(*given.values()) - expected).abs().max() > 1e-2

    graphs = {source.name: source for source in denoiser_graphs(NANO.dit, "block", device="cpu")}
    assert list(graphs) == ["embed", "block_2x4", "block_3x4", "block_dense", "head"]
    state = {key: value for key, value in zip(*_official(dit), strict=True)}

    def run(name, *values, i=0):
        weights = {
            n: state[key.replace("{i}", str(i)).replace("{j}", str(i + 1))] for n, key in graphs[name].weights.items()
        }
        return torch.func.functional_call(graphs[name].module, weights, values)

    x, level, text, position, clean, known = given.values()
    hidden, q, kv, *rest = run("embed", x, level, position, torch.zeros(len(position), 2), clean, known)
    for i, name in enumerate(WINDOWS_NANO.names()[:-1]):
        hidden, q, kv = run(f"block_{name}", hidden, q, kv, text, *rest, i=i)
    x0 = run("head", hidden, q, kv, text, *rest[:2], x, level, clean, known)
    assert (x0 - expected).abs().max() < 1e-5 * expected.abs().max()


def _official(dit: DiT) -> tuple[list[str], list[torch.Tensor]]:
    """The parameters by official key."""
    whole = denoiser_graphs(NANO.dit)[0]
    names = [name.removeprefix("dit.") for name in whole.weights]
    return list(whole.weights.values()), [dit.state_dict()[name] for name in names]


@pytest.fixture(scope="module", params=["whole", "block"])
def bundle(request, tmp_path_factory):
    """The sparse nano model, in half precision, as engines take it."""
    options = Options(
        "nano", "video2world", form=request.param, precision="fp16", components=("video2world",), natten=True
    )
    folder = tmp_path_factory.mktemp("sparse") / request.param
    report = export_bundle(options, folder, verified=False, torch_program=False)
    assert any("gain nothing" in note for note in report.notes)
    return load_bundle(folder)


def test_the_exported_graphs_compute_it(bundle):
    """By ONNX Runtime, in half precision, against the masked network on the same weights."""
    component = bundle.manifest.denoisers["video2world"]
    assert component.sparse is not None and component.sparse.windows == ("2x4", "3x4", "dense", "2x4")
    assert component.sizes == {"any": {"16:9": (128, 80)}}
    store = open_weights(bundle, component)
    whole = denoiser_graphs(NANO.dit, key_format="diffusers")[0]
    state = {
        name.removeprefix("dit."): torch.from_numpy(store[key].numpy().copy()) for name, key in whole.weights.items()
    }
    given = inputs()
    expected = reference(state)(*given.values()).numpy()
    arrays = {name: value.contiguous().numpy() for name, value in given.items()}

    def run(name, values, i=0):
        graph = component.graphs[name]
        chosen = {spec.name: values[spec.name] for spec in graph.inputs}
        weights = store.of_graph(graph, i) if graph.weights_as == "inputs" else {}
        made = run_graph(graph, bundle.path(graph.file), chosen, weights, bundle.weight_root)
        return {n.removeprefix("next_"): value for n, value in made.items()}

    if component.form == "whole":
        x0 = run("denoise", arrays)["x0"]
    else:
        arrays |= run("embed", arrays | {"row": np.zeros((len(arrays["position"]), 2), np.float32)})
        for i in range(component.blocks - 1):
            arrays |= run(component.block_graph(i), arrays, i)
        x0 = run("head", arrays)["x0"]
    assert np.abs(x0 - expected).max() < 1e-2 * np.abs(expected).max()


@pytest.mark.tensorrt
def test_its_attention_is_fused_by_tensorrt(bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    from worldrt.engine.build import build_plan

    component = bundle.manifest.denoisers["video2world"]
    wish = Wish("tensorrt_rtx", Target(("8.9",)), block_weights="inputs")
    jobs = jobs_of(bundle, "video2world", open_weights(bundle, component), wish)
    tiles = {window.name: len(calls(window, WINDOWS_NANO.grid)) for window in WINDOWS_NANO.blocks if window} | {
        "dense": 1
    }
    wanted = {f"block_{name}": 1 + tiles[name] for name in component.sparse.windows}  # and one to the text
    wanted |= {
        "denoise": sum(wanted[f"block_{name}"] for name in component.sparse.windows),
        "head": wanted["block_2x4"],
    }
    for job in jobs:
        name = job.name.partition("/")[2]
        if name in ("denoise", "block_3x4"):
            report = build_plan(job, tmp_path / "a.plan")
            assert sum(" _gemm_mha" in line for line in report.layers) == wanted[name], "attention is not fused"


def test_sparse_weights_are_looked_for_under_their_own_name(tmp_path, capsys):
    for fps in (10, 16):
        (part,) = model_of(
            "cosmos", Options("14B", "video2world", fps=fps, components=("video2world",), natten=True)
        ).parts
        names = {place.rpartition("/")[2] for place in part.wanted.places}
        assert names == {f"model-720p-{fps}fps-natten.pt", f"model-720p-{fps}fps-natten.safetensors"}
    run = ["--model", "2B", "--natten", "--checkpoint", str(tmp_path), "--components", "video2world"]
    assert cli.main([*run, "-o", str(tmp_path / "b")]) == 2
    assert "Fetch model-720p-16fps-natten.pt of https" in capsys.readouterr().err and not (tmp_path / "b").exists()


def test_each_block_has_one_graph():
    (part,) = model_of("cosmos", Options("14B", "video2world", components=("video2world",), natten=True)).parts
    assert sorted(i for blocks in part.instances.values() for i in blocks) == list(range(35))
    assert part.instances["block_dense"] == [27] and part.instances["block_4x16"] == list(range(11))
    assert set(part.instances) == {f"block_{name}" for name in WINDOWS_14B.names()[:-1]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options("2B", resolution="480", natten=True), "--resolution 720 only"),
        (Options("0.6B", natten=True), "no sparse 0.6B text2image"),
        (Options("2B", "text2image", natten=True), "about video2world"),
        (Options("nano", natten=True, quantize="fp8"), "not quantised to fp8"),
    ],
)
def test_what_there_is_no_sparse_form_of_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        model_of("cosmos", options)


def test_other_sizes_of_a_sparse_model_are_refused():
    assert NANO.pixel_size("16:9") == (128, 80)
    for size, ratio in product(("2B", "14B"), ("4:3", "1:1", "3:4", "9:16")):
        with pytest.raises(InputError, match="there are 16:9"):
            variant(size, "video2world").sparse("720").pixel_size(ratio)
