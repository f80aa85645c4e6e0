"""An official configuration of OpenDWM as a variant: what it says of the network, views, sizes and sampling.

Only values are read. What its `_class_name` entries name is neither imported nor run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Stream
from worldrt.engine.errors import InputError
from worldrt.engine.schema import parse_json
from worldrt.export.families.opendwm.variants import PATCH, VAE_SCALE, DiTConfig, Variant

LARGEST_BYTES = 1_000_000
FIXED = {
    "patch_size": PATCH,
    "qk_norm": "rms_norm",
    "qk_norm_on_additional_modules": "rms_norm",
    "perspective_modeling_type": "implicit",
    "projection_class_embeddings_input_dim": 2816,
    "enable_crossview": True,
    "crossview_attention_type": "rowwise",
    "enable_temporal": True,
    "temporal_attention_type": "pointwise",
    "mixer_type": "AlphaBlender",
}
"""Kinds of networks that are known here; other values are another one."""
ADAPTER = {"downscale_factor": VAE_SCALE, "use_zero_convs": True}


class _Reader:
    """Values of nested tables, with errors that name their place."""

    def __init__(self, place: str, data: object) -> None:
        if not isinstance(data, Mapping):
            raise InputError(f"{place}: expected an object, got {str(data)[:60]}")
        self.place, self.data = place, data

    def table(self, key: str) -> _Reader:
        return _Reader(f"{self.place}.{key}", self.data.get(key))

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 10**6:
            raise InputError(f"{self.place}.{key}: expected a whole number from 1 up, got {str(value)[:60]}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.data.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1000:
            raise InputError(f"{self.place}.{key}: expected a number, got {str(value)[:60]}")
        return float(value)

    def wholes(self, key: str, below: int) -> tuple[int, ...]:
        value = self.data.get(key)
        fits = isinstance(value, Sequence) and all(isinstance(n, int) and 0 <= n < below for n in value)
        if not fits or sorted(set(value or ())) != list(value or ()):
            raise InputError(f"{self.place}.{key}: expected rising numbers below {below}, got {str(value)[:60]}")
        return tuple(value or ())

    def expect(self, known: Mapping[str, Any]) -> None:
        for key, value in known.items():
            if self.data.get(key, value) != value:
                raise InputError(
                    f"{self.place}.{key}: expected {value!r}, got {str(self.data[key])[:60]!r}; this is a network that "
                    "is not known here"
                )


def configured(base: Variant, path: Path) -> Variant:
    """`base` with what a configuration file says. Raises `InputError`."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path}: larger than {LARGEST_BYTES} bytes, which no configuration is")
        data = _Reader(path.name, parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a configuration: {error}") from error
    pipeline = data.table("pipeline")
    sampling, common = pipeline.table("inference_config"), pipeline.table("common_config")
    latent = data.data.get("latent_size", [side // VAE_SCALE for side in reversed(base.size_px)])
    fits = isinstance(latent, Sequence) and len(latent) == 2 and all(isinstance(n, int) and n > 0 for n in latent)
    if not fits or any(n % PATCH for n in latent):
        raise InputError(f"{path.name}.latent_size: expected even rows and columns, got {str(latent)[:60]}")
    views = base.views
    if "data_adapter" in data.data:
        channels = data.table("data_adapter").data.get("sensor_channels", [None] * views)
        views = len(channels) if isinstance(channels, list) else 0
        if not views:
            raise InputError(f"{path.name}.data_adapter.sensor_channels: expected the names of cameras")
    steps = sampling.whole("inference_steps", base.steps)
    window = sampling.whole("sequence_length_per_iteration", base.stream.groups)
    if steps % window:
        raise InputError(f"{path.name}: {steps} inference_steps: expected a multiple of the window, {window} frames")
    return replace(
        base,
        dit=_network(pipeline.table("model")),
        size_px=(latent[1] * VAE_SCALE, latent[0] * VAE_SCALE),
        views=views,
        steps=steps,
        guidance=sampling.number("guidance_scale", base.guidance),
        stream=Stream(groups=window, group=1, history=0, fill="cold"),
        text_interval=sampling.whole("text_prompt_interval", base.text_interval),
        uncond_image=common.number("uncondition_image_color", 0.0),
    )


def _network(model: _Reader) -> DiTConfig:
    model.expect(FIXED)
    adapter = model.table("condition_image_adapter_config")
    adapter.expect(ADAPTER)
    layers, heads, size = (model.whole(key) for key in ("num_layers", "num_attention_heads", "attention_head_dim"))
    channels = adapter.data.get("channels")
    if not isinstance(channels, list) or any(c != heads * size for c in channels) or not 0 < len(channels) <= layers:
        raise InputError(f"{adapter.place}.channels: expected {heads * size} for each stage, got {str(channels)[:60]}")
    if adapter.data.get("is_downblocks") != [True, *[False] * (len(channels) - 1)]:
        raise InputError(f"{adapter.place}.is_downblocks: expected the first stage alone, as the image has one scale")
    model.expect({"caption_projection_dim": heads * size})
    return DiTConfig(
        layers=layers,
        heads=heads,
        head_dim=size,
        latent_channels=model.whole("in_channels"),
        text_width=model.whole("joint_attention_dim"),
        pooled_width=model.whole("pooled_projection_dim"),
        dual=model.wholes("dual_attention_layers", layers),
        temporal=model.wholes("temporal_block_layers", layers),
        crossview=model.wholes("crossview_block_layers", layers),
        stages=len(channels),
        resnets=adapter.whole("num_res_blocks", 2),
        image_channels=adapter.whole("in_channels"),
        position_grid=model.whole("pos_embed_max_size"),
        position_base=model.whole("sample_size") // PATCH,
    )
