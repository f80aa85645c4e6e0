"""How alike two videos are: PSNR and SSIM of their frames, and LPIPS where its package is here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.benchmarks.statistics import quantile

Array = np.ndarray[Any, Any]
Distance = Callable[[Array, Array], float]
"""Of two uint8 pictures (H, W, 3)."""
LUMA = np.array([0.2126, 0.7152, 0.0722])
WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
WINDOW = WINDOW / WINDOW.sum()
COLUMNS = ("frames", "equal", "PSNR min_dB", "median_dB", "SSIM min", "median")
LPIPS_COLUMN = "LPIPS median"


@dataclass(frozen=True)
class Likeness:
    """Of frames that belong together. `psnr_db` are those of frames that are not equal."""

    frames: int
    psnr_db: tuple[float, ...]
    ssim: tuple[float, ...]
    lpips: tuple[float, ...] = ()

    @property
    def cells(self) -> tuple[Any, ...]:
        """Of `COLUMNS`, and of `LPIPS_COLUMN` where it was measured."""
        psnr = (min(self.psnr_db), quantile(self.psnr_db, 0.5)) if self.psnr_db else (None, None)
        shown = (self.frames, self.frames - len(self.psnr_db), *psnr, min(self.ssim), quantile(self.ssim, 0.5))
        return shown + ((quantile(self.lpips, 0.5),) if self.lpips else ())


def likeness(frames: Iterable[Array], reference: Iterable[Array], lpips: Distance | None = None) -> Likeness:
    """Raises `ValueError` where one has more frames than the other."""
    pairs = list(zip(frames, reference, strict=True))
    decibels = [psnr_db(a, r) for a, r in pairs]
    return Likeness(
        len(pairs),
        tuple(value for value in decibels if value != float("inf")),
        tuple(ssim(a, r) for a, r in pairs),
        tuple(lpips(a, r) for a, r in pairs) if lpips else (),
    )


def psnr_db(actual: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB; infinite where they are equal."""
    error = float(np.mean((actual.astype(np.float64) - reference) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ssim(actual: Array, reference: Array) -> float:
    """Structural similarity of the luma of two uint8 pictures (H, W, 3): 1 where they are equal.

    Wang and others, Image quality assessment, 2004: Gaussian windows of 11 pixels, standard deviation 1.5.
    """
    x, y = (picture.astype(np.float64) @ LUMA for picture in (actual, reference))
    mean_x, mean_y = _blurred(x), _blurred(y)
    spread_x, spread_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    shared = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    return float(np.mean(above / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))))


def _blurred(plane: Array) -> Array:
    """Where the window lies inside of the picture."""
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(plane, len(WINDOW), axis)
        plane = windows @ WINDOW
    return plane


def open_lpips() -> tuple[Distance | None, str]:
    """Learned perceptual distance by AlexNet (Zhang and others, The unreasonable effectiveness of deep features, 2018);
    None, and why, where neither of its packages is here, or its weights are not."""
    reasons = []
    for name, opened in (("lpips", _of_lpips), ("torchmetrics", _of_torchmetrics)):
        try:
            return opened(), ""
        except Exception as error:  # without a network, what loads weights raises what it likes
            reasons.append(f"{name}: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}")
    return None, f"LPIPS was not measured ({'; '.join(reasons)})"


def _of_lpips() -> Distance:
    return _distance(importlib.import_module("lpips").LPIPS(net="alex", verbose=False))


def _of_torchmetrics() -> Distance:
    module = importlib.import_module("torchmetrics.image.lpip")
    return _distance(module.LearnedPerceptualImagePatchSimilarity(net_type="alex"))


def _distance(network: Any) -> Distance:
    torch: Any = importlib.import_module("torch")
    network.eval()

    def tensor(picture: Array) -> Any:
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1

    def distance(actual: Array, reference: Array) -> float:
        with torch.no_grad():
            return float(network(tensor(actual), tensor(reference)))

    return distance
