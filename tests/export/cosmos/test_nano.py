"""The nano checkpoint: the same bytes every time, readable by the reference libraries, and alive."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import T5EncoderModel

from worldrt.engine import packaged
from worldrt.engine.weights import fingerprint
from worldrt.export.families.cosmos.denoiser import Denoise
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.nano import PARTS, copy_trained, make_checkpoint
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.families.cosmos.weights import dit_keys


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("nano"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_bytes_for_the_same_seed(checkpoint, tmp_path):
    once, again = contents(checkpoint), contents(make_checkpoint(tmp_path))
    assert once == again
    weights = "video2world/diffusion_pytorch_model.safetensors"
    assert contents(make_checkpoint(tmp_path / "other", seed=1))[weights] != once[weights]


def test_trained_weights_are_copied_as_float32(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "PLACE", tmp_path / "models")
    assert not copy_trained(tmp_path / "out")
    own = tmp_path / "models" / "nano"
    for file in PARTS.values():
        (own / "checkpoint" / file).parent.mkdir(parents=True)
        half = {key: -value.half() for key, value in load_file(checkpoint / file).items()}
        save_file(half, own / "checkpoint" / file, metadata={"format": "pt"})
    (own / "bundle.json").write_text("{}")
    assert copy_trained(tmp_path / "out")
    for file in PARTS.values():
        seeded, copied = (load_file(folder / file) for folder in (checkpoint, tmp_path / "out"))
        assert all(torch.equal(copied[key], -value.half().float()) for key, value in seeded.items())
        assert fingerprint(checkpoint / file) == fingerprint(
            tmp_path / "out" / file
        )  # graphs of one hold for the other


def test_reference_libraries_read_it(checkpoint):
    for task in ("text2image", "video2world"):
        model, info = CosmosTransformer3DModel.from_pretrained(checkpoint / task, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert model.config.rope_scale == list(variant("nano", task).dit.rope_ratio)
    vae, info = AutoencoderKLWan.from_pretrained(checkpoint / "vae", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    text = T5EncoderModel.from_pretrained(checkpoint / "text_encoder")
    total = sum(t.numel() for f in checkpoint.rglob("*.safetensors") for t in load_file(f).values())
    assert 8e6 < total < 12e6
    assert text.config.vocab_size == 1024 and vae.config.base_dim == 8


def test_tokenizer_has_the_conventions_of_t5(checkpoint):
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer" / "tokenizer.json"))
    assert [tokenizer.token_to_id(t) for t in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() <= 1024
    prompt = "A red car drives through heavy rain at night. 夜の道 🚗"
    ids = tokenizer.encode(prompt).ids
    assert ids[-1] == 1 and 2 not in ids and 0 not in ids
    assert tokenizer.decode(ids).strip() == prompt.lower()
    assert tokenizer.encode("").ids == [1]
    assert len(tokenizer.encode("a red car on a busy highway with several lanes").ids) <= 14
    tokenizer.enable_truncation(8)
    assert tokenizer.encode(prompt).ids[-1] == 1


def test_output_depends_on_every_input(checkpoint):
    dit = DiT(variant("nano", "video2world").dit).requires_grad_(False)
    weights = load_file(checkpoint / "video2world" / "diffusion_pytorch_model.safetensors")
    dit.load_state_dict({dit_keys().name(key, "diffusers"): value for key, value in weights.items()})
    denoise = Denoise(dit)
    inputs = {
        "x": torch.randn(1, 16, 3, 6, 8) * 5,
        "level": torch.full((1, 3), 5.0),
        "text": torch.randn(1, 9, 128),
        "position": torch.arange(3.0),
        "clean": torch.randn(1, 16, 3, 6, 8),
        "mask": torch.tensor([[1.0, 0.0, 0.0]]),
    }
    x0 = denoise(*inputs.values())
    assert 0.3 < x0.std() < 3
    changed = {"level": torch.full((1, 3), 4.0), "position": torch.tensor([0.0, 1.0, 7.0]), "mask": torch.zeros(1, 3)}
    for name in inputs:
        other = changed.get(name, inputs[name] * 0.5)
        moved = denoise(*(inputs | {name: other}).values())
        assert (moved - x0)[:, :, 1:].abs().max() > 1e-3, name
