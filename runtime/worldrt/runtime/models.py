"""The models of one or more bundles, loaded when first used and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from worldrt.engine import plugin
from worldrt.engine.bundle import Bundle, load_bundle
from worldrt.engine.errors import BackendError, BundleError, InputError
from worldrt.engine.overlay import WeightChange
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, conditions_of
from worldrt.runtime.text import TextEncoder
from worldrt.runtime.vae import VaeCodec

T = TypeVar("T")


class Models:
    """Text encoder, denoiser and VAE by task (`text2image`, `video2world`). The first bundle with a task serves it."""

    def __init__(
        self, bundles: Sequence[Bundle], execution: Execution, changes: Mapping[str, WeightChange] | None = None
    ) -> None:
        self.bundles = tuple(bundles)
        self.execution = execution
        self.changes = dict(changes or {})
        self._kept: dict[tuple[Any, ...], Any] = {}

    @classmethod
    def open(
        cls,
        bundles: Sequence[Path | str],
        checkpoints: Sequence[Path | str | None] = (),
        changes: Mapping[str, WeightChange] | None = None,
        **execution: Any,
    ) -> Models:
        """Read bundles; graphs are loaded later. `checkpoints` override the weight roots, in the order of `bundles`.

        `changes` are other weights for denoisers, by task; `execution` are the fields of `Execution`. Raises
        `BundleError`; `InputError` or `BackendError` for a backend or a device that cannot be had.
        """
        chosen = Execution(**execution)
        reason = plugin.load("worldrt.engine.backends", chosen.backend).unavailable()
        if reason:
            raise BackendError(f"backend '{chosen.backend}': {reason}")
        chosen.opened_device  # noqa: B018  # an absent device is said at once
        if len(checkpoints) > len(bundles):
            raise InputError(f"checkpoint: expected one for each of {len(bundles)} bundle(s), got {len(checkpoints)}")
        roots = [*checkpoints, *[None] * (len(bundles) - len(checkpoints))]
        opened = [load_bundle(folder, root) for folder, root in zip(bundles, roots, strict=True)]
        return cls(opened, chosen, changes)

    def opener(self, task: str) -> Opener:
        """Raises `InputError` where no bundle has the task."""
        for bundle in self.bundles:
            if task in bundle.manifest.denoisers:
                return Opener(bundle, self.execution, self.changes)
        folders = ", ".join(str(bundle.folder) for bundle in self.bundles)
        raise InputError(f"{folders}: no model for {task}; export one with trt-export, and give it as --bundle")

    def check(self, task: str, texts: Sequence[str], conditions: Iterable[str] = ()) -> None:
        """Raises what stands in the way of running a task on some texts, but loads no graph.

        `conditions` are the denoiser's inputs that the task gives besides x, level, text and position: one that is not
        filled, or not there, would make another video without a word.
        """
        opener = self.opener(task)
        manifest = opener.bundle.manifest
        taken, given = conditions_of(manifest.denoisers[task]) - {"position"}, set(conditions)
        if taken != given:
            raise BundleError(
                f"{opener.bundle.folder}: {task}: expected a denoiser with the conditions {sorted(given)}, "
                f"got {sorted(taken)}; export the bundle again"
            )
        encoder = self.text(task)
        for text in texts:
            encoder.tokens(text)
        for component in (manifest.denoisers[task], self.vae(task).spec, encoder.spec):
            opener.weights(component)

    def change(self, task: str, change: WeightChange) -> None:
        """Have a task's denoiser run with other weights from now on; `WeightChange()` are those of its checkpoint.

        Raises what stands in the way, and then changes nothing.
        """
        opener = self.opener(task)
        changes = {**self.changes, task: change}
        replace(opener, changes=changes).weights(opener.bundle.manifest.denoisers[task])
        self.changes = changes
        self._kept.pop(("denoiser", opener.bundle.folder, task), None)

    def denoiser(self, task: str) -> DenoiserModel:
        opener = self.opener(task)
        spec = opener.bundle.manifest.denoisers[task]
        return self._keep(("denoiser", opener.bundle.folder, task), lambda: DenoiserModel(opener, spec))

    def vae(self, task: str) -> VaeCodec:
        opener = self.opener(task)
        spec = opener.bundle.manifest.vae
        if spec is None:
            raise InputError(f"{opener.bundle.folder}: this bundle has no VAE; export it again with all components")
        return self._keep(("vae", opener.bundle.folder), lambda: VaeCodec(opener, spec))

    def text(self, task: str) -> TextEncoder:
        """One encoder serves two bundles whose weight files are the same."""
        opener = self.opener(task)
        spec = opener.bundle.manifest.text
        if spec is None:
            raise InputError(f"{opener.bundle.folder}: this bundle has no text encoder; export it again with one")
        files = tuple((opener.bundle.weight_root / file).resolve() for file in spec.files)
        return self._keep(("text", files, spec.precision), lambda: TextEncoder(opener, spec))

    def close(self) -> None:
        self._kept = {}

    def _keep(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return cast(T, self._kept[key])
