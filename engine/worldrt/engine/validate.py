"""What a manifest must hold beyond its types: numbers that make sense, and graphs that agree with each other.

A manifest that was edited by hand, or damaged, fails here with the place and the reason, before anything is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from worldrt.engine.quality import check_quality
from worldrt.engine.schema import SchemaError
from worldrt.engine.tensors import ITEM_BYTES, SymbolicShape, TensorSpec

if TYPE_CHECKING:
    from worldrt.engine.bundle import Denoiser, Graph, Layout, Manifest, Text, Vae, Weight

_AXIS = re.compile(r"([1-9][0-9]{0,8}\*)?[A-Za-z_][A-Za-z_0-9]*")
_FORMS = {"whole": {"denoise"}, "block": {"embed", "head"}}  # and those of blocks
_WINDOW = re.compile(r"dense|[1-9][0-9]{0,3}x[1-9][0-9]{0,3}")
_MAX = 2**31  # no count, size or length of a model is larger


def check_manifest(manifest: Manifest) -> None:
    """Raises `SchemaError` that starts with the place."""
    for name, component in manifest.components().items():
        where = f"denoisers.{name}" if name in manifest.denoisers else name
        for key, graph in component.graphs.items():
            _check_graph(f"{where}.graphs.{key}", graph)
    for task, denoiser in manifest.denoisers.items():
        _check_denoiser(f"denoisers.{task}", denoiser, manifest)
    if manifest.vae is not None:
        _check_vae(manifest.vae)
    if manifest.text is not None:
        _check_text(manifest.text, manifest)


def _check_graph(where: str, graph: Graph) -> None:
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    if graph.weights_as == "inputs":
        names += [weight.name for weight in graph.weights]
    twice = next((name for name in names if names.count(name) > 1), None)
    _expect(twice is None, where, "tensors of different names", f"'{twice}' twice")
    tensors: tuple[TensorSpec | Weight, ...] = (*graph.inputs, *graph.outputs, *graph.weights)
    for spec in tensors:
        place = f"{where}: tensor '{spec.name}'"
        _expect(spec.dtype in ITEM_BYTES, place, f"a dtype of {', '.join(ITEM_BYTES)}", spec.dtype)
        for entry in spec.shape:
            fits = 0 <= entry < _MAX if isinstance(entry, int) else _AXIS.fullmatch(entry)
            _expect(bool(fits), place, "sizes, axis names, and multiples such as 2*rows", entry)


def _check_denoiser(where: str, denoiser: Denoiser, manifest: Manifest) -> None:
    _whole(f"{where}.blocks", denoiser.blocks)
    if denoiser.sparse is not None:
        _check_sparse(where, denoiser)
    if denoiser.chain:
        names = f"names for {denoiser.blocks - 1} blocks"
        fits = denoiser.form == "block" and len(denoiser.chain) == denoiser.blocks - 1
        _expect(fits and not _FORMS["block"] & set(denoiser.chain), f"{where}.chain", names, denoiser.chain)
    graphs = _FORMS[denoiser.form] | set(denoiser.block_graphs()) | ({"layout"} if denoiser.layout else set())
    graphs |= {"attend"} & set(denoiser.graphs) if denoiser.form == "block" else set()
    held = set(denoiser.graphs)  # none at all: a record of numbers, that nothing runs
    _expect(held in (graphs, set()), f"{where}.graphs", " and ".join(sorted(graphs)), sorted(denoiser.graphs))
    sampler = denoiser.sampler
    _whole(f"{where}.sampler.steps", sampler.steps)
    levels = 0 < sampler.sigma_min < sampler.sigma_max
    got = (sampler.sigma_min, sampler.sigma_max)
    _expect(levels, f"{where}.sampler", "0 < sigma_min < sigma_max", got)
    _expect(sampler.order > 0, f"{where}.sampler.order", "more than 0", sampler.order)
    _check_sizes(where, denoiser)
    _check_world(where, denoiser, manifest)
    if denoiser.quality is not None:
        _expect(denoiser.quantization is not None, f"{where}.quality", "none without quantization", "one")
        check_quality(f"{where}.quality", denoiser.quality)
    if denoiser.scales is not None:
        fits = denoiser.quantization is not None and denoiser.form == "block"
        _expect(fits, f"{where}.scales", "a quantised denoiser in block form", denoiser.form)
        _expect(denoiser.scales in manifest.files, f"{where}.scales", "one of the bundle's files", denoiser.scales)
    temporal = manifest.vae.temporal if manifest.vae is not None else 1
    _expect(bool(denoiser.frames), f"{where}.frames", "a frame count for each fps", "none")
    for fps, frames in denoiser.frames.items():
        place = f"{where}.frames.{fps}"
        _expect(bool(re.fullmatch("[1-9][0-9]{0,3}", fps)), place, "frames per second as the key", fps)
        _whole(place, frames)
        _expect(temporal < 1 or (frames - 1) % temporal == 0, place, f"1 more than a multiple of {temporal}", frames)
    channels = manifest.vae.channels if manifest.vae is not None else None
    for graph in denoiser.graphs.values():
        for spec in (*graph.inputs, *graph.outputs):
            if spec.name in ("x", "x0", "clean") and channels is not None:
                _agrees(where, spec, {1: channels})


def _check_sparse(where: str, denoiser: Denoiser) -> None:
    """A window for each block, and one size of clips: that of the grid."""
    sparse = denoiser.sparse
    assert sparse is not None
    place, names = f"{where}.sparse.windows", sparse.windows
    _expect(len(names) == denoiser.blocks, place, f"one for each of {denoiser.blocks} blocks", len(names))
    odd = next((name for name in names if not _WINDOW.fullmatch(name)), None)
    _expect(odd is None, place, "names such as 12x24, or dense", odd)
    sizes = {size for table in denoiser.sizes.values() for size in table.values()}
    rows, columns = sparse.grid
    only = columns * denoiser.size_multiple_px, rows * denoiser.size_multiple_px
    _expect(sizes == {only}, f"{where}.sizes", f"{only} alone, the size of the windows' grid", sorted(sizes))


def _check_world(where: str, denoiser: Denoiser, manifest: Manifest) -> None:
    """What models with streams, controls and timesteps have beyond others."""
    control, levels = denoiser.control, denoiser.levels
    if control is not None:
        place = f"{where}.control"
        _whole(f"{place}.width", control.width)
        _expect(bool(control.symbols), f"{place}.symbols", "one or more", "none")
        _expect(
            len(set(control.symbols)) == len(control.symbols), f"{place}.symbols", "different ones", control.symbols
        )
        _expect(control.embeddings in manifest.files, f"{place}.embeddings", "one of the bundle's files", control)
        blocks = 0 <= control.start < control.end <= denoiser.blocks
        _expect(blocks, place, f"0 <= start < end <= {denoiser.blocks}", (control.start, control.end))
    if denoiser.stream is not None:
        _whole(f"{where}.stream.groups", denoiser.stream.groups)
        _whole(f"{where}.stream.group", denoiser.stream.group)
        history = denoiser.stream.history
        _expect(0 <= history < _MAX, f"{where}.stream.history", "a whole number from 0 up", history)
    _check_layout(f"{where}.layout", denoiser.layout)
    shift = denoiser.sampler.shift
    _expect(shift > 0, f"{where}.sampler.shift", "more than 0", shift)
    if levels is not None:
        place = f"{where}.levels"
        _expect(denoiser.form == "whole", place, "none in block form", denoiser.form)
        for spec in (s for graph in denoiser.graphs.values() for s in graph.inputs):
            _expect(spec.name != "level", place, "no input 'level' besides", spec.describe())
            if spec.name == "x":
                _agrees(where, spec, {2: len(levels)})
    if denoiser.diffusion is not None:
        d = denoiser.diffusion
        fits = 0 < d.beta_start < d.beta_end < 1 and d.snr_shift > 0
        _expect(fits, f"{where}.diffusion", "0 < beta_start < beta_end < 1 and snr_shift > 0", d)


def _check_layout(where: str, layout: Layout | None) -> None:
    if layout is None:
        return
    _whole(f"{where}.views", layout.views)
    _whole(f"{where}.text_interval", layout.text_interval)
    _expect(0 <= layout.nothing <= 1, f"{where}.nothing", "a number from 0 to 1", layout.nothing)
    names = layout.images
    _expect(len(set(names)) == len(names) > 0, f"{where}.images", "different names, one or more", names)


def _check_sizes(where: str, denoiser: Denoiser) -> None:
    multiple = denoiser.size_multiple_px
    _whole(f"{where}.size_multiple_px", multiple)
    _expect(bool(denoiser.sizes), f"{where}.sizes", "a table for each resolution", "none")
    for resolution, table in denoiser.sizes.items():
        place = f"{where}.sizes.{resolution}"
        _expect(bool(table), place, "a size for each aspect ratio", "none")
        for ratio, size in table.items():
            fits = all(0 < side < _MAX and side % multiple == 0 for side in size)
            _expect(fits, f"{place}.{ratio}", f"multiples of {multiple} pixels", size)


def _check_vae(vae: Vae) -> None:
    for name, value in (("channels", vae.channels), ("spatial", vae.spatial), ("temporal", vae.temporal)):
        _whole(f"vae.{name}", value)
    for name, values in (("latent_mean", vae.latent_mean), ("latent_std", vae.latent_std)):
        _expect(len(values) == vae.channels, f"vae.{name}", f"{vae.channels} numbers", len(values))
    _expect(min(vae.latent_std) > 0, "vae.latent_std", "numbers above 0", min(vae.latent_std))
    rows, columns = f"{vae.spatial}*rows", f"{vae.spatial}*columns"
    picture: dict[int, int | str] = {2: rows, 3: columns, 4: 3}
    if vae.pixel_format != "rgb24":
        picture = {2: f"{vae.spatial * 3 // 2}*rows", 3: columns}
    unknown = set(vae.chunks) - set(vae.graphs) if vae.graphs else set()
    _expect(not unknown, "vae.chunks", "names of graphs", sorted(unknown))
    for name, graph in vae.graphs.items():
        chunk = vae.chunk(name)
        _whole(f"vae.chunks.{name}.latents", chunk.latents)
        _whole(f"vae.chunks.{name}.frames", chunk.frames)
        known: dict[str, dict[int, int | str]] = {
            "latent": {1: vae.channels, 2: chunk.latents},
            "deviation": {1: vae.channels, 2: chunk.latents},
            "video": {1: 3, 2: chunk.frames, 3: rows, 4: columns},
            "frames": {1: chunk.frames, **picture},
        }
        for spec in (*graph.inputs, *graph.outputs):
            if vae.spatial > 1:
                _agrees(f"vae.graphs.{name}", spec, known.get(spec.name, {}))


def _check_text(text: Text, manifest: Manifest) -> None:
    taken = {*manifest.denoisers, "vae", "text"} & set(manifest.texts)
    _expect(not taken, "texts", "names that no other component has", sorted(taken))
    for where, one in {"text": text, **{f"texts.{name}": other for name, other in manifest.texts.items()}}.items():
        _whole(f"{where}.max_tokens", one.max_tokens)
        _whole(f"{where}.width", one.width)
        outputs: Iterable[Graph] = one.graphs.values()
        for spec in (spec for graph in outputs for spec in graph.outputs if spec.name == "text"):
            _agrees(f"{where}.graphs", spec, {-1: one.width})
        _expect(not manifest.texts or one.place is not None, f"{where}.place", "one, where there are several", None)
        if one.place is not None:
            fits = min(one.place.row, one.place.channel) >= 0 and one.place.channel + one.width <= text.width
            _expect(fits, f"{where}.place", f"room in {text.width} channels", one.place)
            _expect(one.place.row < _MAX, f"{where}.place.row", "a row that there is", one.place.row)
    for task, denoiser in manifest.denoisers.items():
        for spec in (s for graph in denoiser.graphs.values() for s in graph.inputs if s.name == "text"):
            _agrees(f"denoisers.{task}.graphs", spec, {-1: text.width})


def _agrees(where: str, spec: TensorSpec, expected: Mapping[int, int | str]) -> None:
    """Dimensions of a tensor against what the rest of the manifest says of them; an axis name leaves a number open."""
    shape: SymbolicShape = spec.shape
    for axis, size in expected.items():
        there = shape[axis] if axis < len(shape) else None
        fits = there == size or (isinstance(size, int) and isinstance(there, str) and "*" not in there)
        _expect(fits, f"{where}: tensor '{spec.name}'", f"{size} in place {axis}", spec.describe())


def _whole(where: str, value: int) -> None:
    _expect(0 < value < _MAX, where, "a whole number from 1 up", value)


def _expect(fits: bool, where: str, expected: str, got: object) -> None:
    if not fits:
        raise SchemaError(f"{where}: expected {expected}, got {str(got)[:120]}")
