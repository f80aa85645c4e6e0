"""The whole story of an export: checkpoint -> modules -> graphs -> references to weights -> bundle."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import cast

from worldrt.engine.bundle import (
    SCHEMA,
    Component,
    Denoiser,
    Manifest,
    Text,
    Vae,
    Weights,
    file_sha256,
    load_bundle,
    write_manifest,
)
from worldrt.engine.files import staged_folder
from worldrt.engine.memory import peak_rss_bytes
from worldrt.engine.weights import fingerprint, open_weights
from worldrt.export import verify, weights
from worldrt.export.checkpoint import find_file
from worldrt.export.choose import CHECKPOINT, Place, checkpoint_root, is_small, locate, model_of
from worldrt.export.job import Done, jobs_of
from worldrt.export.plan import Built, Model, Options
from worldrt.export.quantize.dynamic import quantize_manifest
from worldrt.export.quantize.flags import DYNAMIC
from worldrt.export.quantize.job import Settings, check_form, quantize_folder
from worldrt.export.workers import run_jobs

Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""


@dataclass
class Report:
    """What an export did. `bytes_written` is by file of the bundle; the checkpoint is not counted.

    `peak_rss_bytes` is the most that any one of its processes held.
    """

    output: Path
    seconds: float = 0.0
    peak_rss_bytes: int | None = None
    bytes_written: dict[str, int] = field(default_factory=dict)
    verified: list[verify.Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export_bundle(
    options: Options,
    output: Path | str,
    *,
    checkpoint: Path | str | None = None,
    dit_path: Path | None = None,
    convert_to: Path | None = None,
    family: str = "cosmos",
    verified: bool | None = None,
    torch_program: bool | None = None,
    full_hash: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    quantization: Settings | None = None,
    progress: Progress = lambda text, done, total: None,
) -> Report:
    """Write the bundle of a model into the folder `output`, which appears whole or not at all.

    `verified` and `torch_program` are on for small models unless said otherwise. `quantization` asks for a static kind.
    `workers` processes make graphs side by side; with more than one, a script that calls this needs the usual
    `if __name__ == "__main__"`. Raises `CheckpointError`, `InputError`, `OutputError`.
    """
    begin, output = time.perf_counter(), Path(output)
    model, report = model_of(family, options), Report(output)
    with staged_folder(output, overwrite=overwrite) as folder:
        root = checkpoint_root(model, checkpoint, folder, options.seed)
        places, report.notes = locate(model, options, root, dit_path, convert_to)
        if quantization is not None:
            _check_forms(places, quantization)
        store_root = weights.external_root(root, [file.path for place in places for file in place.found.files])
        save_programs = is_small(places) if torch_program is None else torch_program
        jobs = [job for place in places for job in jobs_of(place, family, options, folder, store_root, save_programs)]
        steps = _Steps(progress, len(jobs) * (2 if _verifies(verified, places) else 1))
        for place in places:
            (folder / place.part.name).mkdir()
        files = _copy_files(places, root, folder)
        done = run_jobs(jobs, workers, lambda name: steps.next(f"exporting {name}"))
        files |= {d.graph.program: file_sha256(folder / d.graph.program) for d in done if d.graph.program is not None}
        entries = {place.part.name: _entry(place, done, store_root) for place in places}
        manifest = replace(_manifest(model, entries, store_root, folder, full_hash), files=files)
        write_manifest(folder, manifest)
        if _verifies(verified, places):
            report.verified = _verify(folder, places, steps)
        if options.quantize == DYNAMIC:  # after the check, which is of the exact graphs
            write_manifest(folder, quantize_manifest(manifest, folder, store_root))
        elif quantization is not None:
            report.notes += quantize_folder(load_bundle(folder), folder, quantization, steps.say)
        report.bytes_written = _sizes(folder)
    report.seconds = time.perf_counter() - begin
    report.peak_rss_bytes = max([peak_rss_bytes() or 0, *(d.peak_rss_bytes or 0 for d in done)]) or None
    return report


@dataclass
class _Steps:
    progress: Progress
    total: int
    done: int = 0

    def next(self, text: str) -> None:
        self.say(text)
        self.done += 1

    def say(self, text: str) -> None:
        self.progress(text, self.done, self.total)


def _check_forms(places: Sequence[Place], quantization: Settings) -> None:
    """Raises `InputError` for denoisers that cannot be quantised as they would be exported."""
    for place in places:
        if place.part.task:
            check_form(place.part.name, place.form, quantization.scheme)


def _verifies(asked: bool | None, places: Sequence[Place]) -> bool:
    return is_small(places) if asked is None else asked


def _entry(place: Place, done: Sequence[Done], root: Path) -> Component:
    graphs = {d.job.graph: d.graph for d in done if d.job.part == place.part.name}
    files = tuple(file.path.relative_to(root).as_posix() for file in place.found.files)
    return place.part.describe(Built(place.precision, files, graphs, place.form))


def _manifest(model: Model, entries: dict[str, Component], root: Path, folder: Path, full_hash: bool) -> Manifest:
    files = sorted({file for entry in entries.values() for file in entry.files})
    fingerprints = {file: fingerprint(root / file, full=full_hash) for file in files}
    # a checkpoint inside the bundle moves with it
    own = root.is_relative_to(folder.absolute())
    return Manifest(
        SCHEMA,
        model.family,
        model.variant,
        producer(),
        Weights(root.relative_to(folder.absolute()).as_posix() if own else str(root), fingerprints),
        {name: entry for name, entry in entries.items() if isinstance(entry, Denoiser)},
        vae=cast("Vae | None", entries.get("vae")),
        text=cast("Text | None", entries.get("text")),
        texts={name: entry for name, entry in entries.items() if isinstance(entry, Text) and name != "text"},
    )


def producer() -> dict[str, str]:
    """Versions of what makes graphs, as far as they are installed packages."""
    packages = ("worldrt", "torch", "onnx", "onnx-ir", "onnxscript")
    found = {name: [d.version for d in metadata.distributions(name=name)] for name in packages}
    return {"python": platform.python_version()} | {name: versions[0] for name, versions in found.items() if versions}


def _copy_files(places: Sequence[Place], root: Path, folder: Path) -> dict[str, str]:
    """Tokenizers and the like; their hashes."""
    wanted = [file for place in places for file in place.part.files]
    for file in wanted:
        if file.make is None:
            shutil.copyfile(find_file(root, file.name, file.places, file.fetch), folder / file.name)
        else:
            file.make(root, folder / file.name)
    return {file.name: file_sha256(folder / file.name) for file in wanted}


def _verify(folder: Path, places: Sequence[Place], steps: _Steps) -> list[verify.Row]:
    bundle = load_bundle(folder)
    rows: list[verify.Row] = []
    for place in places:
        component = bundle.manifest.components()[place.part.name]
        store = open_weights(bundle, component)
        for source in place.sources():
            steps.next(f"verifying {place.part.name}/{source.name}")
            instance = component.instances(source.name)[0]
            rows += verify.verify_graph(bundle, component.graphs[source.name], source, store, instance=instance)
    return rows


def _sizes(folder: Path) -> dict[str, int]:
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path.stat().st_size for name, path in files.items() if name.parts[0] != CHECKPOINT}
