"""Finding a component's weights in a checkpoint folder: diffusers pipelines, official files, hub caches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import CheckpointError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.tensors import Shape
from worldrt.engine.weights import WeightStore
from worldrt.export.convert import PICKLED, to_safetensors

PREFIXES = ("net.", "model.", "module.")


@dataclass(frozen=True)
class Probe:
    """A tensor that tells key formats and models apart."""

    key: str
    shape: Shape


@dataclass(frozen=True)
class Wanted:
    """A component: its name, where it may lie below a checkpoint root (best first; `*` for hub caches), how its keys
    may look (probes by key format), and what to fetch where it is missing."""

    name: str
    places: tuple[str, ...]
    probes: Mapping[str, Probe]
    fetch: str


@dataclass(frozen=True)
class Found:
    """A component's opened weight files, the format of their keys, and what stands before each key (`net.`)."""

    files: tuple[SafetensorsFile, ...]
    key_format: str
    prefix: str

    def dtype(self) -> str:
        """The dtype that most of its floating point values have."""
        count: Counter[str] = Counter()
        for file in self.files:
            for tensor in file.tensors.values():
                if "float" in tensor.dtype:
                    count[tensor.dtype] += tensor.nbytes
        return count.most_common(1)[0][0] if count else "float32"

    def values(self) -> int:
        """How many values the tensors hold in all, roughly: bytes over the width of the common dtype."""
        width = {"float64": 8, "float32": 4}.get(self.dtype(), 2)
        return sum(tensor.nbytes for file in self.files for tensor in file.tensors.values()) // width

    def store(self, root: Path) -> WeightStore:
        """Its tensors by key; `root` must hold all its files."""
        return WeightStore(root, {key: file for file in self.files for key in file.tensors})


class NotFoundError(CheckpointError):
    """No place holds the component."""


class ForeignError(NotFoundError):
    """A place holds weights, but of another model."""


def find(
    root: Path, wanted: Wanted, *, given: Path | None = None, ema: bool = False, convert_to: Path | None = None
) -> Found:
    """Open a component's weights, converting a pickled file if need be. `given` names the file or folder itself.

    Raises `NotFoundError` with the places looked in and what to fetch, `CheckpointError` for damaged or foreign ones.
    """
    looked: list[str] = []
    foreign: list[str] = []
    for place in [given] if given is not None else _expand(root, wanted.places):
        looked.append(str(place))
        files = weight_files(place)
        if not files:
            continue
        opened = tuple(SafetensorsFile.open(_as_safetensors(file, ema, convert_to)) for file in files)
        found, reason = _identify(opened, wanted, ema)
        if found is not None:
            return found
        foreign.append(f"{place} ({reason})")
    if foreign:
        raise ForeignError(f"{wanted.name}: no weights of this model here: {'; '.join(foreign)}. Fetch {wanted.fetch}")
    raise NotFoundError(f"{wanted.name}: no weights found; looked in {', '.join(looked)}. Fetch {wanted.fetch}")


def _expand(root: Path, places: Sequence[str]) -> Iterator[Path]:
    for place in places:
        if "*" in place:
            yield from sorted(root.glob(place)) or [root / place]
        else:
            yield root / place


def weight_files(place: Path) -> list[Path]:
    """The files of a component: the shards of an index, or one file. Empty where there is none.

    Raises `CheckpointError` where shards that an index names are missing.
    """
    if place.is_file():
        return _shards(place) if place.name.endswith(".index.json") else [place]
    if not place.is_dir():
        return []
    for pattern in ("*.safetensors.index.json", "*.safetensors", "*.bin.index.json", *(f"*{end}" for end in PICKLED)):
        # a name like model.fp16.safetensors is a variant of the plain one; the plain one is shorter
        matches = sorted(place.glob(pattern), key=lambda file: (len(file.name), file.name))
        if matches:
            return _shards(matches[0]) if pattern.endswith("index.json") else matches[:1]
    return []


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of weight files: {error}") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.parent}: {len(missing)} of {len(names)} weight files are missing: {missing[0]}, ..."
        )
    return [index.parent / name for name in names]


def _as_safetensors(file: Path, ema: bool, convert_to: Path | None) -> Path:
    if file.suffix == ".safetensors":
        return file
    if file.suffix not in PICKLED:
        raise CheckpointError(f"{file}: expected a .safetensors, {', '.join(PICKLED)} file")
    return to_safetensors(file, ema=ema, folder=convert_to)


def _identify(files: tuple[SafetensorsFile, ...], wanted: Wanted, ema: bool) -> tuple[Found | None, str]:
    shapes = {key: tensor.shape for file in files for key, tensor in file.tensors.items()}
    reason = f"none of its {len(shapes)} tensors is {' or '.join(probe.key for probe in wanted.probes.values())}"
    # a converted file has lost its prefix
    for prefix in ("net_ema.", "") if ema else ("", *PREFIXES):
        for key_format, probe in wanted.probes.items():
            shape = shapes.get(prefix + probe.key)
            if shape == probe.shape:
                return Found(files, key_format, prefix), ""
            if shape is not None:
                reason = f"tensor '{prefix + probe.key}': expected {list(probe.shape)}, got {list(shape)}"
    return None, reason


def find_file(root: Path, wanted: str, places: Sequence[str], fetch: str) -> Path:
    """A file such as a tokenizer. Raises `NotFoundError`."""
    looked = list(_expand(root, places))
    for place in looked:
        if place.is_file():
            return place
    raise NotFoundError(f"{wanted}: not found; looked for {', '.join(map(str, looked))}. Fetch {fetch}")
