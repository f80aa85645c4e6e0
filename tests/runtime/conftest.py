"""Bundles made in a test: real manifests and weight files, graphs that torch modules stand for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from worldrt.engine import bundle as b
from worldrt.engine.device import HostDevice
from worldrt.engine.session import Session
from worldrt.engine.weights import fingerprint
from worldrt.export.families.cosmos.graphs import denoiser_graphs
from worldrt.export.families.cosmos.variants import DiTConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "cosmos"


class Golden:
    """Tensors, weights by official key, and metadata of one golden file."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.meta = json.loads(file.metadata()["meta"])
        self.weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        self.arrays = {k: v.numpy() for k, v in tensors.items() if not k.startswith("weights.")}

    def __getitem__(self, name: str):
        return self.arrays[name]

    def config(self) -> DiTConfig:
        c = self.meta["config"]
        return DiTConfig(
            blocks=c["num_blocks"],
            width=c["model_channels"],
            heads=c["num_heads"],
            rope_ratio=tuple(c[f"rope_{axis}_extrapolation_ratio"] for axis in "thw"),
            condition_mask=self.weights["x_embedder.proj.1.weight"].shape[1] == 4 * 18,
            adaln_rank=c["adaln_lora_dim"],
            text_width=c["crossattn_emb_channels"],
        )


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    return Golden


class TorchSession(Session):
    """Runs a torch module on the bound buffers; weights are inputs."""

    def __init__(self, graph: b.Graph, device: HostDevice, module: torch.nn.Module) -> None:
        super().__init__(graph, device)
        self.module = module

    def _prepare(self, buffers):
        tensors = {name: _tensor(buffer) for name, buffer in buffers.items()}
        weights = {weight.name: tensors[weight.name] for weight in self.graph.weights}
        inputs = tuple(tensors[spec.name] for spec in self.graph.inputs)

        @torch.no_grad()
        def run() -> None:
            made = torch.func.functional_call(self.module, weights, inputs)
            for spec, value in zip(self.graph.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                tensors[spec.name].copy_(value)

        return run


def _tensor(buffer) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mapped weights are read-only, and are only read
        return torch.from_numpy(buffer.numpy())


def denoiser_bundle(folder: Path, golden: Golden, form: str) -> tuple[b.Bundle, Mapping[str, torch.nn.Module]]:
    """A bundle of one denoiser whose weights are the golden ones, and the modules behind its graphs."""
    config = golden.config()
    sources = {source.name: source for source in denoiser_graphs(config, form)}
    save_file(golden.weights, folder / "model.safetensors")
    dtype = {torch.float32: "float32", torch.int64: "int64"}

    def weights(source):
        for name, key in source.weights.items():
            value = golden.weights[key.replace("{i}", "0").replace("{j}", "1")]
            yield b.Weight(name, key, dtype[value.dtype], tuple(value.shape))

    graphs = {}
    for name, source in sources.items():
        taken = {spec.name for spec in source.inputs}
        outputs = (replace(o, name=f"next_{o.name}") if o.name in taken else o for o in source.outputs)
        graphs[name] = b.Graph(f"{name}.onnx", "", source.inputs, tuple(outputs), "inputs", tuple(weights(source)))
    spec = b.Denoiser(
        precision="float32",
        files=("model.safetensors",),
        graphs=graphs,
        form=form,
        blocks=config.blocks,
        conditions={},
        sampler=b.Sampler("rectified_flow_ab2", 5, 80.0, 0.002),
        guidance=b.Guidance("delta", golden.meta["guidance"]),
        sizes={"any": {"16:9": (96, 64)}},
        frames={"16": 13},
    )
    task = "video2world" if config.condition_mask else "text2image"
    fingerprints = b.Weights(str(folder), {"model.safetensors": fingerprint(folder / "model.safetensors")})
    manifest = b.Manifest(b.SCHEMA, "cosmos", "golden", {}, fingerprints, {task: spec})
    return b.Bundle(folder, manifest, folder), {name: source.module for name, source in sources.items()}


@pytest.fixture
def golden_denoiser(tmp_path, monkeypatch):
    """Makes a loaded `DenoiserModel` over golden weights, run by torch."""
    from worldrt.runtime import components
    from worldrt.runtime.denoise import DenoiserModel

    def make(golden: Golden, form: str, guidance: str) -> DenoiserModel:
        folder = tmp_path / f"{form}-{guidance}"
        folder.mkdir()
        bundle, modules = denoiser_bundle(folder, golden, form)

        def open_session(backend, path, graph, device, **_):
            return TorchSession(graph, device, modules[path.stem])

        for graph in next(iter(bundle.manifest.denoisers.values())).graphs.values():
            (folder / graph.file).touch()
        monkeypatch.setattr(components, "open_session", open_session)
        opener = components.Opener(bundle, components.Execution(guidance=guidance))
        return DenoiserModel(opener, next(iter(bundle.manifest.denoisers.values())))

    return make
