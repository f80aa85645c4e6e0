"""`--natten`: which bundles serve a video, those with windows (neighbourhood attention) or the dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worldrt.engine.bundle import Manifest, read_manifest
from worldrt.engine.errors import InputError
from worldrt.runtime.models import Models

VIDEO = "video2world"


def ordered(folders: Sequence[Path], natten: bool) -> list[Path]:
    """Bundles that were found and not named: the first one with a task serves it, so the right ones come first."""
    return sorted(folders, key=lambda folder: is_sparse(read_manifest(folder)) is not natten)


def is_sparse(manifest: Manifest) -> bool:
    """Whether a bundle holds a video model with windows."""
    return VIDEO in manifest.denoisers and manifest.denoisers[VIDEO].sparse is not None


def check(models: Models, task: str, natten: bool, *, named: bool) -> None:
    """Raises `InputError` where the video model is not of the kind that was asked for. A bundle that was `named` needs
    no flag."""
    if task not in ("text2world", "video2world", "bestofn"):
        if natten:
            raise InputError(f"--natten: it is about videos, not {task}; leave it out")
        return
    opener = models.opener(VIDEO)
    manifest = opener.bundle.manifest
    sparse, where = is_sparse(manifest), opener.bundle.folder
    if natten and not sparse:
        raise InputError(
            f"--natten: {where} is dense; make a sparse bundle with: trt-export --model {manifest.variant} --natten"
        )
    if sparse and not natten and not named:
        raise InputError(
            f"{where}: the only video model here is a sparse one; run it with --natten, or make a dense bundle with: "
            f"trt-export --model {manifest.variant}"
        )
