"""Unsafe pictures: the image features of SigLIP and a small classifier on them, a frame at a time.

The classifier of Cosmos-Guardrail: features divided by their norm, then linear 1152 -> 512 -> 256 -> 7 with batch norms
and ReLU between. Sizes are those of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldrt.runtime.safety.base import Frame
from worldrt.runtime.safety.libraries import Weights, library, loading, pickled, pretrained

CLASSES = (None, "sexual content", "violence", "drugs", "child abuse", "hate and harassment", "self-harm")
EPS = 1e-5


class VideoModel:
    """`encoder` is a folder of SigLIP, `classifier` the file `safety_filter.pt`."""

    name = "video model"

    def __init__(self, encoder: Path, classifier: Path) -> None:
        self._encoder, self._classifier = encoder, classifier
        self._device = "cpu"
        self._loaded: tuple[Any, Any, Weights] | None = None

    def to(self, device: str) -> None:
        self._device = device
        processor, encoder, weights = self._models()
        self._loaded = processor, encoder.to(device), {name: tensor.to(device) for name, tensor in weights.items()}

    def unload(self) -> None:
        self._loaded = None

    def refuses(self, frames: Sequence[Frame]) -> list[str | None]:
        torch = library("torch")
        processor, encoder, weights = self._models()
        with torch.inference_mode():
            pixels = processor(images=list(frames), return_tensors="pt")["pixel_values"]
            features = encoder(pixel_values=pixels.to(self._device)).pooler_output
            logits = classify(features / features.norm(dim=-1, keepdim=True), weights)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("scores that are no numbers")
        return [CLASSES[index] for index in logits.argmax(-1).tolist()]

    def _models(self) -> tuple[Any, Any, Weights]:
        if self._loaded is None:
            encoder = pretrained("SiglipVisionModel", self._encoder, dtype=library("torch").float32)
            with loading(self._encoder):
                processor = library("transformers").AutoImageProcessor.from_pretrained(
                    self._encoder, local_files_only=True, backend="pil"
                )
            weights = pickled(self._classifier)
            with loading(self._classifier):  # a try finds what is missing
                tried = classify(library("torch").zeros(1, encoder.config.hidden_size), weights)
                if tried.shape != (1, len(CLASSES)):
                    raise ValueError(f"expected {len(CLASSES)} classes, got {list(tried.shape)}")
            self._loaded = processor, encoder, weights
        return self._loaded


def classify(features_BD: Any, weights: Weights) -> Any:
    """Logits (B, 7) of normalised features (B, D)."""
    functional = library("torch.nn.functional")
    x = features_BD
    for layer in (0, 3, 6):
        at = f"network.layers.{layer}."
        x = functional.linear(x, weights[at + "weight"], weights[at + "bias"])
        if layer < 6:
            x = functional.relu(batch_norm(x, f"network.layers.{layer + 1}.", weights))
    return x


def batch_norm(x: Any, at: str, weights: Weights) -> Any:
    """With the statistics of training."""
    names = ("running_mean", "running_var", "weight", "bias")
    return library("torch.nn.functional").batch_norm(x, *(weights[at + name] for name in names), eps=EPS)
