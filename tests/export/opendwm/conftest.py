"""Golden tensors of the official code, and small networks that carry their weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from worldrt.export.families.opendwm.adapter import ImageAdapter
from worldrt.export.families.opendwm.dit import DiT
from worldrt.export.families.opendwm.variants import DiTConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "opendwm"
ADAPTER = "condition_image_adapter."


class Golden:
    """One golden file; `case` gives the tensors of a case by their names."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.metadata = file.metadata()

    @property
    def weights(self) -> dict[str, Tensor]:
        given = {k.removeprefix("weights."): v.float() for k, v in self.tensors.items() if k.startswith("weights.")}
        return {key: value for key, value in given.items() if key != "pos_embed.pos_embed"}

    @property
    def config(self) -> DiTConfig:
        c = json.loads(self.metadata["config"])
        adapter = c["condition_image_adapter_config"]
        return DiTConfig(
            layers=c["num_layers"],
            heads=c["num_attention_heads"],
            head_dim=c["attention_head_dim"],
            latent_channels=c["in_channels"],
            text_width=c["joint_attention_dim"],
            pooled_width=c["pooled_projection_dim"],
            dual=tuple(c["dual_attention_layers"]),
            temporal=tuple(c["temporal_block_layers"]),
            crossview=tuple(c["crossview_block_layers"]),
            stages=len(adapter["channels"]),
            resnets=adapter["num_res_blocks"],
            image_channels=adapter["in_channels"],
            position_grid=c["pos_embed_max_size"],
            position_base=c["sample_size"] // c["patch_size"],
        )

    @cached_property
    def dit(self) -> DiT:
        """All of the official weights are used but those of the adapter, and of a text that nothing asks for."""
        dit = DiT(self.config)
        of_dit = {key: value for key, value in self.weights.items() if not key.startswith(ADAPTER)}
        missing, unused = dit.load_state_dict(of_dit, strict=False)
        last = f"transformer_blocks.{self.config.layers - 1}.attn"
        assert not missing and set(unused) == {
            f"{last}.add_q_proj.weight", f"{last}.add_q_proj.bias", f"{last}.norm_added_q.weight",
        }  # fmt: skip
        return dit.requires_grad_(False)

    @cached_property
    def adapter(self) -> ImageAdapter:
        adapter = ImageAdapter(self.config)
        of_adapter = {k.removeprefix(ADAPTER): v for k, v in self.weights.items() if k.startswith(ADAPTER)}
        adapter.load_state_dict(of_adapter)
        return adapter.requires_grad_(False)

    def case(self, name: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{name}."): v for k, v in self.tensors.items() if k.startswith(f"{name}.")}

    def image(self, name: str) -> Tensor:
        """Layout images (B, T, V, 6, H, W) float32."""
        image = self.case(name)["in.condition_image_u8"].float() / 255
        case = next(case for case in json.loads(self.metadata["cases"]) if case["name"] == name)
        if case.get("uncond_first"):
            image[0] = 0.1255
        return image

    def inputs(self, name: str) -> tuple[Tensor, ...]:
        """x, level, text, pooled, camera, residual, position, view as the denoiser takes them; residuals are golden."""
        case, stages = self.case(name), self.config.stages
        x = case["in.sample"].permute(0, 3, 1, 2, 4, 5)
        level = case["in.timestep"]
        residual = torch.stack([case[f"adapter_residual.{i}"] for i in range(stages)], dim=2)  # B T R V D h w
        frames, views = x.shape[2:4]
        return (
            x.contiguous(),
            level,
            case["in.encoder_hidden_states"],
            case["in.pooled_projections"],
            case["in.added_time_ids"],
            residual.flatten(5).transpose(4, 5).contiguous(),
            torch.arange(frames, dtype=torch.float32),
            torch.arange(views, dtype=torch.float32),
        )


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    kept: dict[str, Golden] = {}

    def opened(name: str) -> Golden:
        if name not in kept:
            kept[name] = Golden(name)
        return kept[name]

    return opened


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
