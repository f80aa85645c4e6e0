import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from worldrt.engine.bundle import load_bundle, write_manifest
from worldrt.engine.errors import BundleError, CheckpointError
from worldrt.engine.weights import numbered, open_weights


def edit(folder, change):
    place = folder / "bundle.json"
    data = json.loads(place.read_text())
    change(data)
    place.write_text(json.dumps(data))


def weight_file(folder):
    return Path(json.loads((folder / "bundle.json").read_text())["weights"]["root"]) / "model" / "weights.safetensors"


def opened(folder, **options):
    bundle = load_bundle(folder, options.pop("checkpoint", None))
    return open_weights(bundle, bundle.manifest.text, **options)


def test_a_bundle_loads_and_may_be_moved_with_its_weights(bundle_folder, tmp_path):
    assert opened(bundle_folder, full=True)["layer.0.weight"].shape == (4, 3)
    shutil.move(tmp_path / "checkpoint", tmp_path / "elsewhere")
    shutil.move(bundle_folder, tmp_path / "other-place")
    with pytest.raises(BundleError, match="weight file is missing.*--checkpoint"):
        opened(tmp_path / "other-place")
    assert opened(tmp_path / "other-place", checkpoint=tmp_path / "elsewhere")["other"].shape == (2,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d.update(schema=99), "schema version 99; this worldrt reads 1"),
        (lambda d: d.pop("schema"), "schema version None"),
        (lambda d: d.pop("family"), "family: missing"),
        (lambda d: d["text"].update(max_tokens="many"), "text.max_tokens: expected an integer, got 'many'"),
        (lambda d: d["text"]["graphs"]["encode"].update(file="../encode.onnx"), "must stay inside it"),
        (lambda d: d["text"]["graphs"]["encode"].update(file="/etc/passwd"), "must stay inside it"),
        (lambda d: d["text"]["graphs"]["encode"].update(file="text/none.onnx"), "text/none.onnx is missing"),
        (lambda d: d["text"].update(tokenizer="../../tokenizer.json"), "not among the bundle's files"),
        (lambda d: d["files"].update({"../x": "0"}), "must stay inside it"),
    ],
)
def test_a_damaged_manifest(bundle_folder, change, text):
    edit(bundle_folder, change)
    with pytest.raises(BundleError, match=text):
        load_bundle(bundle_folder)


def test_not_json_and_not_there(bundle_folder, tmp_path):
    (bundle_folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(bundle_folder)
    with pytest.raises(BundleError, match="no bundle here"):
        load_bundle(tmp_path / "none")


def test_a_changed_graph_and_a_link_out(bundle_folder, tmp_path):
    graph = bundle_folder / "text" / "encode.onnx"
    original = graph.read_bytes()
    graph.write_bytes(original + b"\0")
    with pytest.raises(BundleError, match="changed since the export"):
        load_bundle(bundle_folder)
    (tmp_path / "outside.onnx").write_bytes(original)
    graph.unlink()
    graph.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(BundleError, match="leads out of"):
        load_bundle(bundle_folder)


def test_changed_weights(bundle_folder):
    path = weight_file(bundle_folder)
    tensors = load_file(path)
    save_file({k: v + 1 for k, v in tensors.items()}, path)
    assert opened(bundle_folder)["other"].numpy()[0] == 2  # a fine-tune of the same shapes needs no new export
    with pytest.raises(BundleError, match="content changed since the export"):
        opened(bundle_folder, full=True)
    save_file({k: v[:1] for k, v in tensors.items()}, path)
    with pytest.raises(BundleError, match="not the weights that the bundle was exported from"):
        opened(bundle_folder)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="cut short"):
        opened(bundle_folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w.update(shape=[4, 4]), r"expected float32\[4, 4\], got float32\[4, 3\]"),
        (lambda w: w.update(dtype="bfloat16"), r"expected bfloat16\[4, 3\], got float32"),
        (lambda w: w.update(key="layer.{j}.weight"), "uses tensor 'layer.1.weight', which no weight file holds"),
    ],
)
def test_weights_that_do_not_fit_the_graph(bundle_folder, change, text):
    edit(bundle_folder, lambda d: change(d["text"]["graphs"]["encode"]["weights"][0]))
    with pytest.raises(BundleError, match=text):
        opened(bundle_folder)


@pytest.mark.parametrize("bad", ["../model/weights.safetensors", "/etc/passwd"])
def test_weight_files_stay_under_their_root(bundle_folder, bad):
    def change(d):
        d["text"]["files"] = [bad]
        d["weights"]["files"] = {bad: next(iter(d["weights"]["files"].values()))}

    edit(bundle_folder, change)
    with pytest.raises(BundleError, match="must stay inside the weight root"):
        opened(bundle_folder)


def test_a_weight_root_that_is_not_utf8_survives(bundle_folder):
    manifest = load_bundle(bundle_folder).manifest
    odd = replace(manifest, weights=replace(manifest.weights, root="/models/\udcff"))
    write_manifest(bundle_folder, odd)
    assert load_bundle(bundle_folder).manifest == odd


def test_keys_of_weights_count_blocks():
    assert [numbered("a.{i}.b{j}", 4), numbered("{i-3}", 4)] == ["a.4.b5", "1"]
    assert [numbered("time.{,1,,,3}.w", block) for block in (1, 4)] == ["time.1.w", "time.3.w"]
