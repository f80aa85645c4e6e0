"""`bundle.json`: what an export made, and all that a runtime needs to know of it.

A bundle is a folder of ONNX graphs and tokenizer files. Weights stay in the checkpoint: the bundle holds the place of
its root and a fingerprint of each file (size and hash of the safetensors header).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from worldrt.engine.content import file_hash
from worldrt.engine.errors import BundleError
from worldrt.engine.facts import Chunk as Chunk
from worldrt.engine.facts import Condition as Condition
from worldrt.engine.facts import Control as Control
from worldrt.engine.facts import Diffusion as Diffusion
from worldrt.engine.facts import Guidance as Guidance
from worldrt.engine.facts import Layout as Layout
from worldrt.engine.facts import Place as Place
from worldrt.engine.facts import Sampler as Sampler
from worldrt.engine.facts import Sparse as Sparse
from worldrt.engine.facts import Stream as Stream
from worldrt.engine.files import inside
from worldrt.engine.quality import Quality
from worldrt.engine.schema import SchemaError, decode, encode, parse_json
from worldrt.engine.tensors import SymbolicShape, TensorSpec
from worldrt.engine.validate import check_manifest

SCHEMA = 1
FILE_NAME = "bundle.json"
Precision = Literal["float32", "float16", "bfloat16"]
Quantization = Literal["int8", "fp8", "int8_static", "mxfp8", "nvfp4"]


@dataclass(frozen=True)
class Weight:
    """A checkpoint tensor that a graph uses: as the graph input `name`, or as an initializer by external data.

    `key` may hold `{i}`, `{j}` and `{i-15}`: block number i, j = i + 1 and i - 15 of an instance of a block graph.
    """

    name: str
    key: str
    dtype: str
    shape: SymbolicShape


@dataclass(frozen=True)
class Graph:
    """One ONNX file with its inputs, outputs and weights. `program` is a saved torch program of the same graph."""

    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights_as: Literal["inputs", "external"]
    weights: tuple[Weight, ...]
    program: str | None = None


@dataclass(frozen=True)
class Component:
    """What all components share: their graphs, compute precision, and weight files relative to the weight root."""

    precision: Precision
    files: tuple[str, ...]
    graphs: Mapping[str, Graph]

    def instances(self, graph: str) -> Sequence[int]:
        """The numbers of the blocks that a graph is run for; (0,) where it is run once."""
        return (0,)


@dataclass(frozen=True)
class Denoiser(Component):
    """A diffusion transformer. `whole`: one graph `denoise`. `block`: `embed`, `block` (blocks - 1 instances), `head`;
    a `sparse` one has a `block_WINDOW` for each kind of window instead, and takes clips of two latent frames or more;
    one with `control` has `block` and `block_control`.

    Levels are sigmas, or with `diffusion` timesteps. With `levels` they are part of the graph, one for each frame of
    its window, and it has no input `level`.

    `quantization`: linear layers are of this kind. The weights of `int8` (at run time, for CPUs) lie in the .onnx file
    and not among `weights`; the others (for engines) quantise those of the checkpoint inside the graph.
    `quality` is what that was measured to do. In block form the scales of all instances are weights of `block` too:
    they lie in `scales`, a safetensors file of the bundle itself.

    `sizes`: resolution -> aspect ratio -> (width, height) in pixels. `frames`: fps -> number of pixel frames.
    """

    form: Literal["whole", "block"]
    blocks: int
    conditions: Mapping[str, Condition]
    sampler: Sampler
    guidance: Guidance
    sizes: Mapping[str, Mapping[str, tuple[int, int]]]
    frames: Mapping[str, int]
    size_multiple_px: int = 16
    quantization: Quantization | None = None
    quality: Quality | None = None
    scales: str | None = None
    sparse: Sparse | None = None
    diffusion: Diffusion | None = None
    levels: tuple[float, ...] | None = None
    stream: Stream | None = None
    control: Control | None = None
    layout: Layout | None = None

    def block_graph(self, block: int) -> str:
        """The graph that block number `block` is run by; the last one is in `head`."""
        if self.sparse is not None:
            return f"block_{self.sparse.windows[block]}"
        controlled = self.control is not None and self.control.start <= block < self.control.end
        return "block_control" if controlled else "block"

    def block_graphs(self) -> tuple[str, ...]:
        """All of them, none in whole form."""
        if self.form == "whole":
            return ()
        if self.sparse is None and self.control is None:
            return ("block",)
        return tuple(dict.fromkeys(self.block_graph(i) for i in range(self.blocks - 1)))

    def instances(self, graph: str) -> Sequence[int]:
        if graph not in self.block_graphs():
            return (0,)
        blocks = range(self.blocks - 1)
        alike = self.sparse is None and self.control is None
        return blocks if alike else [i for i in blocks if self.block_graph(i) == graph]


@dataclass(frozen=True)
class Vae(Component):
    """A causal VAE as step graphs `encode_first`, `encode_next`, `decode_first`, `decode_next`.

    One latent covers `spatial` x `spatial` pixels and, after the first frame, `temporal` frames. Statistics are those
    of raw latents; the graphs take and return normalised ones.

    A step is one latent, and one frame in a first step or `temporal` frames in a later one; `chunks` says otherwise by
    the name of the graph. `decode_first_3` starts as `decode_first` does, with three latents. One of pictures, whose
    steps know nothing of each other (`temporal` is 1), has `encode` and `decode` alone.
    """

    channels: int
    spatial: int
    temporal: int
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    pixel_format: Literal["rgb24", "nv12", "yuv420p"] = "rgb24"
    chunks: Mapping[str, Chunk] = field(default_factory=dict)

    def chunk(self, graph: str) -> Chunk:
        """What one run of a graph takes and gives."""
        usual = Chunk(1, 1 if graph.endswith("_first") else self.temporal)
        return self.chunks.get(graph, usual)


@dataclass(frozen=True)
class Text(Component):
    """A text encoder `encode(ids, mask)`; prompts are padded with zero rows to `max_tokens` rows of `width`.

    The unconditional text is all `zeros`, or that of the `empty` prompt. Prompts that are `cut` keep their last token.
    With `place` it is one of several (`Manifest.texts`) whose rows together are what a denoiser takes.
    """

    tokenizer: str
    max_tokens: int
    width: int
    unconditional: Literal["zeros", "empty"] = "zeros"
    too_long: Literal["refuse", "cut"] = "refuse"
    place: Place | None = None


@dataclass(frozen=True)
class WeightFile:
    """The fingerprint of a checkpoint file; `sha256` of all its bytes only where it was asked for."""

    size_bytes: int
    header_sha256: str
    sha256: str | None = None


@dataclass(frozen=True)
class Weights:
    """The folder that weight files are relative to, as it was at export, and their fingerprints.

    A relative `root` is a folder of the bundle itself.
    """

    root: str
    files: Mapping[str, WeightFile]


@dataclass(frozen=True)
class Manifest:
    """The content of `bundle.json`."""

    schema: int
    family: str
    variant: str
    producer: Mapping[str, str]
    weights: Weights
    denoisers: Mapping[str, Denoiser]
    vae: Vae | None = None
    text: Text | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # other files of the bundle and their sha256
    texts: Mapping[str, Text] = field(default_factory=dict)  # further text encoders

    def components(self) -> dict[str, Component]:
        """All components by name; denoisers by their task."""
        named: dict[str, Component] = dict(self.denoisers) | dict(self.texts)
        return named | {n: c for n, c in (("vae", self.vae), ("text", self.text)) if c is not None}


@dataclass(frozen=True)
class Bundle:
    """A validated bundle: its folder, its manifest, and the weight root in force."""

    folder: Path
    manifest: Manifest
    weight_root: Path

    def path(self, relative: str) -> Path:
        """A file of the bundle. Raises `BundleError` where the path leaves the folder or the file is missing."""
        return _existing(self.folder, relative, "bundle")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `bundle.json` into a folder."""
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False)
    # a root that is not UTF-8 holds lone surrogates, which JSON can write as escapes
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_manifest(folder: Path) -> Manifest:
    """Parse and check `bundle.json`. Raises `BundleError`."""
    place = folder / FILE_NAME
    try:
        data = parse_json(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder}: no bundle here ({FILE_NAME} is missing); make one with trt-export") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{place}: cannot be read: {error}") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA or not isinstance(version, int) or isinstance(version, bool):
        raise BundleError(f"{place}: schema version {version!r}; this worldrt reads {SCHEMA}. Export the bundle again")
    try:
        manifest = decode(Manifest, data)
        check_manifest(manifest)
        return manifest
    except SchemaError as error:
        raise BundleError(f"{place}: {error}") from error


def load_bundle(folder: Path | str, checkpoint: Path | str | None = None) -> Bundle:
    """Read a bundle and check every file it names. `checkpoint` overrides the recorded root of the weights.

    Raises `BundleError`: unknown version, missing or changed file, path that leaves its root. Weight files are checked
    when `worldrt.engine.weights.open_weights` opens them.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    bundle = Bundle(folder, manifest, folder / manifest.weights.root if checkpoint is None else Path(checkpoint))
    expected = dict(manifest.files)
    for component in manifest.components().values():
        expected |= {graph.file: graph.sha256 for graph in component.graphs.values()}
    for relative, sha256 in expected.items():
        actual = file_sha256(bundle.path(relative))
        if actual != sha256:
            raise BundleError(
                f"{folder / relative}: changed since the export (sha256 {actual[:12]}..., expected {sha256[:12]}...)"
            )
    for text in (manifest.text, *manifest.texts.values()):
        if text is not None and text.tokenizer not in manifest.files:
            raise BundleError(f"{folder}: the tokenizer '{text.tokenizer}' is not among the bundle's files")
    return bundle


def file_sha256(path: Path) -> str:
    """The hash of a file. Raises `BundleError` where it cannot be read."""
    try:
        return file_hash(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error


def _existing(root: Path, relative: str, what: str) -> Path:
    try:
        path = inside(root, relative)
        there = path.is_file()
    except ValueError as error:
        raise BundleError(f"{what}: {error}; a path of a bundle must stay inside it") from error
    except (OSError, RuntimeError) as error:  # too long a name; links that lead in a circle
        raise BundleError(f"{what}: '{relative[:80]}' cannot be followed: {error}") from error
    if not there:
        raise BundleError(f"{what}: {path} is missing; export again, or copy the bundle whole")
    return path
