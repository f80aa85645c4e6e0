"""Models that come with the package, so that the first command needs no download: trained weights and their bundle."""

from __future__ import annotations

from pathlib import Path

from worldrt.engine.bundle import FILE_NAME

PLACE = Path(__file__).parent / "models"
CHECKPOINT = "checkpoint"
"""Where the weights lie in the bundle, float16."""


def packaged(model: str) -> Path | None:
    """The bundle of a model that is part of this installation; None where there is none."""
    folder = PLACE / model.lower()
    return folder if (folder / FILE_NAME).is_file() else None


def all_packaged() -> list[Path]:
    """The bundles of all models that are part of this installation."""
    return sorted(place.parent for place in PLACE.glob(f"*/{FILE_NAME}"))
