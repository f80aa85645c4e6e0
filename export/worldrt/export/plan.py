"""What a family tells the exporter about a model: its components, as data and functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from worldrt.engine.bundle import Component, Graph
from worldrt.engine.errors import InputError
from worldrt.export.checkpoint import Wanted
from worldrt.export.graphs import GraphSource
from worldrt.export.link import Segment

Form = Literal["whole", "block"]


@dataclass(frozen=True)
class Options:
    """What was asked for. `precision` and `form` may be `auto`, `task` may be `all`; no `components` means all.
    `seed` is of random weights; None asks for trained ones where the package has them."""

    model: str
    task: str = "all"
    form: str = "auto"
    precision: str = "auto"
    resolution: str = "720"
    fps: int = 16
    load_ema: bool = False
    rope_dtype: str = "float32"
    pixel_format: str = "rgb24"
    components: tuple[str, ...] = ()
    seed: int | None = 0
    quantize: str | None = None
    natten: bool = False
    distilled: bool = False
    fold_levels: bool = False
    control_sentences: Path | None = None
    control_embeddings: Path | None = None
    clip: Path | None = None
    model_config: Path | None = None
    attention_cut: bool = False


def check_cut(options: Options) -> None:
    """Raises `InputError` where attention cannot be cut out."""
    wrong = {
        "--form whole": options.form == "whole",
        "--natten": options.natten,
        f"--quantize {options.quantize}": options.quantize is not None,
    }
    given = next((flag for flag, is_given in wrong.items() if is_given), None)
    if options.attention_cut and given is not None:
        raise InputError(f"--attention_cut: it does not go with {given}; leave one of them out")


@dataclass(frozen=True)
class Built:
    """What was made of a component, for its entry in the manifest."""

    precision: str
    files: tuple[str, ...]
    graphs: Mapping[str, Graph]
    form: Form


@dataclass(frozen=True)
class File:
    """A file that is copied into the bundle, or that `make` writes there, given the checkpoint's root and its place."""

    name: str
    places: tuple[str, ...]
    fetch: str
    make: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True)
class Part:
    """One component: where its weights lie, its graphs by (form, compute dtype, key format), its manifest entry.

    A `task` is a denoiser, in one of `forms`; other parts serve all of them. `segments` are what a deep graph is linked
    from, by source and compute dtype; none where it is traced as it is. `instances` are the numbers of the blocks that
    a graph is used for, by its name. `note` is told to the user.
    """

    name: str
    wanted: Wanted
    graphs: Callable[[Form, str, str], list[GraphSource]]
    describe: Callable[[Built], Component]
    task: bool = False
    forms: tuple[Form, ...] = ("whole", "block")
    segments: Callable[[GraphSource, str], list[Segment]] = lambda source, dtype: []
    instances: Mapping[str, Sequence[int]] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Model:
    """A model of a family. `make_checkpoint` exists where the model is small and made by the project: random weights of
    a seed. `copy_trained` writes trained ones, and says whether there are any."""

    family: str
    variant: str
    parts: tuple[Part, ...]
    make_checkpoint: Callable[[Path, int], None] | None = None
    copy_trained: Callable[[Path], bool] | None = None
