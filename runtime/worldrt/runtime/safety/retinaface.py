"""RetinaFace with a ResNet-50, as functions of its weights ("RetinaFace: Single-stage Dense Face Localisation in the
Wild", arXiv:1905.00641; the weights are those of the PyTorch implementation by biubug6).

Three levels of a feature pyramid, at strides 8, 16 and 32, each with two square anchors per place. Landmarks are left
out. Widths and the number of blocks are those of the weights. B, C, H, W: batch, channels, rows, columns; N: anchors.
"""

from __future__ import annotations

from itertools import count
from math import ceil
from typing import Any

import numpy as np

from worldrt.runtime.safety.libraries import Weights, library
from worldrt.runtime.safety.video_model import batch_norm

ANCHORS_PX = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # by stride
VARIANCES = (0.1, 0.2)
MEANS_BGR = (104.0, 117.0, 123.0)

Float32 = np.ndarray[Any, np.dtype[np.float32]]


def detect(frame_HWC: np.ndarray[Any, np.dtype[np.uint8]], weights: Weights) -> tuple[Float32, Float32]:
    """Boxes (N, 4) as left, top, right, bottom in pixels, and the probability (N) of a face in each."""
    torch = library("torch")
    device = next(iter(weights.values())).device
    rows, columns = frame_HWC.shape[:2]
    with torch.inference_mode():
        bgr = torch.from_numpy(np.ascontiguousarray(frame_HWC[..., ::-1])).to(device).float()
        x = (bgr - torch.tensor(MEANS_BGR, device=device)).permute(2, 0, 1)[None]
        shifts, scores = heads(pyramid(backbone(x, weights), weights), weights)
        faces = scores.softmax(-1)[0, :, 1]
        return decode(shifts[0].cpu().numpy(), anchors(rows, columns), (columns, rows)), faces.cpu().numpy()


def backbone(x_BCHW: Any, w: Weights) -> list[Any]:
    """The last three levels of a ResNet of bottlenecks, whose strides lie in the 3x3 convolutions."""
    functional = library("torch.nn.functional")
    x = functional.relu(_conv(x_BCHW, "body.conv1", "body.bn1", w, stride=2, pad=3))
    x = functional.max_pool2d(x, 3, 2, 1)
    levels = []
    for level in range(1, 5):
        for i in count():
            at = f"body.layer{level}.{i}."
            if at + "conv1.weight" not in w:
                break
            x = _bottleneck(x, at, w, stride=2 if level > 1 and i == 0 else 1)
        levels.append(x)
    return levels[1:]


def _bottleneck(x: Any, at: str, w: Weights, stride: int) -> Any:
    functional = library("torch.nn.functional")
    y = functional.relu(_conv(x, at + "conv1", at + "bn1", w))
    y = functional.relu(_conv(y, at + "conv2", at + "bn2", w, stride=stride, pad=1))
    y = _conv(y, at + "conv3", at + "bn3", w)
    if at + "downsample.0.weight" in w:
        x = _conv(x, at + "downsample.0", at + "downsample.1", w, stride=stride)
    return functional.relu(x + y)


def pyramid(levels: list[Any], w: Weights) -> list[Any]:
    """Features of each stride: what lies above added from coarse to fine, then a wider view of each."""
    functional = library("torch.nn.functional")
    out = [_unit(x, f"fpn.output{i}", w).relu() for i, x in enumerate(levels, 1)]
    for i in (1, 0):
        above = functional.interpolate(out[i + 1], size=out[i].shape[2:], mode="nearest")
        out[i] = _unit(out[i] + above, f"fpn.merge{i + 1}", w).relu()
    return [_context(x, f"ssh{i}.", w) for i, x in enumerate(out, 1)]


def _context(x: Any, at: str, w: Weights) -> Any:
    """Three fields of view, 3x3, 5x5 and 7x7, the larger ones as rows of 3x3 convolutions."""
    five = _unit(x, at + "conv5X5_1", w).relu()
    seven = _unit(five, at + "conv7X7_2", w).relu()
    views = [_unit(x, at + "conv3X3", w), _unit(five, at + "conv5X5_2", w), _unit(seven, at + "conv7x7_3", w)]
    return library("torch").cat(views, 1).relu()


def heads(features: list[Any], w: Weights) -> tuple[Any, Any]:
    """Shifts of the anchors (B, N, 4), and logits (B, N, 2) of no face and face."""
    torch = library("torch")
    made = []
    for head, width in (("BboxHead", 4), ("ClassHead", 2)):
        maps = [_plain(x, f"{head}.{i}.conv1x1", w) for i, x in enumerate(features)]
        made.append(torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, width) for m in maps], 1))
    return made[0], made[1]


def anchors(rows: int, columns: int) -> Float32:
    """(N, 4): centre x and y, width and height, as shares of the picture; by stride, row, column and size."""
    made = []
    for stride, sizes in ANCHORS_PX.items():
        y, x, size = np.meshgrid(
            (np.arange(ceil(rows / stride)) + 0.5) * stride / rows,
            (np.arange(ceil(columns / stride)) + 0.5) * stride / columns,
            np.array(sizes, float),
            indexing="ij",
        )
        made.append(np.stack([x, y, size / columns, size / rows], -1).reshape(-1, 4))
    return np.concatenate(made).astype(np.float32)


def decode(shifts: Float32, places: Float32, size_px: tuple[int, int]) -> Float32:
    """Boxes in pixels of shifted anchors."""
    centres = places[:, :2] + shifts[:, :2] * VARIANCES[0] * places[:, 2:]
    halves = places[:, 2:] * np.exp(shifts[:, 2:] * VARIANCES[1]) / 2
    boxes: Float32 = np.concatenate([centres - halves, centres + halves], 1) * np.array(size_px * 2, np.float32)
    return boxes


def _unit(x: Any, at: str, w: Weights) -> Any:
    return _conv(x, at + ".0", at + ".1", w, pad=w[at + ".0.weight"].shape[-1] // 2)


def _conv(x: Any, at: str, norm: str, w: Weights, *, stride: int = 1, pad: int = 0) -> Any:
    y = library("torch.nn.functional").conv2d(x, w[at + ".weight"], stride=stride, padding=pad)
    return batch_norm(y, norm + ".", w)


def _plain(x: Any, at: str, w: Weights) -> Any:
    return library("torch.nn.functional").conv2d(x, w[at + ".weight"], w[at + ".bias"])
