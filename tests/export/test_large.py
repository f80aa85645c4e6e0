"""The true shapes, over sparse checkpoints: references only, checked by onnx, in seconds."""

from __future__ import annotations

import time

import onnx
import pytest

from worldrt.engine.bundle import load_bundle
from worldrt.engine.weights import open_weights, weight_key
from worldrt.export.choose import model_of
from worldrt.export.fabricate import fabricate
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle

CASES = [
    ("2B", "block", "diffusers", 567, ()),
    ("2B", "whole", "official", 567, (pytest.mark.slow,)),
    ("14B", "block", "official", 727, (pytest.mark.slow,)),
    ("14B", "whole", "diffusers", 727, (pytest.mark.slow,)),
]


@pytest.mark.parametrize(("size", "form", "key_format", "tensors"), [pytest.param(*c[:4], marks=c[4]) for c in CASES])
def test_true_shapes(tmp_path, size, form, key_format, tensors):
    options = Options(size, task="video2world", form=form, components=("video2world",))
    fabricate(model_of("cosmos", options), tmp_path / "checkpoint", key_format=key_format)
    begin = time.process_time()
    report = export_bundle(options, tmp_path / "bundle", checkpoint=tmp_path / "checkpoint")
    assert time.process_time() - begin < 60 and sum(report.bytes_written.values()) < 5e6 and not report.verified
    bundle = load_bundle(tmp_path / "bundle")
    component = bundle.manifest.denoisers["video2world"]
    assert (component.form, component.precision) == (form, "bfloat16")
    store = open_weights(bundle, component)
    instances = {"block": component.blocks - 1}
    reached = {
        weight_key(weight, i)
        for name, graph in component.graphs.items()
        for i in range(instances.get(name, 1))
        for weight in graph.weights
    }
    assert reached == set(store.owner) and len(reached) == tensors
    if form == "block":
        for graph in component.graphs.values():
            onnx.checker.check_model(str(bundle.path(graph.file)))
