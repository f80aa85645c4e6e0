"""The models of one or more bundles, loaded when first used and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from worldrt.engine import plugin
from worldrt.engine.bundle import Bundle, load_bundle
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError, BundleError, InputError
from worldrt.engine.overlay import WeightChange
from worldrt.runtime.chain import conditions_of
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel
from worldrt.runtime.joint_text import JointText
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.modes import shared_denoiser
from worldrt.runtime.staging import again_with_room, component_bytes, let_go
from worldrt.runtime.text import TextEncoder
from worldrt.runtime.updates import check_kernels
from worldrt.runtime.vae import VaeCodec

T = TypeVar("T")
Part = Literal["text", "denoiser", "vae"]


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
        check_kernels(opener.device)
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
        self._kept.pop(self._key(task, "denoiser"), None)

    def with_room(self, task: str, part: Part, make: Callable[[], T]) -> T:
        """Do `make`, which loads or runs a part of a task. The other models go before it where `offload` asks for that
        or its weights do not fit beside them, and before a second try where memory ran out."""
        if self.execution.offload or not self.fits(task, part):
            self._let_go(task, part)
        return again_with_room(make, lambda: self._let_go(task, part))

    def listen(self, observer: Observer) -> None:
        """Tell an observer of engines that are built while models are loaded."""
        self.execution.engines.listener[:] = [observer.progress]

    def fits(self, task: str, part: Part) -> bool:
        """Whether a part of a task is loaded, or its weights fit into the memory that the GPU has left."""
        opener = self.opener(task)
        if not isinstance(opener.device, CudaDevice):
            return True
        kept = self._kept.get(self._key(task, part))
        if kept is not None and kept.loaded:
            return True
        manifest = opener.bundle.manifest
        component = manifest.denoisers[task] if part == "denoiser" else manifest.components().get(part)
        if component is None:
            return True
        return component_bytes(component, opener.weights(component)) <= opener.device.free_bytes()

    def _let_go(self, task: str, part: Part) -> bool:
        return let_go(self._kept, self.execution.opened_device, self._key(task, part))

    def _key(self, task: str, part: Part) -> tuple[Any, ...]:
        opener = self.opener(task)
        text = opener.bundle.manifest.text
        if part == "text" and text is not None:
            files = tuple((opener.bundle.weight_root / file).resolve() for file in text.files)
            return part, files, text.precision
        return (part, opener.bundle.folder, task) if part == "denoiser" else (part, opener.bundle.folder)

    def denoiser(self, task: str) -> DenoiserModel:
        opener = self.opener(task)
        spec = opener.bundle.manifest.denoisers[task]
        key = self._key(task, "denoiser")
        if key in self._kept and not self._kept[key].loaded:
            del self._kept[key]
        ranks = self.execution.ranks
        return self._keep(key, lambda: shared_denoiser(opener, spec, ranks) if ranks else DenoiserModel(opener, spec))

    def vae(self, task: str) -> VaeCodec:
        opener = self.opener(task)
        spec = opener.bundle.manifest.vae
        if spec is None:
            raise InputError(f"{opener.bundle.folder}: this bundle has no VAE; export it again with all components")
        return self._keep(self._key(task, "vae"), lambda: VaeCodec(opener, spec, lambda: self._let_go(task, "vae")))

    def text(self, task: str) -> TextEncoder:
        """One encoder serves two bundles whose weight files are the same."""
        opener = self.opener(task)
        spec = opener.bundle.manifest.text
        if spec is None:
            raise InputError(f"{opener.bundle.folder}: this bundle has no text encoder; export it again with one")
        return self._keep(self._key(task, "text"), lambda: TextEncoder(opener, spec))

    def texts(self, task: str) -> JointText:
        """All text encoders of a bundle that has several; they stay loaded. Raises `InputError` where it has none."""
        opener = self.opener(task)
        manifest = opener.bundle.manifest
        specs = [self.text(task).spec, *manifest.texts.values()]
        key = ("texts", opener.bundle.folder)
        return self._keep(key, lambda: JointText([TextEncoder(opener, spec) for spec in specs]))

    def close(self) -> None:
        self._kept = {}

    def _keep(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return cast(T, self._kept[key])
