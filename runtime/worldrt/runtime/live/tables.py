"""What controls are to a denoiser: the table of a bundle."""

from __future__ import annotations

import numpy as np

from worldrt.engine.bundle import Bundle, Denoiser
from worldrt.engine.errors import BundleError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.runtime.live.controls import VOCABULARY
from worldrt.runtime.live.model import Float32


def control_table(bundle: Bundle, spec: Denoiser) -> tuple[tuple[str, ...], Float32 | None]:
    """The symbols that a denoiser follows, and float32 (symbols, width) of what it takes for each; a denoiser that
    follows none takes all, to no effect. Raises `BundleError`."""
    if spec.control is None:
        return VOCABULARY, None
    file = SafetensorsFile.open(bundle.path(spec.control.embeddings))
    table: Float32 = np.array(file["embeddings"].numpy())
    expected = (len(spec.control.symbols), spec.control.width)
    if table.shape != expected or table.dtype != np.float32 or not np.isfinite(table).all():
        raise BundleError(
            f"{file.path}: embeddings: expected finite float32 {expected}, got {table.dtype} {table.shape}; export the "
            "bundle again"
        )
    return spec.control.symbols, table
