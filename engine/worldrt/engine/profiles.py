"""The ranges of a graph's axes: every size and length that the model is made for, and best at its default.

Axes of a denoiser count patches (`rows`, `columns`: 16 pixels), their number in a frame (`tokens`) and latent frames;
`rows` and `columns` of a VAE count latents (8 pixels). A range may be replaced by name: `rows` speaks of patches and
holds for the VAE too, in its own unit; `vae.rows` holds for the VAE alone, `text.batch` for the text encoder alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from worldrt.engine.bundle import Denoiser, Manifest, Text, Vae
from worldrt.engine.errors import InputError
from worldrt.engine.plans import Profile, Range
from worldrt.engine.tensors import axis_names

DEFAULT_ASPECT_RATIO = "16:9"
DEFAULT_RESOLUTION = "720"
DEFAULT_FPS = "16"
TEXT_TOKENS = 512  # of a denoiser whose bundle holds no text encoder
VAE_TEMPORAL = 4  # frames of a latent, where it holds no VAE


def profile_of(
    manifest: Manifest, component_name: str, graph_name: str, *, batch: int, overrides: Mapping[str, Range]
) -> Profile:
    """The range of every named axis of a graph. `batch` is the largest of a denoiser (2 where both texts go through
    one call); the VAE and the text encoder take one at a time.

    Raises `InputError` for an axis that nothing is known of, and for `overrides` that no graph of the bundle has.
    """
    components = manifest.components()
    check_overrides(manifest, overrides)
    component = components[component_name]
    graph = component.graphs[graph_name]
    if isinstance(component, Denoiser):
        known = _denoiser(manifest, component, batch)
    elif isinstance(component, Vae):
        known = _vae(manifest, component)
    else:
        assert isinstance(component, Text)
        most = component.max_tokens
        known = {"batch": Range(1, 1, 1), "text": Range(1, max(1, most // 4), most)}
    known = _replaced(manifest, component_name, known, overrides)
    names = axis_names((*graph.inputs, *graph.outputs))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{graph.file}: no range is known for its axis '{unknown[0]}'; give it: {unknown[0]}=1:8:16")
    if {"rows", "columns", "tokens"} <= set(names):  # reshaped into each other: they must agree at both ends
        known["tokens"] = _areas(known["rows"], known["columns"])
    return {name: known[name] for name in names}


def check_overrides(manifest: Manifest, overrides: Mapping[str, Range]) -> None:
    """Raises `InputError` for a name that is no axis of the bundle, plain or as `component.axis`."""
    there: set[str] = set()
    for name, component in manifest.components().items():
        specs = [spec for graph in component.graphs.values() for spec in (*graph.inputs, *graph.outputs)]
        there |= {axis for own in axis_names(specs) for axis in (own, f"{name}.{own}")}
    for name in overrides:
        if name not in there:
            raise InputError(f"profile: no axis '{name}'; there are: {', '.join(sorted(there))}")


def _denoiser(manifest: Manifest, denoiser: Denoiser, batch: int) -> dict[str, Range]:
    sizes = _patches(denoiser)
    rows, columns = (sorted(size[i] for size in sizes) for i in range(2))
    best = _patch_size(denoiser, _default_size(denoiser))
    areas = sorted(height * width for height, width in sizes)
    temporal = manifest.vae.temporal if manifest.vae is not None else VAE_TEMPORAL
    frames = {fps: (count - 1) // temporal + 1 for fps, count in denoiser.frames.items()}
    lengths = Range(1, frames.get(DEFAULT_FPS, next(iter(frames.values()))), max(frames.values()))
    text, views = TEXT_TOKENS, {}
    if denoiser.layout is not None:
        count = denoiser.layout.views
        views = dict.fromkeys(("views", "context_views"), Range(1, count, count))
    if manifest.text is not None:
        text = max(t.max_tokens + (t.place.row if t.place else 0) for t in (manifest.text, *manifest.texts.values()))
    return {
        "batch": Range(1, batch, batch),
        "frames": lengths,
        "context_frames": lengths,
        "window_frames": lengths,
        "heads": _heads(denoiser),
        "rows": Range(rows[0], best[0], rows[-1]),
        "columns": Range(columns[0], best[1], columns[-1]),
        "tokens": Range(areas[0], best[0] * best[1], areas[-1]),
        "text": Range(text, text, text),
        **views,
    }


def _heads(denoiser: Denoiser) -> Range:
    """Any number of those that a model has whose attention is cut out of its blocks, best for all."""
    embed = denoiser.graphs.get("embed")
    found = [spec.shape[2] for spec in embed.outputs if spec.name == "q"] if embed is not None else []
    return Range(1, found[0], found[0]) if found and isinstance(found[0], int) else Range(1, 1, 1)


def _vae(manifest: Manifest, vae: Vae) -> dict[str, Range]:
    """As wide as what all denoisers of the bundle make, best at the default of the last one (a video rather than a
    picture)."""
    found = [_scaled(_denoiser(manifest, d, 1), d.size_multiple_px, vae.spatial) for d in manifest.denoisers.values()]
    views = max((d.layout.views for d in manifest.denoisers.values() if d.layout), default=1)
    known = {"batch": Range(1, views, views)}
    for name in ("rows", "columns"):
        ranges = [ranges[name] for ranges in found]
        if ranges:
            known[name] = Range(min(r.min for r in ranges), ranges[-1].opt, max(r.max for r in ranges))
    return known


def _replaced(
    manifest: Manifest, component_name: str, known: dict[str, Range], overrides: Mapping[str, Range]
) -> dict[str, Range]:
    """The ranges with those that were asked for in their places."""
    component = manifest.components()[component_name]
    plain = {name: bounds for name, bounds in overrides.items() if "." not in name}
    own = {name.partition(".")[2]: b for name, b in overrides.items() if name.partition(".")[0] == component_name}
    if isinstance(component, Denoiser):
        if {"rows", "columns"} & {*plain, *own} and "tokens" not in {*plain, *own}:
            rows, columns = ({**known, **plain, **own}[name] for name in ("rows", "columns"))
            plain = {**plain, "tokens": _areas(rows, columns)}
        return {**known, **plain, **own}
    plain = {name: bounds for name, bounds in plain.items() if name != "batch"}  # it is about denoisers
    if isinstance(component, Vae):
        multiple = next((d.size_multiple_px for d in manifest.denoisers.values()), component.spatial)
        plain = _scaled(plain, multiple, component.spatial)
    return {**known, **plain, **own}


def _scaled(ranges: Mapping[str, Range], multiple_px: int, spatial: int) -> dict[str, Range]:
    """Rows and columns of patches as those of latents."""
    by = max(1, multiple_px // spatial)
    return {
        name: Range(b.min * by, b.opt * by, b.max * by) for name, b in ranges.items() if name in ("rows", "columns")
    }


def _areas(rows: Range, columns: Range) -> Range:
    return Range(rows.min * columns.min, rows.opt * columns.opt, rows.max * columns.max)


def _patches(denoiser: Denoiser) -> list[tuple[int, int]]:
    """Every size of the model in rows and columns of patches."""
    return [_patch_size(denoiser, size) for table in denoiser.sizes.values() for size in table.values()]


def _patch_size(denoiser: Denoiser, size_px: tuple[int, int]) -> tuple[int, int]:
    width, height = size_px
    return height // denoiser.size_multiple_px, width // denoiser.size_multiple_px


def _default_size(denoiser: Denoiser) -> tuple[int, int]:
    table = denoiser.sizes.get(DEFAULT_RESOLUTION) or next(iter(denoiser.sizes.values()))
    return table.get(DEFAULT_ASPECT_RATIO) or next(iter(table.values()))


def overrides_of(texts: Iterable[str]) -> dict[str, Range]:
    """Ranges by name, as of `split_override`. Raises `InputError`, also for an axis that is named twice."""
    made: dict[str, Range] = {}
    for text in texts:
        name, bounds = split_override(text)
        if name in made:
            raise InputError(f"profile '{text}': the axis '{name}' is named twice")
        made[name] = bounds
    return made


def split_override(text: str) -> tuple[str, Range]:
    """`rows=10:44:44` (or `frames=24` for 24:24:24) as a name and a range. Raises `InputError`."""
    name, equals, words = text.partition("=")
    parts = words.split(":")
    if not (name and equals and len(parts) in (1, 3) and all(part.isdecimal() and len(part) < 10 for part in parts)):
        raise InputError(f"profile '{text}': expected AXIS=MIN:OPT:MAX such as rows=10:44:44, or AXIS=SIZE")
    least, best, most = (int(part) for part in (parts * 3 if len(parts) == 1 else parts))
    return name, Range(least, best, most)
