"""The graphs of the OpenDWM family, ready to trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from worldrt.engine.errors import InputError
from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.opendwm.adapter import ImageAdapter
from worldrt.export.families.opendwm.denoiser import Denoise
from worldrt.export.families.opendwm.dit import DiT
from worldrt.export.families.opendwm.vae import Decode, Encode
from worldrt.export.families.opendwm.variants import CAMERA, PATCH, VAE_SCALE, DiTConfig, VAEConfig, Variant
from worldrt.export.graphs import GraphSource, renamed
from worldrt.export.modules.pixels import PixelFormat

ADAPTER = "condition_image_adapter."
PIXELS = PATCH * VAE_SCALE
"""Of a row or column of tokens."""
INPUTS = ("x", "level", "text", "pooled", "camera", "residual", "position", "view")


@dataclass(frozen=True)
class View:
    """How many views there are, and rows and columns of tokens of each. They are fixed in graphs: models are trained
    for few sizes, and one bundle is of one."""

    count: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.rows * self.columns

    @classmethod
    def of(cls, variant: Variant) -> View:
        """Raises `InputError` for sizes that are no whole tokens."""
        width, height = variant.size_px
        if width % PIXELS or height % PIXELS:
            raise InputError(f"size {width}x{height}: expected multiples of {PIXELS} pixels")
        return cls(variant.views, height // PIXELS, width // PIXELS)


def denoiser_graphs(config: DiTConfig, view: View, dtype: str = "float32", device: str = "meta") -> list[GraphSource]:
    """`denoise` and `layout`, computing in `dtype`."""
    kind: Any = getattr(torch, dtype)
    with torch.device(device):
        module = Denoise(DiT(config).to(kind))
    specs = tensor_specs(config, view)
    inputs = tuple(specs[name] for name in INPUTS)
    denoise = GraphSource("denoise", module, inputs, (specs["x0"],), renamed(module, {"dit.": ""}))
    return [denoise, layout_graph(config, view, dtype, device)]


def layout_graph(config: DiTConfig, view: View, dtype: str = "float32", device: str = "meta") -> GraphSource:
    """`layout`, which makes residuals of the layout images of a frame."""
    kind: Any = getattr(torch, dtype)
    with torch.device(device):
        adapter = ImageAdapter(config).to(kind)
    specs = tensor_specs(config, view)
    made = specs["residual"]
    of_frame = TensorSpec(made.name, made.dtype, (made.shape[0], *made.shape[2:]))
    return GraphSource("layout", adapter, (specs["image"],), (of_frame,), renamed(adapter, {"": ADAPTER}))


def tensor_specs(config: DiTConfig, view: View, views: int | str | None = None) -> dict[str, TensorSpec]:
    """All that enters and leaves the graphs of a denoiser; what is of a frame has `frames` after `batch`. `views` in
    place of their fixed number, but for the layout images."""
    count = view.count if views is None else views
    of_view = ("batch", "frames", count)
    shapes: dict[str, tuple[int | str, ...]] = {
        "x": ("batch", config.latent_channels, "frames", count, PATCH * view.rows, PATCH * view.columns),
        "level": ("batch", "frames"),
        "text": (*of_view, "text", config.text_width),
        "pooled": (*of_view, config.pooled_width),
        "camera": (*of_view, CAMERA),
        "residual": ("batch", "frames", config.stages, count, view.tokens, config.width),
        "position": ("frames",),
        "view": (count,),
        "image": ("batch", view.count, config.image_channels, PIXELS * view.rows, PIXELS * view.columns),
    }
    shapes["x0"] = shapes["x"]
    return {name: TensorSpec(name, "float32", shape) for name, shape in shapes.items()}


def vae_graphs(
    config: VAEConfig, dtype: str = "float32", pixel_format: PixelFormat = "rgb24", device: str = "meta"
) -> list[GraphSource]:
    """`encode` and `decode`, of one frame of each view; views are the batch."""
    with torch.device(device):
        encode, decode = (m.to(getattr(torch, dtype)) for m in (Encode(config), Decode(config, pixel_format)))
    latent, deviation = (
        TensorSpec(name, "float32", ("batch", config.latent_channels, 1, "rows", "columns"))
        for name in ("latent", "deviation")
    )
    rows, columns = f"{VAE_SCALE}*rows", f"{VAE_SCALE}*columns"
    picture = (rows, columns, 3) if pixel_format == "rgb24" else (f"{VAE_SCALE * 3 // 2}*rows", columns)
    frames = TensorSpec("frames", "uint8", ("batch", 1, *picture))
    video = TensorSpec("video", "float32", ("batch", 3, 1, rows, columns))
    return [
        GraphSource("encode", encode, (video,), (latent, deviation), renamed(encode, {"": ""})),
        GraphSource("decode", decode, (latent,), (frames,), renamed(decode, {"": ""})),
    ]
