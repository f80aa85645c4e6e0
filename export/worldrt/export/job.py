"""One graph, traced and written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Graph, file_sha256
from worldrt.engine.device import Buffer
from worldrt.engine.memory import peak_rss_bytes
from worldrt.engine.merge import widened
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.export import program, trace, weights
from worldrt.export.check import check_graph
from worldrt.export.checkpoint import Found
from worldrt.export.choose import Place, model_of
from worldrt.export.graphs import GraphSource
from worldrt.export.link import Segment, Traced, link, traced_segment
from worldrt.export.passes.fold import fold
from worldrt.export.plan import Form, Options, Part


@dataclass(frozen=True)
class Job:
    """One graph to make, in words that travel to another process."""

    family: str
    options: Options
    part: str
    form: Form
    precision: str
    files: tuple[Path, ...]
    key_format: str
    prefix: str
    graph: str
    folder: Path
    root: Path
    save_program: bool

    @property
    def name(self) -> str:
        return f"{self.part}/{self.graph}"


@dataclass(frozen=True)
class Done:
    """A graph that is made, and the most memory its process ever held."""

    job: Job
    graph: Graph
    peak_rss_bytes: int | None


def jobs_of(place: Place, family: str, options: Options, folder: Path, root: Path, save_program: bool) -> list[Job]:
    """A job for every graph of a part."""
    found = place.found
    files = tuple(file.path for file in found.files)
    common = (family, options, place.part.name, place.form, place.precision, files, found.key_format, found.prefix)
    return [Job(*common, source.name, folder, root, save_program) for source in place.sources()]


def run_job(job: Job, traced: Traced | None = None) -> Done:
    """Trace, write and check one graph. Raises `CheckpointError` where weights do not fit.

    Segments of deep graphs are taken from and added to `traced`.
    """
    place, source = _opened(job)
    part, store = place.part, place.found.store(job.root)
    file = f"{job.name}.onnx"
    weights_as = "inputs" if job.form == "block" else "external"

    known = weights.stored_weights(source, store, part.instances.get(source.name, (0,)))
    model, saved = _model(job, part, source, {} if traced is None else traced)
    if source.fold:
        fold(model, lambda name: _float32(store[source.weights[name]]) if name in source.weights else None)
    used = weights.used_weights(model, known)
    weights.bind(model, used, store, weights_as)
    ir.save(model, job.folder / file)
    check_graph(job.folder / file, job.root)
    graph = weights.described(file, file_sha256(job.folder / file), source, used, weights_as)
    return Done(job, replace(graph, program=saved), peak_rss_bytes())


def segments_of(job: Job) -> Sequence[Segment]:
    """What the graph of a job is linked from; nothing where it is traced as one."""
    place, source = _opened(job)
    return place.part.segments(source, job.precision)


def make_segment(job: Job, key: Hashable) -> tuple[bytes, int | None]:
    """One of them as `link.read_segment` takes it, and the most memory this process ever held."""
    segment = next(segment for segment in segments_of(job) if segment.key == key)
    return traced_segment(segment), peak_rss_bytes()


def _opened(job: Job) -> tuple[Place, GraphSource]:
    part = next(part for part in model_of(job.family, job.options).parts if part.name == job.part)
    opened = tuple(SafetensorsFile.open(file) for file in job.files)
    place = Place(part, Found(opened, job.key_format, job.prefix), job.form, job.precision)
    return place, next(source for source in place.sources() if source.name == job.graph)


def _float32(buffer: Buffer) -> np.ndarray[Any, Any]:
    return widened(buffer.numpy(), buffer.dtype)


def _model(job: Job, part: Part, source: GraphSource, traced: Traced) -> tuple[ir.Model, str | None]:
    """The ONNX graph, and the saved torch program if there is to be one."""
    segments = part.segments(source, job.precision)
    save = job.save_program and not source.fold  # a program would need the weights that are folded
    whole = trace.trace(source) if save or not segments else None
    model = link(source, segments, traced) if segments or whole is None else trace.to_onnx(whole, source)
    if whole is None or not save:
        return model, None
    program.save(whole, job.folder / f"{job.name}.pt2")
    return model, f"{job.name}.pt2"
