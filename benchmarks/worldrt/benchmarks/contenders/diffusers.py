"""diffusers in float32, eager or compiled: its text to image and then its video to world pipeline, on the same weights.

Two of its numbers are set to those of the official network: the epsilon of the QK norms (1e-6), and no frame rate in
the rotary embedding. Neither changes the amount of work. The mandatory guardrail is replaced by one that lets all pass.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from worldrt.benchmarks.contenders.base import Workload

CLEAN_SIGMA = 1e-4


class Clock:
    """Adds up the seconds spent in wrapped functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        return call


class Eager:
    def __init__(self, workload: Workload, checkpoint: Path, compiled: bool = False) -> None:
        self.workload = workload
        self.clock = Clock()
        diffusers, transformers = _packages()
        parts = {
            "vae": diffusers.AutoencoderKLWan.from_pretrained(checkpoint / "vae").float().eval(),
            "text_encoder": transformers.T5EncoderModel.from_pretrained(checkpoint / "text_encoder").float().eval(),
            "tokenizer": _tokenizer(checkpoint / "tokenizer"),
            "safety_checker": Guardrail(),
        }
        self.transformers = {task: _transformer(checkpoint / task, compiled) for task in ("text2image", "video2world")}
        self.image = diffusers.Cosmos2TextToImagePipeline(
            transformer=self.transformers["text2image"], scheduler=_scheduler(), **parts
        )
        self.video = diffusers.Cosmos2VideoToWorldPipeline(
            transformer=self.transformers["video2world"], scheduler=_scheduler(), **parts
        )
        for pipeline in (self.image, self.video):
            pipeline.set_progress_bar_config(disable=True)
        self._wrap(parts)

    def _wrap(self, parts: dict[str, Any]) -> None:
        wrapped = {
            "text": (parts["text_encoder"], "forward"),
            "image": (self.transformers["text2image"], "forward"),
            "video": (self.transformers["video2world"], "forward"),
            "encode": (parts["vae"], "encode"),
            "decode": (parts["vae"], "decode"),
        }
        for name, (module, method) in wrapped.items():
            setattr(module, method, self.clock.timed(name, getattr(module, method)))

    def round(self, index: int) -> dict[str, Any]:
        self.clock.seconds.clear()
        start = time.perf_counter()
        frames = self._run(index)
        whole, spent, steps = time.perf_counter() - start, self.clock.seconds, self.workload.steps
        seconds = {
            "text": spent["text"],
            "image step": spent["image"] / steps,
            "video step": spent["video"] / steps,
            "encode": spent["encode"],
            "decode": spent["decode"],
            "whole": whole,
        }
        return {"seconds": seconds, "frames": len(frames)}

    def frames(self, index: int, path: str) -> dict[str, Any]:
        frames = (self._run(index) * 255).round().astype(np.uint8)
        np.savez(path, frames=frames)
        return {"shape": frames.shape}

    def _run(self, index: int) -> np.ndarray[Any, Any]:
        """float32 (T, H, W, 3) in [0, 1]."""
        load = self.workload
        prompt, negative = load.prompt(index)
        generator = torch.Generator().manual_seed(index)
        common = {
            "prompt": prompt,
            "negative_prompt": negative,
            "num_inference_steps": load.steps,
            "max_sequence_length": load.text_tokens,
            "generator": generator,
        }
        picture = self.image(
            width=load.image_size[0], height=load.image_size[1], guidance_scale=load.image_guidance, **common
        ).images[0]
        result = self.video(
            image=picture,
            width=load.video_size[0],
            height=load.video_size[1],
            num_frames=load.num_frames,
            guidance_scale=load.video_guidance,
            output_type="np",
            **common,
        )
        frames: np.ndarray[Any, Any] = result.frames[0]
        return frames

    @torch.inference_mode()
    def denoise(self, task: str, given: str, path: str) -> dict[str, Any]:
        arrays = {name: torch.from_numpy(array) for name, array in np.load(given).items()}
        x, level = arrays["x"], arrays["level"]
        mask = arrays.get("mask")
        if mask is not None:
            level = torch.where(mask.bool(), CLEAN_SIGMA, level)
        t = (level / (level + 1))[:, None, :, None, None]
        scaled, extra = x * (1 - t), {}
        if mask is not None:
            mask = mask[:, None, :, None, None].expand(-1, 1, -1, *x.shape[3:])
            scaled = torch.where(mask.bool(), arrays["clean"], scaled)
            extra = {"condition_mask": mask}
        velocity = self.transformers[task](
            hidden_states=scaled,
            timestep=t if mask is not None else t[:, 0, 0, 0, 0],
            encoder_hidden_states=arrays["text"],
            padding_mask=torch.zeros(1, 1, 8 * x.shape[3], 8 * x.shape[4]),
            return_dict=False,
            **extra,
        )[0]
        x0 = x * (1 - t) - velocity * t
        if mask is not None:
            x0 = torch.where(mask.bool(), arrays["clean"], x0)
        np.savez(path, x0=x0.numpy())
        return {}


class Guardrail:
    """Lets every text and video pass."""

    def to(self, device: object) -> None:
        pass

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return frames


def _packages() -> tuple[Any, Any]:
    """diffusers and transformers, which are only typed in part."""
    return importlib.import_module("diffusers"), importlib.import_module("transformers")


def _transformer(folder: Path, compiled: bool) -> Any:
    model = _packages()[0].CosmosTransformer3DModel.from_pretrained(folder).float().eval()
    for block in model.transformer_blocks:
        for attention in (block.attn1, block.attn2):
            attention.norm_q.eps = attention.norm_k.eps = 1e-6
    forward: Any = torch.compile(model.forward) if compiled else model.forward

    def without_fps(*args: Any, fps: Any = None, **kwargs: Any) -> Any:
        return forward(*args, fps=None, **kwargs)

    model.forward = without_fps
    return model


def _scheduler() -> Any:
    """As the published checkpoints have it; the pipelines add their range of sigmas, 0.002 to 80, and how it ends."""
    return _packages()[0].FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)


def _tokenizer(folder: Path) -> Any:
    return _packages()[1].PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def _without_torchvision() -> None:
    """The transformer resizes its padding mask by torchvision, which is not needed otherwise; a twin where it lacks."""
    module: Any = importlib.import_module("diffusers.models.transformers.transformer_cosmos")
    if hasattr(module, "transforms"):
        return

    def resize(image: torch.Tensor, size: list[int], interpolation: str) -> torch.Tensor:
        return torch.nn.functional.interpolate(image, size=size, mode=interpolation)

    module.transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )


def open(workload: dict[str, Any], checkpoint: str, threads: int, compiled: bool = False) -> Eager:
    """Load the components of a diffusers-style folder with two transformers, which torch.compile compiles in the
    warm-up round where that is asked for."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    _without_torchvision()
    return Eager(Workload(**workload), Path(checkpoint), compiled)
