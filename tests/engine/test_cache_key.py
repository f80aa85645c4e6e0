"""No part of a plan's key can change without another digest."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine import plan_key
from worldrt.engine.bundle import load_bundle
from worldrt.engine.constants import constants_of
from worldrt.engine.content import ContentHashes
from worldrt.engine.errors import BundleError
from worldrt.engine.plan_key import PlanKey
from worldrt.engine.plans import BuildJob, BuildOptions, Constant, Gather, Range, Target
from worldrt.engine.schema import decode, encode, parse_json
from worldrt.engine.weights import open_weights


@pytest.fixture
def job(bundle_folder):
    """A job whose weight is a constant: by external data, and by a weight input."""
    bundle = load_bundle(bundle_folder)
    graph = bundle.manifest.text.graphs["encode"]
    return BuildJob(
        "tensorrt_rtx",
        graph,
        bundle.path(graph.file),
        bundle.weight_root,
        "float32",
        {"batch": Range(1, 2, 4)},
        Target(("8.9", "12.0"), "a GPU", 100),
        constants=constants_of(graph, open_weights(bundle, bundle.manifest.text)),
    )


def key(job, version="1.7.1"):
    return plan_key.plan_key(job, version, ContentHashes())


def other(value):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, value[-1]) if value else ("9.0",)
    if isinstance(value, str):
        return value + "x"
    return 1 if value is None else value + 1


def changed(job, field, name):
    """The job with one field of one of its parts changed."""
    part = getattr(job, field)
    return replace(job, **{field: replace(part, **{name: other(getattr(part, name))})})


# a field that is added to a part of a job is tested, or these tests fail
OPTIONS = [field.name for field in fields(BuildOptions)]
TARGET = [field.name for field in fields(Target)]
CONTENT = {  # what every other field of a job is to the key
    "library": lambda job: replace(job, library="tensorrt"),
    "graph": lambda job: replace(job, graph=replace(job.graph, inputs=(replace(job.graph.inputs[0], shape=(2, 4)),))),
    "path": lambda job: rewritten(job, b"\x12\x01x"),  # another producer_name: another file
    "precision": lambda job: replace(job, precision="float16"),
    "profile": lambda job: replace(job, profile=job.profile | {"rows": Range(1, 1, 1)}),
    "gather": lambda job: replace(job, gather=Gather(2, ("y",))),
}
IN_PARTS = {"target", "options", "constants"}
NOT_IN_THE_KEY = {"weight_root", "block"}
CONSTANT = ["name", "dtype", "shape"]
PLACE_OF_A_CONSTANT = ["file", "offset", "nbytes", "folder"]


def rewritten(job, more: bytes):
    place = job.path.with_name("other.onnx")
    place.write_bytes(job.path.read_bytes() + more)
    return replace(job, path=place)


def test_every_field_of_a_job_is_accounted_for():
    assert {field.name for field in fields(BuildJob)} == {*CONTENT, *IN_PARTS, *NOT_IN_THE_KEY}
    assert {field.name for field in fields(Constant)} == {*CONSTANT, *PLACE_OF_A_CONSTANT}


@pytest.mark.parametrize("name", CONTENT)
def test_a_change_of_the_job_is_another_plan(job, name):
    assert key(CONTENT[name](job)).digest != key(job).digest


@pytest.mark.parametrize("field, name", [("options", name) for name in OPTIONS] + [("target", name) for name in TARGET])
def test_a_change_of_options_or_target_is_another_plan(job, field, name):
    assert key(changed(job, field, name)).digest != key(job).digest


@pytest.mark.parametrize("name", [field.name for field in fields(Range)])
def test_a_change_of_a_range_is_another_plan(job, name):
    ranges = {"min": Range(2, 2, 4), "opt": Range(1, 3, 4), "max": Range(1, 2, 5)}
    assert key(replace(job, profile={"batch": ranges[name]})).digest != key(job).digest
    assert key(replace(job, profile={"rows": job.profile["batch"]})).digest != key(job).digest


def test_the_order_of_a_profile_makes_no_difference(job):
    one = replace(job, profile={"a": Range(1, 1, 1), "b": Range(1, 1, 2)})
    two = replace(job, profile={"b": Range(1, 1, 2), "a": Range(1, 1, 1)})
    assert key(one).digest == key(two).digest


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_a_change_of_any_part_of_the_key_is_another_digest(job, name):
    made = key(job)
    values = {
        "inputs": (replace(made.inputs[0], dtype="float16"),),
        "profile": {},
        "target": Target(("9.0",)),
        "options": BuildOptions(refit=True),
        "gather": Gather(2, ("y",)),
    }
    value = values[name] if name in values else other(getattr(made, name))
    assert replace(made, **{name: value}).digest != made.digest


@pytest.mark.parametrize("name", ["producer", "format", "version"])
def test_another_worldrt_or_library_is_another_plan(job, monkeypatch, name):
    before = key(job).digest
    monkeypatch.setattr(plan_key, "FORMAT", plan_key.FORMAT + (name == "format"))
    if name == "producer":
        monkeypatch.setattr(plan_key.importlib.metadata, "version", lambda _: "99")
    assert key(job, "1.7.1" if name != "version" else "1.7.2").digest != before


def weight_file(job) -> Path:
    return job.weight_root / "model" / "weights.safetensors"


def test_weights_under_an_equal_header_are_other_weights(job):
    before, place = key(job).digest, weight_file(job)
    data = bytearray(place.read_bytes())
    data[data.index(np.float32(1 / 7).tobytes())] ^= 1  # the last bit of a weight
    place.write_bytes(data)
    assert key(job).digest != before


def test_a_tensor_that_the_graph_does_not_use_makes_no_difference(job):
    before, place = key(job).digest, weight_file(job)
    data = bytearray(place.read_bytes())
    data[data.index(np.ones(2, np.float32).tobytes())] ^= 1
    place.write_bytes(data)
    assert key(job).digest == before


@pytest.mark.parametrize("name", CONSTANT)
def test_a_constant_is_also_its_name_and_kind(job, name):
    constant = Constant("w", "float32", (4, 3), "model/weights.safetensors", 0, 8)
    changed = replace(constant, **{name: other(getattr(constant, name))})
    assert key(replace(job, constants=(constant,))).digest != key(replace(job, constants=(changed,))).digest


def test_where_equal_weights_lie_makes_no_difference(job):
    """So two blocks, or two copies of a checkpoint, share plans."""
    (job.weight_root / "elsewhere").mkdir()
    copy = job.weight_root / "elsewhere" / "copy.bin"
    moved = []
    for constant in job.constants:
        raw = weight_file(job).read_bytes()[constant.offset :][: constant.nbytes]
        copy.write_bytes(b"before" + raw + b"after")
        moved.append(replace(constant, file="elsewhere/copy.bin", offset=6))
    assert key(replace(job, constants=tuple(moved), block=7)).digest == key(job).digest


@pytest.mark.parametrize("file", ["", "../w", "/w", "w\0"])
def test_weights_lie_below_their_root(job, file):
    constant = replace(job.constants[0], file=file) if job.constants else Constant("w", "float32", (4,), file, 0, 16)
    with pytest.raises(BundleError, match="must stay inside"):
        key(replace(job, constants=(constant,)))


def test_a_graph_with_weights_as_inputs_has_no_weights_in_its_key(job):
    bare = replace(job, constants=())
    assert (key(bare).weights_sha256 is None) == bool(job.constants)
    assert key(job).weights_sha256 is not None


def test_the_graph_is_hashed_and_its_record_not_believed(job):
    lying = replace(job, graph=replace(job.graph, sha256="0" * 64, weights=()))
    assert key(lying) == key(job)


def test_a_key_survives_its_record(job):
    made = key(job)
    assert decode(PlanKey, parse_json(json.dumps(encode(made)))) == made
