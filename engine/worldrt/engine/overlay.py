"""Other weights in the place of a checkpoint's: post-trained ones, and LoRAs merged into either.

The checkpoint itself stays mapped and unchanged, so taking a change back is exact. A merged tensor exists while
something uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from worldrt.engine.bundle import Bundle, Denoiser, Graph, Weight
from worldrt.engine.device import Buffer, host_buffer
from worldrt.engine.errors import CheckpointError, InputError, UnsupportedError
from worldrt.engine.lora import LoraChoice, terms_of
from worldrt.engine.merge import Term, merged
from worldrt.engine.namings import plain, spellings
from worldrt.engine.safetensors import SafetensorsFile, StoredTensor
from worldrt.engine.weights import WeightStore, open_weights, weight_key


@dataclass(frozen=True)
class WeightChange:
    """Which weights a denoiser runs with instead of its checkpoint's: those of `path`, with `loras` added."""

    path: Path | None = None
    loras: tuple[LoraChoice, ...] = ()


@dataclass(frozen=True)
class Overlay(WeightStore):
    """A store in which some tensors are others. `stored` holds the keys, in their own files, of tensors that are not
    the checkpoint's; `terms` what is added to a tensor."""

    stored: Mapping[str, str]
    terms: Mapping[str, tuple[Term, ...]]
    _merged: WeakValueDictionary[str, Buffer] = field(default_factory=WeakValueDictionary, repr=False, compare=False)

    def __getitem__(self, key: str) -> Buffer:
        buffer = self._merged.get(key)
        if buffer is None:
            buffer = self._stored(key)
            if key in self.terms:
                buffer = self._merged[key] = self._changed(key, buffer)
        return buffer

    def _changed(self, key: str, buffer: Buffer) -> Buffer:
        try:
            return host_buffer(merged(buffer.numpy(), buffer.dtype, self.terms[key]), buffer.dtype)
        except OverflowError as error:
            raise CheckpointError(
                f"'{key}' with its LoRAs added: {error}; lower their scales: --lora FILE:0.5"
            ) from error

    def _stored(self, key: str) -> Buffer:
        return self.owner[key][self.stored[key]] if key in self.stored else super().__getitem__(key)

    def place(self, key: str) -> tuple[SafetensorsFile, StoredTensor]:
        if self._is_other(key):
            raise UnsupportedError(
                f"'{key}' is not the checkpoint's own, by --lora or --dit_path, and cannot be a constant of an engine; "
                "have the engine take its weights as inputs: --block_weights inputs"
            )
        return super().place(key)

    def others(self, graph: Graph) -> tuple[Weight, ...]:
        if graph.weights_as == "inputs":
            return ()
        return tuple(weight for weight in graph.weights if self._is_other(weight.key))

    def _is_other(self, key: str) -> bool:
        return key in self.terms or key in self.stored


def open_changed(bundle: Bundle, denoiser: Denoiser, change: WeightChange) -> WeightStore:
    """The weights of a denoiser with a change.

    Raises `UnsupportedError` for a quantised denoiser, whose scales fit its own weights; `CheckpointError` where the
    files are not of this model: a key without a match, a missing tensor, another shape or dtype.
    """
    if change == WeightChange():
        return open_weights(bundle, denoiser)
    if denoiser.quantization is not None:
        raise UnsupportedError(
            f"{bundle.folder}: a denoiser quantised to {denoiser.quantization} has scales for its own weights, and "
            "takes neither --lora nor --dit_path; take a bundle that is not quantised, or export the other weights"
        )
    used = used_weights(denoiser)
    stored: dict[str, str] = {}
    if change.path is None:
        store = open_weights(bundle, denoiser)
    else:
        owner, stored = _other_files(change.path, used)
        store = WeightStore(change.path, owner)
    terms = terms_of(change.loras, {key: weight.shape for key, weight in used.items() if len(weight.shape) == 2})
    return Overlay(store.root, store.owner, stored, terms)


def used_weights(denoiser: Denoiser) -> dict[str, Weight]:
    """Every checkpoint tensor that a denoiser's graphs use, by key."""
    found: dict[str, Weight] = {}
    for name, graph in denoiser.graphs.items():
        for block in denoiser.instances(name):
            found |= {weight_key(weight, block): weight for weight in graph.weights}
    return found


def _other_files(path: Path, used: Mapping[str, Weight]) -> tuple[dict[str, SafetensorsFile], dict[str, str]]:
    """The file and the key in it of every used tensor."""
    there = _tensors(path)
    owner, stored = {}, {}
    for key, weight in used.items():
        name = next((name for name in spellings(plain(key)) if name in there), None)
        if name is None:
            raise CheckpointError(f"{path}: no tensor '{key}'; expected the post-trained weights of this very model")
        file, theirs = there[name]
        tensor = file.tensors[theirs]
        if (tensor.dtype, tensor.shape) != (weight.dtype, weight.shape):
            raise CheckpointError(
                f"{file.path}: tensor '{theirs}': expected {weight.dtype}{list(weight.shape)}, got "
                f"{tensor.dtype}{list(tensor.shape)}; weights of another kind need a bundle of their own: trt-export"
            )
        owner[key], stored[key] = file, theirs
    _check_blocks(path, there, used)
    return owner, stored


def _tensors(path: Path) -> dict[str, tuple[SafetensorsFile, str]]:
    """All tensors of a file, or of the files of a folder, by their plain names."""
    found: dict[str, tuple[SafetensorsFile, str]] = {}
    for file in map(SafetensorsFile.open, weight_files(path)):
        for key in file.tensors:
            if found.setdefault(plain(key), (file, key)) != (file, key):
                raise CheckpointError(f"{path}: two tensors '{plain(key)}'; name the one file that is meant")
    return found


def weight_files(path: Path) -> list[Path]:
    """A safetensors file, or those of a folder. Raises `InputError` where there is none."""
    folder = os.path.isdir(path)
    if path.suffix == ".safetensors" and not folder:
        return [path]
    found = sorted(path.glob("*.safetensors")) if folder else []
    if not found:
        raise InputError(
            f"{path}: expected a bundle, a .safetensors file or a folder of them; a .pt file becomes a bundle with: "
            f"trt-export --model SIZE --task TASK --dit_path {path}"
        )
    return found


def _check_blocks(path: Path, there: Iterable[str], used: Iterable[str]) -> None:
    """A block beyond the last one would be left out of the model without a word."""
    known = {name for key in used for name in spellings(plain(key))}
    kinds = {re.sub(r"\d+", "#", name, count=1) for name in known}
    beyond = next((name for name in there if name not in known and re.sub(r"\d+", "#", name, count=1) in kinds), None)
    if beyond is not None:
        raise CheckpointError(f"{path}: '{beyond}' is of a block that this bundle does not have; export a bundle of it")
