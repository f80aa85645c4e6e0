"""What a clip is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Float32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Clip:
    """What one clip is made from.

    `texts`: rows (text, D) of the prompt and of the negative prompt. `conditions`: the denoiser's other inputs by name,
    of batch 1; `position`, the index of each latent frame, is known without. `start`, latents (1, C, T, h, w) to edit:
    sampling begins at them and noise of the table's first level, instead of at noise alone.
    """

    seed: int
    texts: tuple[Float32, Float32]
    conditions: Mapping[str, Float32]
    start: Float32 | None = None
