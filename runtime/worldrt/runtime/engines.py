"""What backends that build engines are told besides the graph: profile, options, weights, and the place of plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from worldrt.engine.bundle import Bundle, Component, Denoiser, Graph, Manifest
from worldrt.engine.cache import PlanCache
from worldrt.engine.constants import constants_of
from worldrt.engine.jobs import form_of, weight_bytes
from worldrt.engine.overlay import Overlay
from worldrt.engine.plans import BuildOptions, Profile, Range
from worldrt.engine.profiles import profile_of
from worldrt.engine.weights import WeightStore
from worldrt.runtime.bound import ROW
from worldrt.runtime.parallel.share import MOST_PIECES

BACKENDS = ("tensorrt", "tensorrt_rtx")
BlockWeightsAs = Literal["auto", "inputs", "constants"]


@dataclass(frozen=True)
class Engines:
    """How engines are built where the cache holds none. `profile` replaces ranges of axes by name.

    `block_weights`: one engine for all blocks that takes their weights as inputs, or one engine each that holds them.
    `listener` hears how far a build is: stage, percent done, 100.
    """

    plan_cache: Path | None = None
    profile: Mapping[str, Range] = field(default_factory=dict)
    build: BuildOptions = field(default_factory=BuildOptions)
    block_weights: BlockWeightsAs = "auto"
    listener: list[Callable[[str, int, int], None]] = field(default_factory=list)

    @cached_property
    def cache(self) -> PlanCache:
        return PlanCache(self.plan_cache)

    def options(
        self,
        bundle: Bundle,
        component: Component,
        name: str,
        store: WeightStore,
        *,
        batch: int,
        block: int | None,
        limit_bytes: int | None,
        ranks: int = 1,
    ) -> tuple[Profile, dict[str, Any]]:
        """The profile of a graph and the backend's options. `block` is an instance whose weights become constants;
        `ranks` may share the frames of a clip."""
        manifest = bundle.manifest
        key = next(key for key, found in manifest.components().items() if found is component)
        graph = component.graphs[name]
        overrides = {**_of_pieces(manifest, key, batch, ranks), **self.profile}
        profile = profile_of(manifest, key, name, batch=batch, overrides=overrides)
        return profile, {
            "cache": self.cache,
            "build": self._build(component, store, graph, limit_bytes),
            "precision": component.precision,
            "constants": () if block is None else constants_of(graph, store, block),
            "block": block if isinstance(component, Denoiser) and name in component.block_graphs() else None,
            "progress": partial(self._tell, graph.file.removesuffix(".onnx")),
        }

    def takes_weights(self, component: Component, store: WeightStore) -> bool:
        """Whether engines of a component take as inputs what its graphs take as inputs. Weights that are not the
        checkpoint's own cannot be constants, and are not unless that is asked for."""
        asked = "inputs" if self.block_weights == "auto" and isinstance(store, Overlay) else self.block_weights
        return form_of(component, store, asked) != "constants"

    def _build(self, component: Component, store: WeightStore, graph: Graph, limit_bytes: int | None) -> BuildOptions:
        """Weights are streamed into whole graphs where they are most of what may be held on the GPU."""
        options = replace(self.build, refit=True) if store.others(graph) else self.build
        if limit_bytes is None or "embed" in component.graphs or graph.weights_as == "inputs":
            return options
        streams = options.weight_streaming or 2 * weight_bytes(graph, store) > limit_bytes
        return replace(options, weight_streaming=streams)

    def _tell(self, name: str, doing: str, done: float) -> None:
        for listener in self.listener[-1:]:
            listener(f"build {name}", int(100 * done), 100)


def _of_pieces(manifest: Manifest, key: str, batch: int, ranks: int) -> dict[str, Range]:
    """Ranges for pieces of frames, of a denoiser that can work on these and has fewer frames than ranks."""
    embed = manifest.denoisers[key].graphs.get("embed") if key in manifest.denoisers else None
    if ranks == 1 or embed is None or all(spec.name != ROW for spec in embed.inputs):
        return {}
    known = profile_of(manifest, key, "embed", batch=batch, overrides={})
    frames, rows = known["frames"], known["rows"]
    if ranks <= frames.max:
        return {}
    pieces = replace(frames, max=max(frames.max, MOST_PIECES))
    return {"rows": replace(rows, min=1), "frames": pieces, "context_frames": pieces}
