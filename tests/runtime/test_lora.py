"""Runs with LoRAs and post-trained weights: the frames are those of a checkpoint that holds the sum, to the bit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldrt.engine.bundle import load_bundle
from worldrt.engine.constants import constants_of
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import CheckpointError, InputError, UnsupportedError
from worldrt.engine.lora import LoraChoice
from worldrt.engine.namings import spellings
from worldrt.engine.overlay import Overlay, WeightChange, open_changed, used_weights
from worldrt.engine.session import open_session
from worldrt.engine.weights import open_weights
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.runtime import Request, Text2Image, Video2World
from worldrt.runtime.cli import main
from worldrt.runtime.components import Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape

SMALL = Request("a red car", steps=2, num_frames=5, width=48, height=32, seed=3)
FILE = "diffusion_pytorch_model.safetensors"
RANK = 4
OFFICIAL = {"attn1.to_q": "self_attn.q_proj", "attn2.to_out.0": "cross_attn.output_proj", "ff.net.2": "mlp.layer2"}


def lora_file(path, weights, seed=0, official=False):
    """A LoRA of three kinds of layers of every block; returns its exact changes in float64, by key."""
    generator, tensors, changes = torch.Generator().manual_seed(seed), {}, {}
    for key, value in weights.items():
        kind = next((kind for kind in OFFICIAL if key.endswith(f"{kind}.weight")), None)
        if kind is None:
            continue
        a = torch.randn(RANK, value.shape[1], generator=generator) * 0.1
        b = torch.randn(value.shape[0], RANK, generator=generator) * 0.1
        module = "transformer." + key.removesuffix(".weight")
        if official:
            block = key.split(".")[1]
            module = f"net.blocks.{block}.{OFFICIAL[kind]}"
        adapter = ".default" if official else ""
        tensors |= {f"{module}.lora_A{adapter}.weight": a, f"{module}.lora_B{adapter}.weight": b}
        changes[key] = b.double() @ a.double()
    save_file(tensors, path)
    return changes


def summed(weights, *changes):
    """The weights with (scale, changes) added in float64, rounded once."""
    made = {key: value.double() for key, value in weights.items()}
    for scale, change in changes:
        for key, value in change.items():
            made[key] = made[key] + scale * value
    return {key: value.to(weights[key].dtype).contiguous() for key, value in made.items()}


def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def image(folder, *loras, path=None, checkpoint=(), **execution):
    change = {"text2image": WeightChange(path, loras)} if loras or path else {}
    with Text2Image.open(folder, checkpoints=checkpoint, changes=change, **execution) as draw:
        return draw(SMALL)


def video(folder, *loras, path=None, checkpoint=()):
    change = {"video2world": WeightChange(path, loras)} if loras or path else {}
    with Video2World.open(folder, checkpoints=checkpoint, changes=change) as go_on:
        return np.stack(list(go_on(SMALL, picture())))


MAKE = {"text2image": image, "video2world": video}  # the whole form, and the block form


@pytest.fixture
def merged_checkpoint(nano, tmp_path):
    """A copy of the nano checkpoint in which one file is another."""

    def make(task, weights):
        root = tmp_path / "merged"
        shutil.copytree(nano.root, root, copy_function=os.symlink)
        (root / task / FILE).unlink()
        save_file(weights, root / task / FILE, {"format": "pt"})
        return root

    return make


def weights_of(nano, task):
    return load_file(nano.root / task / FILE)


@pytest.mark.parametrize("task", MAKE)
def test_frames_are_those_of_a_checkpoint_with_the_sum(nano_by_torch, tmp_path, merged_checkpoint, task):
    weights = weights_of(nano_by_torch, task)
    one = lora_file(tmp_path / "one.safetensors", weights, 1)
    two = lora_file(tmp_path / "two.safetensors", weights, 2, official=True)
    root = merged_checkpoint(task, summed(weights, (0.7, one), (-0.4, two)))
    expected = MAKE[task](nano_by_torch.folder, checkpoint=[root]).astype(int)
    choices = LoraChoice(tmp_path / "one.safetensors", 0.7), LoraChoice(tmp_path / "two.safetensors", -0.4)
    made = MAKE[task](nano_by_torch.folder, *choices).astype(int)
    plain = MAKE[task](nano_by_torch.folder).astype(int)
    assert np.abs(made - expected).max() <= 1, "sums in float32 and in float64 differ in the last bit of a weight"
    assert np.abs(made - plain).max() > 3
    assert np.array_equal(made, MAKE[task](nano_by_torch.folder, *choices[::-1])), "the order makes no difference"


@pytest.mark.parametrize("task", MAKE)
def test_scale_0_is_no_lora_to_the_bit(nano_by_torch, tmp_path, task):
    lora_file(tmp_path / "l.safetensors", weights_of(nano_by_torch, task))
    made = MAKE[task](nano_by_torch.folder, LoraChoice(tmp_path / "l.safetensors", 0.0))
    assert np.array_equal(made, MAKE[task](nano_by_torch.folder))


def test_a_lora_that_is_taken_back_leaves_nothing(nano_by_torch, tmp_path):
    lora_file(tmp_path / "l.safetensors", weights_of(nano_by_torch, "text2image"))
    change = WeightChange(loras=(LoraChoice(tmp_path / "l.safetensors"),))
    with Text2Image.open(nano_by_torch.folder) as draw:
        before = draw(SMALL)
        draw.models.change("text2image", change)
        changed = draw(SMALL)
        with pytest.raises(CheckpointError):
            draw.models.change("text2image", WeightChange(tmp_path / "l.safetensors"))
        assert np.array_equal(draw(SMALL), changed), "a change that fails changes nothing"
        draw.models.change("text2image", WeightChange())
        after = draw(SMALL)
    assert np.array_equal(before, after) and not np.array_equal(before, changed)


@pytest.mark.parametrize("task", MAKE)
def test_post_trained_weights_of_any_layout_take_the_place_of_the_checkpoint(
    nano_by_torch, tmp_path, merged_checkpoint, task
):
    weights = weights_of(nano_by_torch, task)
    others = summed(weights, (1.0, lora_file(tmp_path / "l.safetensors", weights)))
    expected = MAKE[task](nano_by_torch.folder, checkpoint=[merged_checkpoint(task, others)])
    turned = dict(reversed(others.items()))
    save_file({f"transformer.{key}": value for key, value in turned.items()}, tmp_path / "one.safetensors")
    assert np.array_equal(MAKE[task](nano_by_torch.folder, path=tmp_path / "one.safetensors"), expected)
    (tmp_path / "shards").mkdir()
    for n, keys in enumerate((list(others)[:20], list(others)[20:])):
        save_file({key: others[key] for key in keys}, tmp_path / "shards" / f"{n}.safetensors")
    assert np.array_equal(MAKE[task](nano_by_torch.folder, path=tmp_path / "shards"), expected)
    assert not np.array_equal(MAKE[task](nano_by_torch.folder), expected)


def test_a_lora_is_added_to_post_trained_weights(nano_by_torch, tmp_path):
    weights = weights_of(nano_by_torch, "text2image")
    change = lora_file(tmp_path / "l.safetensors", weights)
    save_file(summed(weights, (1.0, change)), tmp_path / "one.safetensors")
    save_file(weights, tmp_path / "none.safetensors")
    lora = LoraChoice(tmp_path / "l.safetensors")
    made = image(nano_by_torch.folder, lora, path=tmp_path / "none.safetensors").astype(int)
    expected = image(nano_by_torch.folder, path=tmp_path / "one.safetensors").astype(int)
    assert np.abs(made - expected).max() <= 1
    assert np.array_equal(made, image(nano_by_torch.folder, lora))


def test_what_is_not_the_same_model_is_refused_by_name(nano_by_torch, tmp_path):
    weights = weights_of(nano_by_torch, "text2image")

    def refused(error, text, **changed):
        made = {key: value for key, value in {**weights, **changed}.items() if value is not None}
        save_file(made, tmp_path / "w.safetensors")
        with pytest.raises(error, match=text):
            image(nano_by_torch.folder, path=tmp_path / "w.safetensors")

    refused(CheckpointError, "no tensor 'proj_out.weight'", **{"proj_out.weight": None})
    refused(CheckpointError, r"'proj_out.weight': expected float32\[64", **{"proj_out.weight": torch.ones(3, 4)})
    half = weights["proj_out.weight"].half()
    refused(CheckpointError, r"'proj_out.weight'.*got float16\[64", **{"proj_out.weight": half})
    beyond = {"transformer_blocks.4.attn1.to_q.weight": torch.ones(2)}
    refused(CheckpointError, "of a block that this bundle does not have", **beyond)
    refused(CheckpointError, "two tensors", **{"net.proj_out.weight": torch.ones(2)})
    for name in ("model.pt", "empty"):
        with pytest.raises(InputError, match="expected a bundle, a .safetensors file"):
            image(nano_by_torch.folder, path=tmp_path / name)


def opened(nano, task, *loras):
    bundle = load_bundle(nano.folder)
    return bundle, open_changed(bundle, bundle.manifest.denoisers[task], WeightChange(None, loras))


def test_only_what_a_lora_touches_takes_memory_and_only_while_it_is_used(nano, tmp_path):
    changes = lora_file(tmp_path / "l.safetensors", weights_of(nano, "video2world"))
    bundle, store = opened(nano, "video2world", LoraChoice(tmp_path / "l.safetensors"))
    plain = open_weights(bundle, bundle.manifest.denoisers["video2world"])
    assert isinstance(store, Overlay)
    mapped = {file.path: file for file in store.owner.values()}
    for key in used_weights(bundle.manifest.denoisers["video2world"]):
        inside = any(0 <= store[key].pointer - file._base < file.size_bytes for file in mapped.values())
        assert inside == (key not in changes)
        assert np.array_equal(store[key].numpy(), plain[key].numpy()) == (key not in changes)
    key = next(iter(changes))
    one = store[key]
    assert store[key] is one
    del one
    assert len(store._merged) == 0


def test_a_changed_weight_cannot_be_a_constant(nano, tmp_path):
    lora_file(tmp_path / "l.safetensors", weights_of(nano, "video2world"))
    bundle, store = opened(nano, "video2world", LoraChoice(tmp_path / "l.safetensors"))
    block = bundle.manifest.denoisers["video2world"].graphs["block"]
    with pytest.raises(UnsupportedError, match="--block_weights inputs"):
        constants_of(block, store, 1)
    plain = open_weights(bundle, bundle.manifest.denoisers["video2world"])
    assert len(constants_of(block, plain, 1)) == len(block.weights)


def test_a_quantised_denoiser_takes_neither(nano, tmp_path):
    bundle = load_bundle(nano.folder)
    denoiser = replace(bundle.manifest.denoisers["text2image"], quantization="int8")
    for change in (WeightChange(tmp_path), WeightChange(loras=(LoraChoice(tmp_path / "l.safetensors"),))):
        with pytest.raises(UnsupportedError, match="quantised to int8"):
            open_changed(bundle, denoiser, change)
    assert open_changed(bundle, denoiser, WeightChange())


INPUTS = {
    "x": np.random.default_rng(1).standard_normal((2, 16, 2, 4, 6)).astype(np.float32),
    "level": np.full((2, 2), 0.7, np.float32),
    "text": np.random.default_rng(2).standard_normal((2, 5, 128)).astype(np.float32),
    "position": np.arange(2, dtype=np.float32),
}


def whole(bundle, store, backend):
    """x0 of the whole form by a real backend."""
    graph = bundle.manifest.denoisers["text2image"].graphs["denoise"]
    path = bundle.path(graph.file)
    session = open_session(backend, path, graph, HostDevice(), weight_root=bundle.weight_root, weights=store)
    call = session.bind({}, {name: host_buffer(value) for name, value in INPUTS.items()})
    call.run()
    return call["x0"].numpy().copy()


def test_external_data_of_an_onnx_file_is_replaced_to_the_bit(nano_bundle, tmp_path):
    """ONNX Runtime with a LoRA, with a file of the sums, and with a checkpoint of them; and torch in between."""
    weights = load_file(nano_bundle / "checkpoint" / "text2image" / FILE)
    change = lora_file(tmp_path / "l.safetensors", weights)
    bundle = load_bundle(nano_bundle)
    denoiser = bundle.manifest.denoisers["text2image"]
    lora = LoraChoice(tmp_path / "l.safetensors", 0.5)
    store = open_changed(bundle, denoiser, WeightChange(loras=(lora,)))
    made = whole(bundle, store, "onnxruntime")

    root = tmp_path / "merged"
    shutil.copytree(nano_bundle / "checkpoint", root, copy_function=os.symlink)
    (root / "text2image" / FILE).unlink()
    sums = {key: torch.from_numpy(store[key].numpy().copy()) for key in weights if key in used_weights(denoiser)}
    save_file({**weights, **sums}, root / "text2image" / FILE, {"format": "pt"})
    other = load_bundle(nano_bundle, root)
    expected = whole(other, open_weights(other, denoiser), "onnxruntime")
    assert np.array_equal(made, expected)

    save_file(dict(reversed(sums.items())), tmp_path / "sums.safetensors")
    path = WeightChange(tmp_path / "sums.safetensors")
    assert np.array_equal(whole(bundle, open_changed(bundle, denoiser, path), "onnxruntime"), expected)
    (root / "text2image" / FILE).unlink()  # the checkpoint's own weights need not be there
    assert np.array_equal(whole(other, open_changed(other, denoiser, path), "onnxruntime"), expected)

    save_file(summed(weights, (0.5, change)), tmp_path / "exact.safetensors")
    exact = open_changed(bundle, denoiser, WeightChange(tmp_path / "exact.safetensors"))
    by_torch = whole(bundle, exact, "torch")
    plain = whole(bundle, open_weights(bundle, denoiser), "onnxruntime")
    largest = np.abs(by_torch).max()
    assert np.abs(made - by_torch).max() < 1e-4 * largest < np.abs(plain - by_torch).max()
    back = whole(bundle, open_changed(bundle, denoiser, WeightChange()), "onnxruntime")
    assert np.array_equal(back, plain)


def filled(model):
    """x0 of both texts for one input."""
    bound = model.bind(DenoiserShape(channels=16, frames=2, height=4, width=6, text=5), guided=True)
    rng = np.random.default_rng(3)
    for name, values in (("x", (1, 16, 2, 4, 6)), ("clean", (1, 16, 2, 4, 6))):
        bound.fill(name, rng.standard_normal(values))
    bound.fill("level", np.full((1, 2), 0.7))
    bound.fill("mask", np.array([[1.0, 0.0]]))
    bound.fill("position", np.arange(2.0))
    bound.fill_text(*rng.standard_normal((2, 5, 24)).astype(np.float32))
    bound.run()
    return np.stack([bound.cond.numpy(), bound.uncond.numpy()])


def test_blocks_of_onnx_runtime_are_the_whole_in_torch_with_the_sum(
    tiny_denoiser, make_denoiser, monkeypatch, tmp_path
):
    openers, real = [], Opener.weights
    monkeypatch.setattr(Opener, "weights", lambda self, component: openers.append(self) or real(self, component))
    plain = filled(tiny_denoiser(3, "block", "batched", onnx=True))
    opener = openers[0]
    weights = load_file(opener.bundle.weight_root / "model.safetensors")
    translated = {next(name for name in spellings(key) if name != key): value for key, value in weights.items()}
    (tmp_path / "loras").mkdir()
    change = lora_file(tmp_path / "loras" / "l.safetensors", translated)  # in the other naming
    changes = {"task": WeightChange(loras=(LoraChoice(tmp_path / "loras" / "l.safetensors", -0.8),))}
    made = filled(DenoiserModel(replace(opener, changes=changes), opener.bundle.manifest.denoisers["task"]))

    sums = summed(translated, (-0.8, change))
    official = {key: sums[next(name for name in spellings(key) if name != key)] for key in weights}
    config = DiTConfig(3, 32, 2, (1.0, 1.0, 1.0), condition_mask=True, adaln_rank=8, text_width=24)
    expected = filled(make_denoiser(config, official, "whole", "batched"))
    largest = np.abs(expected).max()
    assert np.abs(made - expected).max() < 1e-5 * largest
    assert np.abs(plain - expected).max() > 1e-2 * largest


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_flags_and_sidecars_carry_loras(nano_by_torch, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lora_file(tmp_path / "l.safetensors", weights_of(nano_by_torch, "text2image"))
    small = ("--prompt", "a red car", "--steps", "2", "--width", "48", "--height", "32", "--quiet")
    bundle = ("--bundle", nano_by_torch.folder)

    def made(name, *arguments):
        assert run("text2image", *arguments, "--save_path", name) == 0
        return (tmp_path / name).read_bytes()

    plain = made("plain.png", *small, *bundle)
    changed = made("changed.png", *small, *bundle, "--lora", "l.safetensors:0.5", "--lora", "l.safetensors")
    assert changed != plain
    note = json.loads((tmp_path / "changed.json").read_text())["changes"]["text2image"]
    assert [(lora["path"], lora["scale"]) for lora in note["loras"]] == [
        (str(tmp_path / "l.safetensors"), 0.5),
        (str(tmp_path / "l.safetensors"), 1.0),
    ]
    capsys.readouterr()
    assert made("again.png", "--from_sidecar", "changed.json") == changed
    assert "warning" not in capsys.readouterr().err
    assert made("none.png", "--from_sidecar", "plain.json") == plain
    shutil.copy(nano_by_torch.root / "text2image" / FILE, tmp_path / "same.safetensors")
    assert made("same.png", *small, *bundle, "--dit_path", "same.safetensors") == plain
    assert made("more.png", *small, *bundle, "--dit_path_text2image", "same.safetensors") == plain
    lora_file(tmp_path / "l.safetensors", weights_of(nano_by_torch, "text2image"), seed=5)
    made("other.png", "--from_sidecar", "changed.json")
    assert "LoRA is not the one of the sidecar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, arguments",
    [
        ("cannot be read", ["--lora", "missing.safetensors"]),
        ("FILE:SCALE", ["--lora", "same.safetensors:much"]),
        ("match no weight", ["--lora", "same.safetensors"]),
        ("expected a bundle", ["--dit_path", "."]),
        ("named twice", ["--dit_path", "same.safetensors", "--dit_path_text2image", "same.safetensors"]),
    ],
)
def test_a_wrong_flag_is_one_line_before_anything_is_made(nano, tmp_path, monkeypatch, capsys, text, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copy(nano.root / "text2image" / FILE, "same.safetensors")
    if arguments[-1] == ".":
        os.remove("same.safetensors")
    before = os.listdir(".")
    assert run("text2image", "--prompt", "a", "--bundle", nano.folder, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0]
    assert os.listdir(".") == before
