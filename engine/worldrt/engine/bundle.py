"""`bundle.json`: what an export made, and all that a runtime needs to know of it.

A bundle is a folder of ONNX graphs and tokenizer files. Weights stay in the checkpoint: the bundle holds the place of
its root and a fingerprint of each file (size and hash of the safetensors header).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
from worldrt.engine.parts import Component as Component
from worldrt.engine.parts import Denoiser as Denoiser
from worldrt.engine.parts import Graph as Graph
from worldrt.engine.parts import Precision as Precision
from worldrt.engine.parts import Quantization as Quantization
from worldrt.engine.parts import Text as Text
from worldrt.engine.parts import Vae as Vae
from worldrt.engine.parts import Weight as Weight
from worldrt.engine.schema import SchemaError, decode, encode, parse_json
from worldrt.engine.validate import check_manifest

SCHEMA = 1
FILE_NAME = "bundle.json"


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
