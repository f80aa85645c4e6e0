"""The whole story of an export: checkpoint -> modules -> graphs -> references to weights -> bundle."""

from __future__ import annotations

import importlib
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import cast

import onnx_ir as ir

from worldrt.engine.bundle import (
    SCHEMA,
    Component,
    Denoiser,
    Graph,
    Manifest,
    Text,
    Vae,
    Weights,
    file_sha256,
    load_bundle,
    write_manifest,
)
from worldrt.engine.errors import CheckpointError, InputError
from worldrt.engine.files import staged_folder
from worldrt.engine.weights import WeightStore, fingerprint, open_weights
from worldrt.export import checkpoint, program, quantize, trace, verify, weights
from worldrt.export.check import check_graph
from worldrt.export.checkpoint import Found, NotFoundError
from worldrt.export.graphs import GraphSource
from worldrt.export.plan import Built, Form, Model, Options, Part

SMALL = 1_000_000_000
"""Denoisers below this number of parameters are exported whole, and verified, unless something else is asked for."""
CHECKPOINT = "checkpoint"
"""Where a checkpoint that the project makes itself lies in its bundle."""
_PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

Progress = Callable[[str, int, int], None]
"""Called with what comes next, steps done, steps in all."""


@dataclass
class Report:
    """What an export did. `bytes_written` is by file of the bundle; the checkpoint is not counted."""

    output: Path
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int | None = None
    bytes_written: dict[str, int] = field(default_factory=dict)
    verified: list[verify.Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A part whose weights are found, and what is decided for it."""

    part: Part
    found: Found
    form: Form
    precision: str
    sources: Sequence[GraphSource]


def export_bundle(
    options: Options,
    output: Path | str,
    *,
    checkpoint_root: Path | str | None = None,
    dit_path: Path | None = None,
    convert_to: Path | None = None,
    family: str = "cosmos",
    verified: bool | None = None,
    torch_program: bool | None = None,
    full_hash: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda text, done, total: None,
) -> Report:
    """Write the bundle of a model into the folder `output`, which appears whole or not at all.

    `verified` and `torch_program` are on for small models unless said otherwise. Raises `CheckpointError`,
    `InputError`, `OutputError`.
    """
    begin, begin_cpu = time.perf_counter(), time.process_time()
    output = Path(output)
    model = _model(family, options)
    report = Report(output)
    with staged_folder(output, overwrite=overwrite) as folder:
        root = _checkpoint_root(model, checkpoint_root, folder, options.seed)
        places, report.notes = _locate(model, options, root, dit_path, convert_to)
        files = [file.path for place in places for file in place.found.files]
        store_root = weights.external_root(root, files)
        small = all(place.found.values() < SMALL for place in places)
        job = _Job(
            folder, store_root, small if torch_program is None else torch_program, progress, _steps(places, small)
        )
        entries = {place.part.name: _export_part(job, place) for place in places}
        manifest = _manifest(model, entries, store_root, folder, full_hash)
        manifest = replace(manifest, files=_copy_files(places, root, folder))
        write_manifest(folder, manifest)
        if small if verified is None else verified:
            report.verified = _verify(job, folder, places)
        if options.quantize is not None:  # after the check, which is of the exact graphs
            write_manifest(folder, quantize.quantize_manifest(manifest, folder, store_root))
        report.bytes_written = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).parts[0] != CHECKPOINT
        }
    report.seconds, report.cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    report.peak_rss_bytes = peak_rss_bytes()
    return report


def _model(family: str, options: Options) -> Model:
    model: Model = importlib.import_module(f"worldrt.export.families.{family}.parts").model(options)
    names = [part.name for part in model.parts]
    for name in options.components:
        if name not in names:
            raise InputError(f"component '{name}': this model has {', '.join(names)}")
    if options.components:
        model = replace(model, parts=tuple(part for part in model.parts if part.name in options.components))
    return model


def _checkpoint_root(model: Model, given: Path | str | None, folder: Path, seed: int) -> Path:
    if given is not None:
        root = Path(given)
        if not root.is_dir():
            raise CheckpointError(f"checkpoint: {root} is no folder; fetch {model.parts[0].wanted.fetch}")
        return root.absolute()
    if model.make_checkpoint is not None:
        model.make_checkpoint(folder / CHECKPOINT, seed)
        return (folder / CHECKPOINT).absolute()
    return Path("checkpoints").absolute()


def _locate(
    model: Model, options: Options, root: Path, dit_path: Path | None, convert_to: Path | None
) -> tuple[list[Place], list[str]]:
    """All parts whose weights are here. With task `all`, the denoisers that are not are left out, and noted."""
    places, missing = [], []
    for part in model.parts:
        given = dit_path if part.task else None
        try:
            found = checkpoint.find(
                root, part.wanted, given=given, ema=options.load_ema and part.task, convert_to=convert_to
            )
        except NotFoundError as error:
            if not part.task or options.task != "all" or part.name in options.components:
                raise
            missing.append(error)
            continue
        places.append(_decide(part, options, found))
    if missing and not any(place.part.task for place in places):
        raise missing[-1]
    return places, [f"left out: {error}" for error in missing]


def _decide(part: Part, options: Options, found: Found) -> Place:
    stored = found.dtype()
    precision = _PRECISIONS.get(options.precision, stored if stored in _PRECISIONS.values() else "float32")
    whole = not part.task or options.form == "whole" or (options.form == "auto" and found.values() < SMALL)
    form: Form = "whole" if whole else "block"
    sources = [
        _prefixed(trace.distinct(source), found.prefix) for source in part.graphs(form, precision, found.key_format)
    ]
    return Place(part, found, form, precision, sources)


def _prefixed(source: GraphSource, prefix: str) -> GraphSource:
    return replace(source, weights={name: prefix + key for name, key in source.weights.items()})


@dataclass
class _Job:
    folder: Path
    root: Path
    programs: bool
    progress: Progress
    total: int
    done: int = 0

    def step(self, text: str) -> None:
        self.progress(text, self.done, self.total)
        self.done += 1


def _steps(places: Sequence[Place], verified: bool) -> int:
    return sum(len(place.sources) for place in places) * (3 if verified else 2)


def _export_part(job: _Job, place: Place) -> Component:
    store = place.found.store(job.root)
    (job.folder / place.part.name).mkdir()
    graphs = {source.name: _export_graph(job, place, source, store) for source in place.sources}
    files = tuple(file.path.relative_to(job.root).as_posix() for file in place.found.files)
    return place.part.describe(Built(place.precision, files, graphs, place.form))


def _export_graph(job: _Job, place: Place, source: GraphSource, store: WeightStore) -> Graph:
    name = f"{place.part.name}/{source.name}"
    file = f"{name}.onnx"
    weights_as = "inputs" if place.form == "block" else "external"
    job.step(f"tracing {name}")
    traced = trace.trace(source)
    job.step(f"writing {name}")
    model = trace.to_onnx(traced, source)
    used = weights.used_weights(model, source, store, place.part.instances.get(source.name, 1))
    weights.bind(model, used, store, weights_as)
    ir.save(model, job.folder / file)
    check_graph(job.folder / file, job.root)
    saved = None
    if job.programs:
        saved = f"{name}.pt2"
        program.save(traced, job.folder / saved)
    graph = weights.described(file, file_sha256(job.folder / file), source, used, weights_as)
    return replace(graph, program=saved)


def _manifest(model: Model, entries: dict[str, Component], root: Path, folder: Path, full_hash: bool) -> Manifest:
    files = sorted({file for entry in entries.values() for file in entry.files})
    fingerprints = {file: fingerprint(root / file, full=full_hash) for file in files}
    # a checkpoint inside the bundle moves with it
    recorded = root.relative_to(folder.absolute()).as_posix() if root.is_relative_to(folder.absolute()) else str(root)
    return Manifest(
        SCHEMA,
        model.family,
        model.variant,
        producer(),
        Weights(recorded, fingerprints),
        {name: entry for name, entry in entries.items() if isinstance(entry, Denoiser)},
        vae=cast("Vae | None", entries.get("vae")),
        text=cast("Text | None", entries.get("text")),
    )


def producer() -> dict[str, str]:
    """Versions of what makes graphs."""
    packages = ("worldrt", "torch", "onnx", "onnx-ir", "onnxscript")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def _copy_files(places: Sequence[Place], root: Path, folder: Path) -> dict[str, str]:
    hashes = {}
    for file in (file for place in places for file in place.part.files):
        target = folder / file.name
        shutil.copyfile(checkpoint.find_file(root, file.name, file.places, file.fetch), target)
        hashes[file.name] = file_sha256(target)
    return hashes


def _verify(job: _Job, folder: Path, places: Sequence[Place]) -> list[verify.Row]:
    bundle = load_bundle(folder)
    rows: list[verify.Row] = []
    for place in places:
        component = bundle.manifest.components()[place.part.name]
        store = open_weights(bundle, component)
        for source in place.sources:
            job.step(f"verifying {place.part.name}/{source.name}")
            rows += verify.verify_graph(bundle, component.graphs[source.name], source, store)
    return rows


def peak_rss_bytes() -> int | None:
    """The most memory this process ever held; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
