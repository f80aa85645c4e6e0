"""The whole story of static quantisation: sample, take ranges, rewrite the graphs, measure, decide."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from worldrt.engine.bundle import Bundle, Denoiser, Manifest, file_sha256, load_bundle, write_manifest
from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_folder
from worldrt.engine.quality import Quality
from worldrt.engine.weights import open_weights
from worldrt.export.quantize import gate, runs
from worldrt.export.quantize.blocks import quantize_blocks
from worldrt.export.quantize.calibrate import ranges, weight_amax
from worldrt.export.quantize.chain import block_errors, block_ranges
from worldrt.export.quantize.measure import LARGEST
from worldrt.export.quantize.runs import Recorded, Size, size_of
from worldrt.export.quantize.scheme import Scheme, scheme_of
from worldrt.export.quantize.static import chosen, insert
from worldrt.export.quantize.twin import float32_twin

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is quantised, by what data, and how much worse it may be.

    `keep` finds more weights that stay. `calibration` is a folder of recorded inputs; without one, `size` says which
    runs are made, and without that `runs.usual_size`.
    """

    scheme: Scheme
    keep: re.Pattern[str] | None = None
    calibration: Path | None = None
    percentile: float = LARGEST
    limits: gate.Limits = field(default_factory=gate.Limits)
    size: Size | None = None


def settings_of(
    kind: str, keep: str | None, calibration: Path | None, percentile: float, limit: float, size: str | None = None
) -> Settings:
    """Settings from flags. Raises `InputError`."""
    try:
        pattern = None if keep is None else re.compile(keep)
    except re.error as error:
        raise InputError(f"--quantize_keep: '{keep}' is no regular expression: {error}") from error
    if not 50 <= percentile <= LARGEST:
        raise InputError(f"--calibration_percentile: expected 50 to 100, got {percentile}")
    if calibration is not None and not calibration.is_dir():
        raise InputError(f"--calibration: {calibration} is no folder; trt-run TASK ... --record_inputs DIR makes one")
    sized = None if size is None else size_of(size)
    return Settings(scheme_of(kind), pattern, calibration, percentile, gate.Limits().loosened(limit), sized)


def quantize_bundle(
    source: Path,
    output: Path,
    settings: Settings,
    progress: Progress = lambda text: None,
    *,
    checkpoint: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a bundle of the same checkpoint whose denoisers are quantised; what that does to each, in a line.

    Raises `BundleError`, `OutputError`, `BackendError`; `InputError` for a denoiser that the kind is not for, and where
    one is worse than the limits allow.
    """
    bundle = load_bundle(source, checkpoint)
    manifest = bundle.manifest
    weights = replace(manifest.weights, root=str(bundle.weight_root.absolute()))
    bundle = replace(bundle, manifest=replace(manifest, weights=weights))
    with staged_folder(output, overwrite=overwrite) as folder:
        _copy(bundle, folder)
        return quantize_folder(bundle, folder, settings, progress)


def quantize_folder(bundle: Bundle, folder: Path, settings: Settings, progress: Progress) -> list[str]:
    """Quantise the graphs of `folder`, a copy of `bundle` or itself, in place; what that does, in a line for each."""
    for task, entry in bundle.manifest.denoisers.items():
        if entry.quantization is not None:
            raise InputError(f"{task}: {settings.scheme.name} wants an exact denoiser, got an already quantised one")
        if entry.sparse is not None:
            raise InputError(f"{task}: {settings.scheme.name} wants a dense denoiser, got one with windows")
        check_form(task, entry.form, settings.scheme)
        if "attend" in entry.graphs:
            raise InputError(f"{task}: its attention is cut out of its blocks; export it without --attention_cut")
    with tempfile.TemporaryDirectory(prefix="worldrt-quantize-") as scratch:
        story = _Story(bundle, folder, settings, Path(scratch), progress)
        story.calibrate()
        manifest = story.rewrite()
        manifest = story.judge(manifest)
    write_manifest(folder, manifest)
    measured = ((task, entry.quality) for task, entry in manifest.denoisers.items())
    return [gate.summary(task, settings.scheme.name, quality) for task, quality in measured if quality is not None]


def check_form(task: str, form: str, scheme: Scheme) -> None:
    """Raises `InputError` where a denoiser in blocks is not what a scheme is for: the scales of weights alone are too
    many for a file of the bundle."""
    if form != "whole" and not scheme.activations:
        raise InputError(f"{task}: {scheme.name} wants a denoiser in whole form, got blocks; --form whole")


@dataclass
class _Story:
    """The steps in their order; `exact` is the float32 twin of the bundle, `calls` are recorded calls by task."""

    bundle: Bundle
    folder: Path
    settings: Settings
    scratch: Path
    progress: Progress
    calls: dict[str, list[Recorded]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exact = float32_twin(self.bundle, self.scratch / "exact")
        self.size = self.settings.size or runs.usual_size(self.bundle.manifest)
        self.picture = self.scratch / "picture.ppm"
        runs.write_picture(self.picture, self.size.width, self.size.height)

    def sample(self, bundle: Bundle, task: str, prompt: int) -> Path:
        """A run, recorded into the folder that is returned."""
        folder = self.scratch / f"{bundle.folder.name}-{task}-{prompt}"
        runs.run(bundle.folder, task, runs.PROMPTS[prompt], self.size, folder, self.picture, seed=prompt)
        return folder

    def calibrate(self) -> None:
        given = self.settings.calibration
        if given is None and not can_sample(self.bundle):
            raise InputError(
                "quantisation: a bundle without VAE and text encoder cannot be sampled for calibration; "
                "give --calibration DIR, or export all components"
            )
        for task in self.bundle.manifest.denoisers:
            self.progress(f"{task}: sampling for calibration" if given is None else f"{task}: reading {given}")
            count = len(runs.PROMPTS) - 1
            folders = [given] if given else [self.sample(self.exact, task, prompt) for prompt in range(count)]
            self.calls[task] = [call for folder in folders for call in runs.recorded(folder, task)]

    def rewrite(self) -> Manifest:
        """Quantise each denoiser of `folder`."""
        manifest = self.bundle.manifest
        files = dict(manifest.files)
        denoisers = {task: self._rewritten(task, entry, files) for task, entry in manifest.denoisers.items()}
        manifest = replace(manifest, denoisers=denoisers, files=files)
        write_manifest(self.folder, manifest)
        return manifest

    def _rewritten(self, task: str, entry: Denoiser, files: dict[str, str]) -> Denoiser:
        """The entry of a quantised denoiser; `files` are those of the bundle, which it changes."""
        self.progress(f"{task}: ranges of activations")
        for program in filter(None, (graph.program for graph in entry.graphs.values())):
            (self.folder / program).unlink(missing_ok=True)
            files.pop(program, None)
        bare = {name: replace(graph, program=None) for name, graph in entry.graphs.items()}
        entry = replace(entry, graphs=bare, quantization=self.settings.scheme.name)
        return self._whole(task, entry) if entry.form == "whole" else self._blocks(task, entry, files)

    def _blocks(self, task: str, entry: Denoiser, files: dict[str, str]) -> Denoiser:
        scheme, keep = self.settings.scheme, self.settings.keep
        amax = block_ranges(self.exact, task, scheme, keep, self.calls[task], self.settings.percentile)
        made, scales = quantize_blocks(self.folder, entry, scheme, keep, amax, open_weights(self.bundle, entry))
        files |= scales
        return made

    def _whole(self, task: str, entry: Denoiser) -> Denoiser:
        scheme, keep = self.settings.scheme, self.settings.keep
        twin = self.exact.manifest.denoisers[task]
        amax = ranges(self.exact, twin, scheme, keep, self.calls[task], self.settings.percentile)
        graph = entry.graphs["denoise"]
        path = self.folder / graph.file
        model = ir.load(path)
        layers = chosen(model.graph, graph.weights, keep)
        if not layers:
            raise InputError(
                f"{task}: no layer is left to quantise; a denoiser needs 3 blocks or more, see --quantize_keep"
            )
        store, keys = open_weights(self.bundle, entry), {weight.name: weight.key for weight in graph.weights}
        insert(model.graph, layers, scheme, amax, lambda name, block: weight_amax(store, keys[name], block))
        ir.save(model, path)
        return replace(entry, graphs={"denoise": replace(graph, sha256=file_sha256(path))})

    def judge(self, manifest: Manifest) -> Manifest:
        """Measure each denoiser of `folder` and put the result on record. Raises `InputError` beyond the limits."""
        quantized = float32_twin(load_bundle(self.folder, self.bundle.weight_root), self.scratch / "quantized")
        measured = {task: self._quality(task, quantized) for task in manifest.denoisers}
        entries = {task: replace(entry, quality=measured[task]) for task, entry in manifest.denoisers.items()}
        return replace(manifest, denoisers=entries)

    def _quality(self, task: str, quantized: Bundle) -> Quality:
        self.progress(f"{task}: errors of blocks and steps")
        percentile, limits = self.settings.percentile, self.settings.limits
        whole = self.bundle.manifest.denoisers[task].form == "whole"
        errors = gate.errors if whole else block_errors
        steps, blocks = errors(self.exact, quantized, task, self.calls[task])
        gate.check_steps(task, steps, limits)
        psnr_db = self._psnr_db(task, quantized)
        gate.check_frames(task, psnr_db, limits)
        how = "largest magnitude" if percentile == LARGEST else f"percentile {percentile:g}"
        count = f"{len(self.calls[task])} calls"
        how = f"{how} of {count}" if self.settings.scheme.activations else f"weights alone, judged on {count}"
        return Quality(how, steps, blocks, limits.step_error, limits.psnr_db, psnr_db)

    def _psnr_db(self, task: str, quantized: Bundle) -> float | None:
        """Of a prompt that no range was taken from."""
        if not can_sample(self.bundle):
            return None
        self.progress(f"{task}: frames of a whole run")
        prompt = len(runs.PROMPTS) - 1
        actual, exact = (runs.frames(self.sample(bundle, task, prompt)) for bundle in (quantized, self.exact))
        return gate.psnr_db(actual, exact)


def can_sample(bundle: Bundle) -> bool:
    """Whether a bundle holds all that a run needs."""
    return bundle.manifest.vae is not None and bundle.manifest.text is not None


def _copy(bundle: Bundle, folder: Path) -> None:
    """The graphs and files of a bundle."""
    manifest = bundle.manifest
    for relative in (*manifest.files, *(g.file for c in manifest.components().values() for g in c.graphs.values())):
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path(relative), folder / relative)
