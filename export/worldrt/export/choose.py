"""What to export from what was found: components, their form and precision."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.export import checkpoint, trace
from worldrt.export.checkpoint import Found, NotFoundError
from worldrt.export.graphs import GraphSource
from worldrt.export.plan import Form, Model, Options, Part

SMALL = 1_000_000_000
"""Denoisers below this number of parameters are exported whole, and verified, unless something else is asked for."""
CHECKPOINT = "checkpoint"
"""Where a checkpoint that the project makes itself lies in its bundle."""
_PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Place:
    """A part whose weights are found, and what is decided for it."""

    part: Part
    found: Found
    form: Form
    precision: str

    def sources(self) -> list[GraphSource]:
        """Its graphs, on the meta device."""
        made = self.part.graphs(self.form, self.precision, self.found.key_format)
        return [_prefixed(trace.distinct(source), self.found.prefix) for source in made]


def _prefixed(source: GraphSource, prefix: str) -> GraphSource:
    return replace(source, weights={name: prefix + key for name, key in source.weights.items()})


def model_of(family: str, options: Options) -> Model:
    """The model with the components asked for. Raises `InputError`."""
    model: Model = importlib.import_module(f"worldrt.export.families.{family}.parts").model(options)
    names = [part.name for part in model.parts]
    for name in options.components:
        if name not in names:
            raise InputError(f"component '{name}': this model has {', '.join(names)}")
    chosen = tuple(part for part in model.parts if part.name in (options.components or names))
    for part in (part for part in chosen if part.task and options.form not in ("auto", *part.forms)):
        raise InputError(f"--form {options.form}: {part.name} has the form {', '.join(part.forms)}; leave it out")
    return replace(model, parts=chosen)


def checkpoint_root(model: Model, given: Path | str | None, folder: Path, seed: int | None) -> Path:
    """The folder to search: the one given, one that is made inside the bundle's `folder`, or `checkpoints`."""
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise CheckpointError(f"checkpoint: {root} is no folder; fetch {model.parts[0].wanted.fetch}")
        return tidy(root)
    if model.make_checkpoint is not None:
        trained = None if seed is not None else model.copy_trained
        if trained is None or not trained(folder / CHECKPOINT):
            model.make_checkpoint(folder / CHECKPOINT, seed or 0)
        return (folder / CHECKPOINT).absolute()
    return Path("checkpoints").absolute()


def tidy(path: Path) -> Path:
    """An absolute path without `..`, so that what lies below it can be told. Links stay, unless `..` goes through."""
    return path.resolve() if ".." in path.parts else path.absolute()


def locate(
    model: Model, options: Options, root: Path, dit_path: Path | None, convert_to: Path | None
) -> tuple[list[Place], list[str]]:
    """All parts whose weights are here, and notes. With task `all`, the denoisers that are not are left out."""
    places: list[Place] = []
    missing: list[NotFoundError] = []
    for part in model.parts:
        given = tidy(dit_path) if part.task and dit_path is not None else None
        ema = options.load_ema and part.task
        try:
            found = checkpoint.find(root, part.wanted, given=given, ema=ema, convert_to=convert_to)
        except NotFoundError as error:
            if not part.task or options.task != "all" or part.name in options.components:
                raise
            missing.append(error)
            continue
        places.append(_decide(part, options, found))
    if missing and not any(place.part.task for place in places):
        raise missing[-1]
    notes = [place.part.note for place in places if place.part.note is not None]
    return places, [f"left out: {error}" for error in missing] + notes


def _decide(part: Part, options: Options, found: Found) -> Place:
    stored = found.dtype()
    precision = _PRECISIONS.get(options.precision, stored if stored in _PRECISIONS.values() else "float32")
    small = options.form == "auto" and found.values() < SMALL and not options.attention_cut
    whole = not part.task or options.form == "whole" or small
    return Place(part, found, "whole" if whole or part.forms == ("whole",) else "block", precision)


def is_small(places: Sequence[Place]) -> bool:
    """Whether checks and extras that read all weights are cheap."""
    return all(place.found.values() < SMALL for place in places)
