"""Bundles made in a test: real manifests and weight files, graphs that torch modules stand for."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from worldrt.engine import bundle as b
from worldrt.engine.device import HostDevice
from worldrt.engine.session import Session
from worldrt.engine.weights import fingerprint, numbered
from worldrt.export.families.cosmos.graphs import denoiser_graphs, text_graphs, vae_graphs
from worldrt.export.families.cosmos.nano import make_checkpoint
from worldrt.export.families.cosmos.variants import DiTConfig, variant
from worldrt.export.graphs import GraphSource
from worldrt.export.trace import distinct, export_onnx
from worldrt.runtime import components
from worldrt.runtime.denoise import DenoiserModel

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


def graph_of(
    source: GraphSource, file: str, weights: Mapping[str, torch.Tensor], sha256: str = "", block: int = 0
) -> b.Graph:
    """A graph that takes its weights as inputs; an output that has the name of an input becomes `next_...`. `block` is
    one of its instances."""
    taken = {spec.name for spec in source.inputs}
    outputs = tuple(replace(o, name=f"next_{o.name}") if o.name in taken else o for o in source.outputs)
    used = []
    for name, key in source.weights.items():
        value = weights[numbered(key, block)]
        used.append(b.Weight(name, key, str(value.dtype).removeprefix("torch."), tuple(value.shape)))
    return b.Graph(file, sha256, source.inputs, outputs, "inputs", tuple(used))


def denoiser_spec(graphs, form: str, blocks: int, file: str, guidance: float = 7.0, **other) -> b.Denoiser:
    values = {
        "precision": "float32",
        "files": (file,),
        "conditions": {},
        "sampler": b.Sampler("rectified_flow_ab2", 5, 80.0, 0.002),
        "guidance": b.Guidance("delta", guidance),
        "sizes": {"any": {"16:9": (128, 80), "1:1": (96, 96)}},
        "frames": {"16": 17, "10": 9},
    }
    return b.Denoiser(graphs=graphs, form=form, blocks=blocks, **(values | other))


def denoiser_bundle(
    folder: Path, config: DiTConfig, weights: dict[str, torch.Tensor], form: str, onnx: bool, cut: bool = False
):
    """A bundle of one denoiser, `task`, over given weights by official key, and the sources of its graphs by file."""
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    sources = {f"{source.name}.onnx": source for source in denoiser_graphs(config, form, attention_cut=cut)}
    for name, source in sources.items():
        ir.save(export_onnx(distinct(source)), folder / name) if onnx else (folder / name).touch()
    sha256 = {file: b.file_sha256(folder / file) for file in sources}
    graphs = {source.name: graph_of(source, file, weights, sha256[file]) for file, source in sources.items()}
    spec = denoiser_spec(graphs, form, config.blocks, "model.safetensors")
    if config.windows is not None:
        rows, columns = config.windows.grid
        sparse = b.Sparse(config.windows.grid, config.windows.names())
        spec = replace(spec, sparse=sparse, sizes={"any": {"16:9": (16 * columns, 16 * rows)}})
    files = {"model.safetensors": fingerprint(folder / "model.safetensors")}
    manifest = b.Manifest(b.SCHEMA, "cosmos", "golden", {}, b.Weights(str(folder), files), {"task": spec})
    return b.Bundle(folder, manifest, folder), sources


def tiny_weights(blocks: int) -> tuple[DiTConfig, dict[str, torch.Tensor]]:
    """A video denoiser with seeded weights."""
    config = DiTConfig(blocks, 32, 2, (1.0, 1.0, 1.0), condition_mask=True, adaln_rank=8, text_width=24)
    return config, random_weights(config)


def random_weights(config: DiTConfig) -> dict[str, torch.Tensor]:
    """Of a denoiser, by official key."""
    generator = torch.Generator().manual_seed(0)
    whole = denoiser_graphs(config, "whole")[0]
    return {
        whole.weights[name]: torch.randn(value.shape, generator=generator) * 0.2
        for name, value in whole.module.named_parameters()
    }


@pytest.fixture(scope="session")
def tiny_blocks(tmp_path_factory) -> b.Bundle:
    """The tiny denoiser of five blocks as ONNX graphs, in block form. Do not change it."""
    return denoiser_bundle(tmp_path_factory.mktemp("tiny") / "block", *tiny_weights(5), "block", True)[0]


@pytest.fixture
def make_denoiser(tmp_path, monkeypatch):
    """Makes a loaded `DenoiserModel` over given weights by official key, run by torch."""

    def make(
        config: DiTConfig, weights: dict[str, torch.Tensor], form: str, guidance: str, onnx: bool = False
    ) -> DenoiserModel:
        bundle, sources = denoiser_bundle(tmp_path / f"{form}-{guidance}-{onnx}", config, weights, form, onnx)
        if not onnx:
            run_by_torch(monkeypatch, {file: source.module for file, source in sources.items()})
        opener = components.Opener(bundle, components.Execution(guidance=guidance))
        return DenoiserModel(opener, bundle.manifest.denoisers["task"])

    return make


@pytest.fixture
def golden_denoiser(make_denoiser):
    """Makes a denoiser over golden weights."""
    return lambda golden, form, guidance: make_denoiser(golden.config(), golden.weights, form, guidance)


@pytest.fixture
def tiny_denoiser(make_denoiser):
    """Makes a video denoiser with seeded weights and any number of blocks."""

    def make(blocks: int, form: str, guidance: str, onnx: bool = False) -> DenoiserModel:
        return make_denoiser(*tiny_weights(blocks), form, guidance, onnx)

    return make


def run_by_torch(monkeypatch, modules: Mapping[str, torch.nn.Module]) -> None:
    """Sessions are torch modules, by graph file."""

    def open_session(backend, path, graph, device, **_):
        return TorchSession(graph, device, deepcopy(modules[graph.file]))  # threads may each have one

    monkeypatch.setattr(components, "open_session", open_session)


class Nano:
    """A complete bundle of the nano checkpoint; torch modules stand for its graphs, the null backend takes it so."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = make_checkpoint(root / "checkpoint"), root / "bundles" / "nano"
        self.folder.mkdir(parents=True)
        self.modules: dict[str, torch.nn.Module] = {}
        self.weights: dict[str, dict[str, torch.Tensor]] = {}
        image, video = variant("nano", "text2image"), variant("nano", "video2world")
        transformer, text_file = "diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
        denoisers = {}
        for part, form in ((image, "whole"), (video, "block")):
            file = f"{part.task}/{transformer}"
            graphs = self._graphs(part.task, denoiser_graphs(part.dit, form, key_format="diffusers"), file)
            sizes = {name: dict(table) for name, table in part.sizes.items()}
            denoisers[part.task] = denoiser_spec(
                graphs, form, part.dit.blocks, file, part.guidance, sizes=sizes, frames={"16": 17, "10": 9}
            )
        vae_file = f"vae/{transformer}"
        vae = b.Vae(
            "float32",
            (vae_file,),
            self._graphs("vae", vae_graphs(image.vae, key_format="diffusers"), vae_file),
            image.vae.latent_channels,
            8,
            4,
            image.vae.latent_mean,
            image.vae.latent_std,
        )
        text_folder = self.folder / "text"
        graphs = self._graphs("text", text_graphs(image.t5), text_file)
        shutil.copy(self.root / "tokenizer" / "tokenizer.json", text_folder)
        text = b.Text("float32", (text_file,), graphs, "text/tokenizer.json", image.t5.tokens, image.t5.width)
        files = {name: fingerprint(self.root / name, full=True) for name in self.weights}
        self.manifest = b.Manifest(
            b.SCHEMA,
            "cosmos",
            "nano",
            {"worldrt": "test"},
            b.Weights(str(self.root), files),
            denoisers,
            vae,
            text,
            {"text/tokenizer.json": b.file_sha256(text_folder / "tokenizer.json")},
        )
        b.write_manifest(self.folder, self.manifest)

    def _graphs(self, part: str, sources: list[GraphSource], weight_file: str) -> dict[str, b.Graph]:
        (self.folder / part).mkdir(exist_ok=True)
        self.weights.setdefault(weight_file, load_file(self.root / weight_file))
        graphs = {}
        for source in sources:
            file = f"{part}/{source.name}.onnx"
            (self.folder / file).write_text(f"stands for {file}")
            self.modules[file] = source.module
            sha256 = b.file_sha256(self.folder / file)
            graphs[source.name] = graph_of(source, file, self.weights[weight_file], sha256)
        return graphs


@pytest.fixture(scope="session")
def nano(tmp_path_factory) -> Nano:
    torch.set_num_threads(1)
    return Nano(tmp_path_factory.mktemp("nano"))


@pytest.fixture
def nano_by_torch(nano, monkeypatch) -> Nano:
    """The nano bundle with sessions that compute."""
    run_by_torch(monkeypatch, nano.modules)
    return nano


@pytest.fixture(scope="session")
def stubs():
    """What tests need to make bundles of their own."""
    return SimpleNamespace(
        save=save_file,
        run_by_torch=run_by_torch,
        graph_of=graph_of,
        denoiser_spec=denoiser_spec,
        denoiser_bundle=denoiser_bundle,
        tiny_weights=tiny_weights,
        random_weights=random_weights,
        torch_session=TorchSession,
    )
