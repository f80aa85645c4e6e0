"""Finding weights: pipelines, official files, hub caches, and saying what is wrong where they are not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.export.checkpoint import ForeignError, NotFoundError, Probe, Wanted, find, weight_files
from worldrt.export.choose import locate, model_of, tidy
from worldrt.export.fabricate import fabricate
from worldrt.export.plan import Options
from worldrt.export.weights import external_root

PROBES = {"official": Probe("x.w", (2, 3)), "diffusers": Probe("patch.w", (2, 3))}
WANTED = Wanted("dit", ("transformer", "store/*/dit", "model.pt"), PROBES, "https://example.org/weights")


def put(path, key="patch.w", shape=(2, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: torch.ones(shape)}, path)
    return path


def test_places_are_tried_in_order(tmp_path):
    torch.save({"net.x.w": torch.ones(2, 3)}, tmp_path / "model.pt")
    assert find(tmp_path, WANTED).key_format == "official"
    put(tmp_path / "store" / "abc" / "dit" / "model.safetensors", "net.x.w")
    found = find(tmp_path, WANTED)
    assert (found.key_format, found.prefix, found.files[0].path.parent.name) == ("official", "net.", "dit")
    put(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors")
    put(tmp_path / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    found = find(tmp_path, WANTED)
    assert (found.key_format, found.prefix) == ("diffusers", "")
    assert [file.path.name for file in found.files] == ["diffusion_pytorch_model.safetensors"]


def test_nothing_there(tmp_path):
    with pytest.raises(NotFoundError) as error:
        find(tmp_path, WANTED)
    for place in ("transformer", "store/*/dit", "model.pt", "https://example.org/weights"):
        assert place in str(error.value)


def test_another_model(tmp_path):
    put(tmp_path / "transformer" / "model.safetensors", shape=(4, 3))
    with pytest.raises(ForeignError, match=r"'patch\.w': expected \[2, 3\], got \[4, 3\]"):
        find(tmp_path, WANTED)
    put(tmp_path / "transformer" / "model.safetensors", key="other")
    with pytest.raises(ForeignError, match=r"none of its 1 tensors is x\.w or patch\.w"):
        find(tmp_path, WANTED)


def test_shards(tmp_path):
    folder = tmp_path / "transformer"
    put(folder / "a.safetensors")
    put(folder / "b.safetensors", "more")
    index = {"weight_map": {"patch.w": "a.safetensors", "more": "b.safetensors"}}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))
    assert len(find(tmp_path, WANTED).files) == 2
    (folder / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 weight files are missing: b\.safetensors"):
        weight_files(folder)
    (folder / "m.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match="not an index"):
        weight_files(folder)


def test_damage_is_not_passed_over(tmp_path):
    path = put(tmp_path / "transformer" / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    torch.save({"net.x.w": torch.ones(2, 3)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="cut short") as error:
        find(tmp_path, WANTED)
    assert not isinstance(error.value, NotFoundError)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """2B weights of both tasks in the official format, at their official names, sparse."""
    root = tmp_path_factory.mktemp("official")
    for task in ("text2image", "video2world"):
        options = Options("2B", task=task, components=(task,))
        flat = root / f"flat-{task}"
        fabricate(model_of("cosmos", options), flat, key_format="official")
        kind = {"text2image": "Text2Image", "video2world": "Video2World"}[task]
        (root / "nvidia").mkdir(exist_ok=True)
        flat.rename(root / "nvidia" / f"Cosmos-Predict2-2B-{kind}")
    return root


def located(root, **options):
    chosen = Options("2B", components=(options["task"],) if options else ("text2image", "video2world"), **options)
    return locate(model_of("cosmos", chosen), chosen, root, None, None)


def test_a_root_of_official_pipelines_holds_both_tasks(official):
    places, notes = located(official)
    assert [place.part.name for place in places] == ["text2image", "video2world"] and not notes
    assert all(place.found.prefix == "net." and place.form == "block" for place in places)
    assert all(place.precision == "bfloat16" for place in places)
    assert places[1].found.files[0].path.name == "model-720p-16fps.safetensors"
    assert 1.9e9 < places[0].found.values() < 2.1e9


def test_another_resolution_is_another_file(official):
    with pytest.raises(NotFoundError, match=r"model-480p-10fps\.pt"):
        located(official, task="video2world", resolution="480", fps=10)
    folder = official / "nvidia" / "Cosmos-Predict2-2B-Video2World"
    os.link(folder / "model-720p-16fps.safetensors", folder / "model-480p-10fps.safetensors")
    places, _ = located(official, task="video2world", resolution="480", fps=10)
    assert places[0].found.files[0].path.name == "model-480p-10fps.safetensors"


def test_one_pipeline_is_one_task(official):
    chosen = Options("2B")
    folder = official / "nvidia" / "Cosmos-Predict2-2B-Text2Image"
    model = model_of("cosmos", chosen)
    denoisers = [part for part in model.parts if part.task]
    places, notes = locate(type(model)(model.family, model.variant, tuple(denoisers)), chosen, folder, None, None)
    assert [place.part.name for place in places] == ["text2image"]
    assert len(notes) == 1 and "video2world" in notes[0]


def test_models_and_components_that_are_not():
    with pytest.raises(InputError, match="there are"):
        model_of("cosmos", Options("0.6B", task="video2world"))
    with pytest.raises(InputError, match="this model has text2image, vae, text"):
        model_of("cosmos", Options("0.6B", components=("video2world",)))


def test_a_place_given_with_dots_is_the_same_place(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert tidy(Path("../models")) == (tmp_path / "models").resolve()
    file = tmp_path / "models" / "a.safetensors"
    file.touch()
    assert external_root(tidy(Path("../models")), [tidy(Path("../models/a.safetensors"))]) == file.resolve().parent
    (tmp_path / "link").symlink_to("models")
    assert tidy(tmp_path / "link") == tmp_path / "link"
