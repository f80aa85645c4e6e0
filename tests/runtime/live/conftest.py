"""A nano Matrix bundle whose graphs torch modules stand for, of small pictures so that tests are quick."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from worldrt.engine import bundle as b
from worldrt.engine.weights import fingerprint
from worldrt.export.families.matrix import graphs
from worldrt.export.families.matrix.control import SYMBOLS
from worldrt.export.families.matrix.nano import make_checkpoint
from worldrt.export.families.matrix.variants import NANO, variant

MODEL_FILE = "diffusion_pytorch_model.safetensors"
SIZE = (48, 32)


class NanoMatrix:
    """`folder` is the bundle, `modules` what its sessions run, by graph file. The checkpoint is in `root`."""

    def __init__(self, root: Path, folder: Path, stubs, form: str = "whole") -> None:
        self.root, self.folder, self.modules, self.stubs = root, folder, {}, stubs
        self.folder.mkdir()
        v = variant(NANO)
        dit, vae, text = f"transformer/{MODEL_FILE}", f"vae/{MODEL_FILE}", "text_encoder/model.safetensors"
        denoiser = stubs.denoiser_spec(
            self._graphs("world", graphs.denoiser_graphs(v.dit, v.diffusion, form), dit),
            form,
            v.dit.blocks,
            dit,
            conditions={"control": b.Condition("frame"), "text": b.Condition("clip")},
            sampler=b.Sampler(v.sampler.kind, v.sampler.steps, v.sampler.first, v.sampler.last),
            sizes={"any": {"3:2": SIZE}},
            frames={"16": v.frames},
            size_multiple_px=16,
            diffusion=v.diffusion,
            stream=v.stream,
            control=b.Control(SYMBOLS, "world/control.safetensors", v.dit.control_width, 2, 4),
        )
        denoiser = b.Denoiser(**{**denoiser.__dict__, "guidance": b.Guidance("classic", 1.0)})
        latent = v.vae.latent_channels
        decoders = self._graphs("vae", graphs.vae_graphs(v.vae), vae)
        scale = (0.0,) * latent, (1 / v.vae.scaling,) * latent
        coder = b.Vae("float32", (vae,), decoders, latent, 8, 4, *scale, chunks=graphs.CHUNKS)
        encode = self._graphs("text", graphs.text_graphs(v.t5), text)
        shutil.copy(self.root / "tokenizer" / "tokenizer.json", self.folder / "text")
        shutil.copy(self.root / "control" / "embeddings.safetensors", self.folder / "world" / "control.safetensors")
        words = b.Text("float32", (text,), encode, "text/tokenizer.json", v.t5.tokens, v.t5.width, "empty")
        weights = b.Weights(str(self.root), {name: fingerprint(self.root / name) for name in (dit, vae, text)})
        files = ("text/tokenizer.json", "world/control.safetensors")
        hashes = {name: b.file_sha256(self.folder / name) for name in files}
        made = {"worldrt": "test"}
        manifest = b.Manifest(b.SCHEMA, "matrix", NANO, made, weights, {"world": denoiser}, coder, words, hashes)
        b.write_manifest(self.folder, manifest)

    def _graphs(self, part, sources, weight_file):
        (self.folder / part).mkdir()
        weights, found = load_file(self.root / weight_file), {}
        blocks = graphs.block_instances(variant(NANO).dit)
        for source in sources:
            file = f"{part}/{source.name}.onnx"
            (self.folder / file).write_text(f"stands for {file}")
            self.modules[file] = source.module
            block, sha256 = blocks.get(source.name, [0])[0], b.file_sha256(self.folder / file)
            found[source.name] = self.stubs.graph_of(source, file, weights, sha256, block)
        return found


@pytest.fixture(scope="session")
def nano_matrix_bundle(tmp_path_factory, stubs) -> NanoMatrix:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("matrix")
    return NanoMatrix(make_checkpoint(root / "checkpoint"), root / NANO, stubs)


@pytest.fixture(scope="session")
def nano_matrix_blocks(nano_matrix_bundle, stubs) -> NanoMatrix:
    """The same checkpoint, with the denoiser in block form."""
    whole = nano_matrix_bundle
    return NanoMatrix(whole.root, whole.folder.with_name("blocks"), stubs, "block")


@pytest.fixture
def nano_matrix(nano_matrix_bundle, stubs, monkeypatch) -> Path:
    """The folder of the bundle, with sessions that compute."""
    stubs.run_by_torch(monkeypatch, nano_matrix_bundle.modules)
    return nano_matrix_bundle.folder
