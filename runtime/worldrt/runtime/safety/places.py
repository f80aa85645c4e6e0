"""Where the weights of the guardrail lie: a folder as the official checkpoints have it, or its parts side by side.

DIR/nvidia/Cosmos-Guardrail1/{blocklist,face_blur_filter,video_content_safety_filter}   or right in DIR
DIR/meta-llama/Llama-Guard-3-8B or DIR/Qwen/Qwen3Guard-Gen-0.6B                           or without the first name
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import CheckpointError

_TEXT = ("Llama-Guard-3*", "Qwen3Guard-Gen*")
_ROOTS = ("", "nvidia/Cosmos-Guardrail1", "Cosmos-Guardrail1", "nvidia/Cosmos-1.0-Guardrail", "Cosmos-1.0-Guardrail")
_SIGLIP = ("siglip*", "google/siglip*", "models--google--siglip*/snapshots/*")


@dataclass(frozen=True)
class Places:
    """`blocklist` holds the folders `custom`, `exact_match` and `whitelist`."""

    blocklist: Path
    text_model: Path
    encoder: Path
    classifier: Path
    faces: Path


def find_places(folder: Path) -> Places:
    """Raises `CheckpointError` that names what is missing, all of it."""
    if not folder.is_dir():
        raise CheckpointError(f"guardrail: {folder}: no such folder")
    roots = [folder / name for name in _ROOTS]
    safety = [root / "video_content_safety_filter" for root in roots]
    lacking: list[str] = []

    def first(what: str, candidates: list[Path], there: Callable[[Path], bool]) -> Path:
        found = next((place for place in candidates if there(place)), None)
        if found is None:
            lacking.append(what)
        return found or folder

    above = [folder, *(folder / name for name in ("meta-llama", "Qwen")), *folder.parents[:2]]
    above += [parent / name for parent in folder.parents[:2] for name in ("meta-llama", "Qwen")]
    places = Places(
        first("blocklist/", [root / "blocklist" for root in roots], Path.is_dir),
        first("Llama-Guard-3-8B/ or Qwen3Guard-Gen-0.6B/", _matching(above, _TEXT), _is_model),
        first(
            "video_content_safety_filter/.../siglip-so400m-patch14-384",
            _matching([folder, *safety], _SIGLIP),
            _is_model,
        ),
        first("video_content_safety_filter/safety_filter.pt", [at / "safety_filter.pt" for at in safety], Path.is_file),
        first(
            "face_blur_filter/Resnet50_Final.pth",
            [r / "face_blur_filter/Resnet50_Final.pth" for r in roots],
            Path.is_file,
        ),
    )
    if lacking:
        raise CheckpointError(
            f"guardrail: {folder}: {', '.join(lacking)} missing; fetch nvidia/Cosmos-Guardrail1 and "
            "meta-llama/Llama-Guard-3-8B into it"
        )
    return places


def _matching(folders: list[Path], patterns: tuple[str, ...]) -> list[Path]:
    return [place for pattern in patterns for folder in folders for place in sorted(folder.glob(pattern))]


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()
