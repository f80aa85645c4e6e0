"""What `trt-run compare` asks of a backend: each component on seeded inputs that depend on nothing but the case."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from worldrt.engine.bundle import Component, Denoiser, Graph, Manifest
from worldrt.engine.device import Buffer, Device
from worldrt.engine.tensors import TensorSpec
from worldrt.runtime import philox, samplers
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.components import Opener
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.models import Models
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.sampling import sample
from worldrt.runtime.text import TextEncoder
from worldrt.runtime.vae import VaeCodec

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]
TEXT_ROWS, SPATIAL, TEMPORAL = 512, 8, 4  # of a bundle that holds a denoiser and nothing else
STEPS_PREFIX = "x after step "
FRAMES = "frames of the run"


@dataclass(frozen=True)
class Case:
    """What is run: a prompt, a clip of that size in pixels and frames, sampler steps, and the seed of all inputs.

    None leaves width, height and frames to each model: its 16:9 size, and the shortest clip that has two latents.
    """

    prompt: str
    steps: int
    seed: int
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None


@dataclass(frozen=True)
class Probe:
    """One component, loaded. `outputs` runs it and gives its tensors on the host, one by one; each of `timed` runs a
    part of it until it is done, and is so many units of work."""

    outputs: Callable[[], Iterator[tuple[str, Array]]]
    timed: Mapping[str, tuple[Callable[[], object], int]]


Part = tuple[str, str]
"""Component and graph; a denoiser is one part, with an empty graph."""


def parts(manifest: Manifest) -> list[Part]:
    """All that a bundle has to compare, in the order of a run."""
    graphs: Mapping[str, Component | None] = {"text": manifest.text, "vae": manifest.vae}
    named = [(name, graph) for name, component in graphs.items() if component for graph in component.graphs]
    return [*named, *((task, "") for task, spec in manifest.denoisers.items() if spec.graphs)]


def probe(models: Models, part: Part, case: Case) -> Probe:
    """Load a part of the only bundle of `models`. Raises what loading raises."""
    opener = Opener(models.bundles[0], models.execution)
    component, graph = part
    if component == "text":
        return _text(opener, graph, case)
    if component == "vae":
        return _vae(opener, graph, case)
    return _denoiser(models, opener, component, case)


def _text(opener: Opener, name: str, case: Case) -> Probe:
    spec = opener.bundle.manifest.text
    assert spec is not None
    ids = TextEncoder(opener, spec).tokens(case.prompt)
    values: Outputs = {"ids": np.array([ids], np.int64), "mask": np.ones((1, len(ids)), np.float32)}
    return _graph(opener, spec, name, {"batch": 1, "text": len(ids)}, values)


def _vae(opener: Opener, name: str, case: Case) -> Probe:
    manifest = opener.bundle.manifest
    assert manifest.vae is not None
    width, height = _size(case, next(iter(manifest.denoisers.values()), None))
    axes = {"batch": 1, "rows": height // manifest.vae.spatial, "columns": width // manifest.vae.spatial}
    values = {spec.name: _seeded(spec, axes, case.seed) for spec in manifest.vae.graphs[name].inputs}
    return _graph(opener, manifest.vae, name, axes, values)


def _graph(opener: Opener, spec: Component, name: str, axes: Mapping[str, int], values: Outputs) -> Probe:
    """A graph by itself, on inputs of its own."""
    session, weights = opener.graph(spec, name)
    call = session.bind(axes, weights)
    device, outputs = opener.device, session.graph.outputs
    for tensor in session.graph.inputs:
        device.upload(call[tensor.name], to_bits(values[tensor.name], tensor.dtype))

    def run() -> None:
        call.run()
        device.synchronize()

    def made() -> Iterator[tuple[str, Array]]:
        run()
        for tensor in outputs:
            yield tensor.name, _download(device, call[tensor.name])

    return Probe(made, {"run": (run, 1)})


def _denoiser(models: Models, opener: Opener, task: str, case: Case) -> Probe:
    """x0 of both texts at the first, middle and last level of the sampler; the state after each step of a sampling that
    runs by itself; and the frames of its result, where there is a VAE."""
    manifest = opener.bundle.manifest
    spec, vae = manifest.denoisers[task], manifest.vae
    shape = _shape(manifest, task, case)
    bound = _filled(models.denoiser(task).bind(shape, guided=True), shape, spec, case.seed)
    s, guidance = spec.sampler, _guidance(spec)
    most = s.steps if s.kind == samplers.DISTILLED else case.steps
    table = samplers.table(s.kind, min(case.steps, most), s.sigma_max, s.sigma_min, s.order)
    noise = initial_noise(shape.latents(), case.seed, float(table.levels[0]))
    codec = VaeCodec(opener, vae) if vae is not None else None

    def sampled() -> Iterator[int]:
        renoise = partial(philox.normal, shape.latents(), case.seed)
        return sample(bound, table, noise, guidance=guidance, renoise=renoise)

    def evaluate() -> None:
        bound.run()
        bound.device.synchronize()

    def outputs() -> Iterator[tuple[str, Array]]:
        for sigma in dict.fromkeys(float(table.levels[i]) for i in (0, len(table) // 2, -1)):
            _set_level(bound, shape, sigma, case.seed)
            evaluate()
            for text, buffer in (("prompt", bound.cond), ("no prompt", bound.uncond)):
                assert buffer is not None
                yield f"x0 of {text} at sigma {sigma:.3g}", bound.device.download(buffer)
        for done in sampled():
            yield f"{STEPS_PREFIX}{done}", bound.device.download(bound.x)
        if codec is not None:
            yield FRAMES, np.stack(list(codec.decode(bound.device.download(bound.x))))

    def steps() -> None:
        for _ in sampled():
            pass
        bound.device.synchronize()

    return Probe(outputs, {"evaluation": (evaluate, 1), "step": (steps, len(table))})


def _shape(manifest: Manifest, task: str, case: Case) -> DenoiserShape:
    spec, vae, text = manifest.denoisers[task], manifest.vae, manifest.text
    temporal, spatial = (vae.temporal, vae.spatial) if vae else (TEMPORAL, SPATIAL)
    entry = spec.graphs["denoise" if spec.form == "whole" else "embed"]
    channels = next(tensor for tensor in entry.inputs if tensor.name == "x").shape[1]
    assert isinstance(channels, int)
    frames = 1 if max(spec.frames.values()) == 1 else 1 + ((case.num_frames or 1 + temporal) - 1) // temporal
    width, height = _size(case, spec)
    return DenoiserShape(channels, frames, height // spatial, width // spatial, text.max_tokens if text else TEXT_ROWS)


def _size(case: Case, spec: Denoiser | None) -> tuple[int, int]:
    """Width and height in pixels."""
    own = (128, 80) if spec is None else spec.first_size
    return case.width or own[0], case.height or own[1]


def _filled(bound: BoundDenoiser, shape: DenoiserShape, spec: Denoiser, seed: int) -> BoundDenoiser:
    graph: Graph = spec.graphs["denoise" if spec.form == "whole" else "head"]
    width = next(tensor for tensor in graph.inputs if tensor.name == "text").shape[-1]
    assert isinstance(width, int)
    bound.fill_text(*_generator("text", seed).standard_normal((2, shape.text, width), np.float32))
    values = {
        "position": np.arange(shape.frames, dtype=np.float32),
        "clean": _generator("clean", seed).standard_normal(shape.latents(), np.float32),
        "mask": np.eye(1, shape.frames, dtype=np.float32),
    }
    for name in values.keys() & bound.inputs.keys():
        bound.fill(name, values[name])
    return bound


def _set_level(bound: BoundDenoiser, shape: DenoiserShape, sigma: float, seed: int) -> None:
    """Latents of variance 1 with noise of that level on them, which is what the network is trained on."""
    data, noise = _generator("x", seed).standard_normal((2, *shape.latents()), np.float32)
    bound.fill("x", data + np.float32(sigma) * noise)
    bound.fill_levels(np.full((1, shape.frames), sigma, np.float32))


def _guidance(spec: Denoiser) -> float:
    """As g of c + g (c - u)."""
    return spec.guidance.scale - (spec.guidance.convention == "classic")


def _seeded(spec: TensorSpec, axes: Mapping[str, int], seed: int) -> Array:
    """Pixels between -1 and 1, all else of variance 1."""
    generator, shape = _generator(spec.name, seed), spec.resolve(axes)
    if spec.name == "video":
        return generator.uniform(-1, 1, shape).astype(np.float32)
    return generator.standard_normal(shape, np.float32)


def _generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def to_bits(array: Array, dtype: str) -> Array:
    """The array as the host holds that dtype: bfloat16, rounded to nearest even, as its 16 bits."""
    if dtype != "bfloat16":
        return array.astype(dtype, copy=False)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _download(device: Device, buffer: Buffer) -> Array:
    array = device.download(buffer)
    if buffer.dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def tensors(outputs: Outputs) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What gets a row: each output, and all caches of a graph together."""
    caches = tuple(name for name in outputs if name.startswith("cache_"))
    for name in outputs:
        if name not in caches:
            yield name, (name,)
    if caches:
        yield f"{len(caches)} caches", caches
