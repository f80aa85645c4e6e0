"""The weights of a component, opened from the checkpoint and checked against the bundle's fingerprints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from worldrt.engine.bundle import Bundle, Component, Denoiser, Graph, Weight, WeightFile
from worldrt.engine.device import Buffer
from worldrt.engine.errors import BundleError, CheckpointError
from worldrt.engine.merge import widened
from worldrt.engine.safetensors import SafetensorsFile, StoredTensor

SCALE = "scale."
"""What the keys of scales begin with, unlike those of any checkpoint."""
_NUMBER = re.compile(r"\{(i|j)(?:-(\d+))?\}")
_LISTED = re.compile(r"\{([\d,]*)\}")


@dataclass(frozen=True)
class WeightStore:
    """The tensors of one component by checkpoint key; reading one maps its file and copies nothing.

    `own` is the one file that lies in the bundle and not below `root`: scales.
    """

    root: Path
    owner: Mapping[str, SafetensorsFile]
    own: SafetensorsFile | None = field(default=None, kw_only=True)

    def __getitem__(self, key: str) -> Buffer:
        """Raises `CheckpointError` for an unknown key."""
        if key not in self.owner:
            raise CheckpointError(f"{self.root}: no tensor '{key}' in the weight files of this component")
        return self.owner[key][key]

    def of_graph(self, graph: Graph, block: int = 0) -> dict[str, Buffer]:
        """The weight inputs of a graph by input name; `block` fills the numbers of their keys (`numbered`)."""
        return {weight.name: self[weight_key(weight, block)] for weight in graph.weights}

    def place(self, key: str) -> tuple[SafetensorsFile, StoredTensor]:
        """The file of a tensor and where it lies in it. Raises `CheckpointError` for an unknown key."""
        if key not in self.owner:
            raise CheckpointError(f"{self.root}: no tensor '{key}' in the weight files of this component")
        return self.owner[key], self.owner[key].tensors[key]

    def others(self, graph: Graph) -> tuple[Weight, ...]:
        """The weights of a graph that refers to its weights itself, which in this store are other ones."""
        return ()


def weight_key(weight: Weight, block: int = 0) -> str:
    """The checkpoint key of a weight in instance `block` of its graph."""
    return numbered(weight.key, block)


def numbered(template: str, block: int) -> str:
    """A template with block numbers filled in: i for `{i}`, i + 1 for `{j}`, i - 15 for `{i-15}`, and entry i, from 0
    on, of a list such as `{,1,,3}`."""
    filled = _NUMBER.sub(lambda found: str(block + (found[1] == "j") - int(found[2] or 0)), template)
    return _LISTED.sub(lambda found: ",".join(found[1].split(",")[block : block + 1]), filled)


def open_weights(bundle: Bundle, component: Component, *, full: bool = False) -> WeightStore:
    """Open a component's weight files. `full` also compares recorded hashes of whole files.

    Raises `BundleError` where a file is missing, leaves the weight root, has another fingerprint, or where a tensor
    that a graph uses is absent or has another shape or dtype, or a scale is not above 0; `CheckpointError` where a file
    is damaged.
    """
    owner: dict[str, SafetensorsFile] = {}
    for relative in component.files:
        file = _open_checked(bundle, relative, full)
        owner |= dict.fromkeys(file.tensors, file)
    own = _open_scales(bundle, component.scales) if isinstance(component, Denoiser) and component.scales else None
    if own is not None:
        owner |= dict.fromkeys(own.tensors, own)
    for name, graph in component.graphs.items():
        for i in component.instances(name):
            _check_tensors(bundle, graph, owner, i)
    if isinstance(component, Denoiser):
        _check_last(bundle, component, owner)
    return WeightStore(bundle.weight_root, owner, own=own)


def _open_scales(bundle: Bundle, relative: str) -> SafetensorsFile:
    """Scales divide and multiply whole channels, so each is to be a number above 0."""
    file = SafetensorsFile.open(bundle.path(relative))
    for key, tensor in file.tensors.items():
        values = widened(file[key].numpy(), tensor.dtype)
        if not key.startswith(SCALE) or not ((values > 0) & np.isfinite(values)).all():
            raise BundleError(f"{file.path}: '{key}': expected finite scales above 0; export the bundle again")
    return file


def _open_checked(bundle: Bundle, relative: str, full: bool) -> SafetensorsFile:
    recorded = bundle.manifest.weights.files.get(relative)
    if recorded is None:
        raise BundleError(f"{bundle.folder}: no fingerprint of the weight file '{relative}'; export again")
    path = _weight_path(bundle.weight_root, relative)
    if not path.is_file():
        raise BundleError(
            f"{path}: this weight file is missing; the bundle was made from {bundle.manifest.weights.root}. "
            "If the checkpoint has moved, say where it is with --checkpoint"
        )
    file = SafetensorsFile.open(path)
    if (file.size_bytes, file.header_sha256) != (recorded.size_bytes, recorded.header_sha256):
        raise BundleError(
            f"{path}: not the weights that the bundle was exported from (header or size differ); export again"
        )
    if full and recorded.sha256 not in (None, file.content_sha256()):
        raise BundleError(f"{path}: its content changed since the export (sha256 differs)")
    return file


def _weight_path(root: Path, relative: str) -> Path:
    """A checkpoint may hold links (model hubs do), but no recorded path may climb out of its root."""
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise BundleError(f"weight file '{relative}': a path must stay inside the weight root {root}")
    return root / relative


def _check_last(bundle: Bundle, denoiser: Denoiser, owner: Mapping[str, SafetensorsFile]) -> None:
    """A block beyond the last one would be left out of the model without a word."""
    graphs = [graph for name, graph in denoiser.graphs.items() if name in denoiser.block_graphs()]
    beyond = [weight_key(w, denoiser.blocks) for graph in graphs for w in graph.weights if "{i" in w.key]
    if any(key in owner for key in beyond):
        raise BundleError(
            f"{bundle.weight_root}: the weights hold more than the {denoiser.blocks} blocks of the bundle; export again"
        )


def _check_tensors(bundle: Bundle, graph: Graph, owner: Mapping[str, SafetensorsFile], block: int) -> None:
    for weight in graph.weights:
        key = weight_key(weight, block)
        if key not in owner:
            raise BundleError(
                f"{bundle.weight_root}: the graph {graph.file} uses tensor '{key}', which no weight file holds"
            )
        stored = owner[key].tensors[key]
        if (stored.dtype, stored.shape) != (weight.dtype, weight.shape):
            raise BundleError(
                f"{owner[key].path}: tensor '{key}': expected {weight.dtype}{list(weight.shape)}, "
                f"got {stored.dtype}{list(stored.shape)}"
            )


def fingerprint(path: Path, *, full: bool = False) -> WeightFile:
    """The fingerprint of a safetensors file; with `full`, the hash of all its bytes too. Raises `CheckpointError`."""
    file = SafetensorsFile.open(path)
    return WeightFile(file.size_bytes, file.header_sha256, file.content_sha256() if full else None)
