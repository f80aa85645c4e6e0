"""Engine plans of whole bundles by TensorRT-RTX, ahead of time, without a GPU: what is compiled, and the commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from worldrt.engine.backends._library import load_library
from worldrt.engine.build import build_plan
from worldrt.engine.bundle import file_sha256, load_bundle, read_manifest, write_manifest
from worldrt.engine.cache import PlanCache
from worldrt.engine.jobs import Wish, choose_block_weights, jobs_of
from worldrt.engine.plans import BuildJob, Range, Target
from worldrt.engine.weights import open_weights
from worldrt.export import cli
from worldrt.runtime import components
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.engines import Engines

pytestmark = pytest.mark.tensorrt
trt = pytest.importorskip("tensorrt_rtx")

GRAPHS = [
    *("text2image/denoise", "video2world/denoise", "text/encode"),
    *("vae/encode_first", "vae/encode_next", "vae/decode_first", "vae/decode_next"),
]
TYPES = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "uint8": "UInt8", "int64": "Int64"}
ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10, "bfloat16": 16}
# layers that do nothing but change the type of a tensor: name -> type -> type
CAST = re.compile(
    r"^(?:cast |kgen __myl_(?:Move)*Cast(?:Move)*_myl).*?: (?:(?P<name>\S+) )?(?P<of>\w+)\[(?P<dims>.*?)\]"
)


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_of_the_nano_bundle_compiles_as_it_is_written(half_bundle, graph, tmp_path):
    """For SM89 and SM120, in FP16 and BF16. The ONNX file says what must be found in the compiled layers."""
    bundle = load_bundle(half_bundle)
    name, _, key = graph.partition("/")
    component = bundle.manifest.components()[name]
    wish = Wish("tensorrt_rtx", Target(("8.9", "12.0")))
    job = next(j for j in jobs_of(bundle, name, open_weights(bundle, component), wish) if j.name == graph)
    report = build_plan(job, tmp_path / "p.plan")
    assert report.plan_bytes == (tmp_path / "p.plan").stat().st_size
    proto = onnx.load(str(job.path), load_external_data=False)

    attentions = sum(node.op_type == "Attention" for node in proto.graph.node)
    assert attentions == {"denoise": 2 * getattr(component, "blocks", 0), "encode": 2}.get(key, 0)
    assert sum(" _gemm_mha" in line for line in report.layers) == attentions, "attention is not fused"

    casts = [found for found in map(CAST.match, report.layers) if found and found["dims"] != "1"]  # sizes are not data
    allowed = {("text", "Float")} if key == "denoise" else set()  # the text embeddings come in float32
    assert {(found["name"], found["of"]) for found in casts} <= allowed
    products = [line for line in report.layers if line.startswith(("gemm", "conv")) or "_gemm" in line]
    assert products and not any(" Float[" in line for line in products), "a product in float32"

    record = component.graphs[key]
    listed = "\n".join(report.layers)
    types = {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)}
    for spec in (*record.inputs, *record.outputs):
        assert types[spec.name] == ELEMENT_TYPES[spec.dtype]
        assert re.search(rf"\b{spec.name} {TYPES[spec.dtype]}\[", listed), f"{spec.describe()} is not in the plan so"


def run(capsys, *args, code=0):
    try:
        result = cli.main([str(arg) for arg in args])
    except SystemExit as end:
        result = end.code
    out, err = capsys.readouterr()
    assert result == code, err
    return out, err


RTX = ("--backend", "tensorrt_rtx", "--compute_capability", "8.9")
TEXT = ("--components", "text")


def test_plans_are_built_once_and_then_taken_from_the_cache(nano_bundle, tmp_path, capsys):
    args = ("--bundle", nano_bundle, *RTX, "12.0", *TEXT, "--plan_cache", tmp_path / "plans", "--json")
    first = json.loads(run(capsys, *args)[0])["engines"]
    again = json.loads(run(capsys, *args)[0])["engines"]
    assert [(row["graph"], row["for"], row["hit"]) for row in first] == [
        ("text/encode", "8.9", False),
        ("text/encode", "12.0", False),
    ]
    assert [row["hit"] for row in again] == [True, True] and len({row["plan"] for row in again}) == 2
    for row in first:
        assert Path(row["plan"]).stat().st_size == row["plan_bytes"] == row["build"]["plan_bytes"]
        assert row["build"]["layers"] and row["build"]["peak_rss_bytes"] > 1e8
    assert len(PlanCache(tmp_path / "plans").entries()) == 2

    out, _ = run(capsys, *args[:-1])
    assert "text/encode" in out and "from the cache" in out and "2 plans" in out
    out, _ = run(capsys, *args[:-1], "--optimization_level", "1", "--profile", "text=1:8:64")
    assert out.count(" MB  built") == 2


@pytest.fixture(scope="module")
def block_bundle(nano_bundle, tmp_path_factory):
    """The video model in blocks, its weights in the nano checkpoint."""
    args = ("--model", "nano", "--task", "video2world", "--components", "video2world", "--form", "block")
    args += ("--checkpoint", nano_bundle / "checkpoint", "--no-verify", "--no_torch_program", "--precision", "bf16")
    folder = tmp_path_factory.mktemp("engines") / "blocks"
    assert cli.main([*map(str, args), "-o", str(folder)]) == 0
    return folder


def test_the_forms_of_a_transformer_in_blocks(block_bundle, tmp_path, capsys):
    args = ("--bundle", block_bundle, *RTX, "--plan_cache", tmp_path / "plans", "--json")
    rows = {
        form: json.loads(run(capsys, *args, "--block_weights", form)[0])["engines"]
        for form in ("inputs", "constants", "auto")
    }
    names = {form: [row["graph"].removeprefix("video2world/") for row in rows[form]] for form in rows}
    assert names["inputs"] == ["embed", "block", "head"]
    assert names["constants"] == names["auto"] == ["embed", "block 0", "block 1", "block 2", "head"]
    assert {row["form"] for row in rows["auto"]} == {"constants"} and all(row["hit"] for row in rows["auto"])
    held = {form: {row["graph"]: row["build"]["weight_bytes"] for row in rows[form]} for form in rows}
    bundle = load_bundle(block_bundle)
    stored = sum(
        weight.shape[0] * weight.shape[-1]
        for weight in bundle.manifest.denoisers["video2world"].graphs["block"].weights
        if len(weight.shape) == 2
    )
    assert held["constants"]["video2world/block 1"] > 1.9 * stored, "2 bytes for each value of a matrix"
    assert held["inputs"]["video2world/block"] < stored / 10
    assert len({row["digest"] for row in rows["constants"]}) == 5, "blocks have weights of their own"


@pytest.mark.parametrize("weights", ["inputs", "constants"])
def test_a_run_looks_for_the_plans_that_an_export_builds(nano_bundle, block_bundle, monkeypatch, weights):
    seen = []

    def open_session(backend, path, graph, device, *, weight_root, profile, options, **_):
        told = (options["build"], options["constants"], options["block"])
        seen.append(BuildJob(backend, graph, path, weight_root, options["precision"], profile, Target(("8.9",)), *told))

    monkeypatch.setattr(components, "open_session", open_session)
    engines = Engines(profile={"frames": Range(1, 2, 3)}, block_weights=weights)
    wish = Wish("tensorrt_rtx", Target(("8.9",)), overrides=engines.profile, block_weights=weights)
    for bundle in map(load_bundle, (nano_bundle, block_bundle)):
        opener = Opener(bundle, Execution(backend="tensorrt_rtx", engines=engines))
        for name, component in bundle.manifest.components().items():
            store = open_weights(bundle, component)
            expected = jobs_of(bundle, name, store, wish)
            seen.clear()
            for job in expected:
                opener.session(component, Path(job.graph.file).stem, store, job.block or 0)
            assert seen == expected


def test_large_transformers_share_one_block(block_bundle, monkeypatch):
    from worldrt.engine import jobs

    bundle = load_bundle(block_bundle)
    denoiser = bundle.manifest.denoisers["video2world"]
    store = open_weights(bundle, denoiser)
    assert choose_block_weights(denoiser, store) == "constants"
    monkeypatch.setattr(jobs, "available_bytes", lambda: 1_000_000)
    assert choose_block_weights(denoiser, store) == "inputs", "too little memory to build a block with its weights"
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "SMALL_BYTES", 1_000_000)
    assert choose_block_weights(denoiser, store) == "inputs", "the plans would hold too much"
    assert choose_block_weights(denoiser, store, "constants") == "constants"
    monkeypatch.undo()
    assert choose_block_weights(denoiser, store, "inputs") == "inputs"


@pytest.fixture
def odd_bundle(nano_bundle, tmp_path):
    """A text encoder with a node that no library knows."""
    folder = tmp_path / "odd"
    (folder / "text").mkdir(parents=True)
    manifest = read_manifest(nano_bundle)
    assert manifest.text is not None
    proto = onnx.load(str(nano_bundle / "text" / "encode.onnx"), load_external_data=False)
    last = proto.graph.node[-1]
    last.op_type, last.domain, last.name = "Mystery", "elsewhere", "the mystery"
    proto.opset_import.add(domain="elsewhere", version=1)
    (folder / "text" / "encode.onnx").write_bytes(proto.SerializeToString())
    (folder / "tokenizer.json").write_bytes((nano_bundle / manifest.text.tokenizer).read_bytes())
    graph = replace(manifest.text.graphs["encode"], sha256=file_sha256(folder / "text" / "encode.onnx"), program=None)
    text = replace(manifest.text, graphs={"encode": graph}, tokenizer="tokenizer.json")
    files = {"tokenizer.json": file_sha256(folder / "tokenizer.json")}
    weights = replace(manifest.weights, root=str(nano_bundle / manifest.weights.root))
    write_manifest(folder, replace(manifest, denoisers={}, vae=None, text=text, files=files, weights=weights))
    return folder


def test_a_check_names_what_stands_in_the_way_without_building(odd_bundle, nano_bundle, tmp_path, capsys):
    out, _ = run(capsys, "--bundle", odd_bundle, "--check", code=1)
    assert "text/encode.onnx" in out and "the mystery" in out and "Mystery" in out
    found = json.loads(run(capsys, "--bundle", odd_bundle, "--check", "--json", code=1)[0])["unsupported"]
    assert [(row["graph"], row["node"], row["operator"]) for row in found] == [
        ("text/encode.onnx", "the mystery", "Mystery")
    ]
    assert "takes every node" in run(capsys, "--bundle", nano_bundle, "--check", *TEXT)[0]
    _, err = run(capsys, "--bundle", odd_bundle, *RTX, "--plan_cache", tmp_path / "plans", code=2)
    assert "node 'the mystery' (Mystery)" in err and not list((tmp_path / "plans").glob("*.plan"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--bundle", "B"), "say what to make of it"),
        (("--bundle", "B", "--check", "--form", "block"), "--form: it is about exporting"),
        (("--bundle", "B", "--model", "nano"), "not allowed with argument"),
        (("--model", "nano", "--refit"), "it is about engines; say with which library"),
        (
            ("--bundle", "B", "--backend", "tensorrt", "--compute_capability", "8.9"),
            "builds for the GPU that it runs on",
        ),
        (("--bundle", "B", *RTX[:2], "--compute_capability", "sm89"), "expected numbers such as 8.9, got 'sm89'"),
        (("--bundle", "B", *RTX, "--workspace_gb", "0"), "--workspace_gb: expected a number above 0"),
        (("--bundle", "B", *RTX, "--profile", "rows=9:3:1"), "axis range 9:3:1"),
        (("--bundle", "B", *RTX, "--profile", "rows=a:b"), "expected AXIS=MIN:OPT:MAX"),
        (("--bundle", "B", *RTX, "--profile", "lines=1:2:3"), "no axis 'lines'; there are: batch, "),
        (("--bundle", "B", *RTX, "--components", "text", "--refit"), "refit and strip_plan need a GPU at build time"),
        (("--bundle", "B", *RTX[:2], "--compute_capability", "9.0"), "builds ahead of time for 7.5"),
    ],
)
def test_wrong_flags(nano_bundle, tmp_path, capsys, args, says):
    out, err = run(capsys, *(nano_bundle if a == "B" else a for a in args), "--plan_cache", tmp_path / "p", code=2)
    lines = [line for line in err.splitlines() if line.strip()]
    assert not out and len(lines) == 1 and says in lines[0]


def test_without_a_gpu_one_must_say_for_which_to_build(nano_bundle, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, err = run(capsys, "--bundle", nano_bundle, "--backend", "tensorrt_rtx", code=2)
    assert "no GPU to build for here" in err and "--compute_capability 8.9" in err


def test_ctrl_c_leaves_no_plan_and_no_process(nano_bundle, tmp_path):
    """By the real entry point, in the middle of a build."""
    command = [sys.executable, "-c", "import sys; from worldrt.export.cli import main; sys.exit(main())"]
    args = ["--bundle", nano_bundle, *RTX, "--components", "video2world", "--plan_cache", tmp_path / "plans"]
    with subprocess.Popen([*command, *args], stderr=subprocess.PIPE, text=True) as process:
        builders = wait_for(lambda: children(process.pid))
        time.sleep(0.7)  # the builder has started to work
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert builders and not any(os.path.exists(f"/proc/{pid}") for pid in builders)
    left = {path.name for path in (tmp_path / "plans").glob("*") if path.suffix != ".lock"}
    assert left <= {"content.json"}, "the hashes of the weights are true whatever becomes of the plan"


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_for(ask, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := ask()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_the_library_of_these_tests_is_new_enough():
    assert load_library("tensorrt_rtx") is trt
