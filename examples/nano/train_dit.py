"""Trains the text encoder and both diffusion transformers (text2image, video2world) on encoded scenes.

python examples/nano/train_dit.py --latents runs/latents --out runs/dit      # resumes where it was stopped

Rectified flow with a velocity loss. The level is one for a whole clip, or one for each latent, so that first latents
may be clean (video2world), and any level may meet any other (queues; diffusion forcing, arXiv 2407.01392).
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.onnx.ops
from scene import sample
from torch import Tensor, nn
from training import Run

from worldrt.export.families.cosmos.denoiser import precondition
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import variant
from worldrt.export.modules.nano_tokenizer import train as make_tokenizer
from worldrt.export.modules.t5 import T5Encoder

CLIP = 5
NO_TEXT = 0.1
"""Share of clips that are trained without their caption, for guidance."""


class Models(nn.Module):
    """All that is trained together: the two transformers learn to read what one text encoder says."""

    def __init__(self) -> None:
        super().__init__()
        image, video = variant("nano", "text2image"), variant("nano", "video2world")
        self.text, self.image, self.video = T5Encoder(image.t5), DiT(image.dit), DiT(video.dit)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1.0 if module is self.text.embedding else 0.02)
        for dit in (self.image, self.video):
            nn.init.zeros_(dit.final.linear.weight)
            for name, parameter in dit.named_parameters():
                if name.endswith("modulation.up.weight"):
                    nn.init.zeros_(parameter)

    @cached_property
    def tokens(self) -> int:
        return variant("nano", "text2image").t5.tokens


class Clips:
    """Encoded scenes and their captions as token ids, by number."""

    def __init__(self, folder: Path) -> None:
        self.shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
        self.size = len(self.shards[0])
        self._tokenizer = make_tokenizer(variant("nano", "text2image").t5.vocabulary)

    def __len__(self) -> int:
        return len(self.shards) * self.size

    def latents(self, number: int, start: int, count: int) -> Tensor:
        shard = self.shards[number // self.size]
        return torch.from_numpy(shard[number % self.size][:, start : start + count].astype(np.float32))

    def ids(self, number: int, start: int, count: int) -> list[int]:
        """The caption says what is done in the latents that are shown."""
        scene = sample(number, self.shards[0].shape[2])
        shown = type(scene)(**vars(scene) | {"actions": scene.actions[start : start + count]})
        found: list[int] = self._tokenizer.encode(shown.caption).ids
        return found


def teach_rotary_gradient() -> None:
    """The operator that exports as RotaryEmbedding has no gradient: it is the turn back."""

    def keep(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    def back(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return torch.onnx.ops.rotary_embedding(gradient.contiguous(), cos, -sin), None, None, None

    torch.library.register_autograd("onnx::RotaryEmbedding.opset23", back, setup_context=keep)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--latents", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--steps", type=int, default=30000)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rate", type=float, default=1e-3)
    args = p.parse_args()
    torch.manual_seed(0)
    teach_rotary_gradient()
    models, clips = Models(), Clips(args.latents)
    run = Run(args.out, models, steps=args.steps, rate=args.rate)
    run.train(lambda step: loss_of(models, clips, step, args.batch))


def loss_of(models: Models, clips: Clips, step: int, batch: int) -> tuple[Tensor, dict[str, float]]:
    """The sum of both transformers' losses on one batch."""
    rng, torch_rng = np.random.default_rng([step, 4]), torch.Generator().manual_seed(step)
    numbers = rng.integers(len(clips), size=batch)
    starts = np.where(rng.random(batch) < 0.75, 0, rng.integers(1, 5, size=batch))
    x0 = torch.stack([clips.latents(int(n), int(s), CLIP) for n, s in zip(numbers, starts, strict=True)])
    text = read(models, [clips.ids(int(n), int(s), CLIP) for n, s in zip(numbers, starts, strict=True)])
    text = text * (torch.rand(batch, 1, 1, generator=torch_rng) >= NO_TEXT)
    video = flow_loss(models.video, x0, text, levels(rng, batch, CLIP), known(rng, batch, CLIP), torch_rng)
    pictures = torch.from_numpy(starts == 0)  # the first latent of a clip is a picture, others are movements
    image = flow_loss(
        models.image, x0[pictures, :, :1], text[pictures], levels(rng, int(pictures.sum()), 1), None, torch_rng
    )
    return video + image, {"video": video.item(), "image": image.item()}


def read(models: Models, prompts: list[list[int]]) -> Tensor:
    """Text rows (B, tokens, width), zero behind each prompt, as the runtime gives them."""
    longest = max(map(len, prompts))
    ids, mask = (torch.zeros(len(prompts), longest, dtype=d) for d in (torch.int64, torch.float32))
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    rows = models.text(ids, mask)
    return nn.functional.pad(rows, (0, 0, 0, models.tokens - longest))


def levels(rng: np.random.Generator, batch: int, frames: int) -> Tensor:
    """Sigmas (B, T): logit-normal t, leaning to noise; the same in a clip, rising along it, or independent."""
    one = rng.normal(0.6, 1.2, size=(batch, 1)) + np.zeros((1, frames))
    each = rng.normal(0.6, 1.4, size=(batch, frames))
    kind = rng.random((batch, 1))
    logit = np.where(kind < 0.6, one, np.where(kind < 0.8, np.sort(each, axis=1), each))
    return torch.from_numpy(np.exp(np.clip(logit, -6, 4.4))).float()  # sigma = t / (1 - t)


def known(rng: np.random.Generator, batch: int, frames: int) -> Tensor:
    """(B, T): 1 on latents that are given. None, one or two first ones."""
    count = rng.choice([0, 1, 1, 2], size=(batch, 1))
    return torch.from_numpy((np.arange(frames)[None] < count).astype(np.float32))


def flow_loss(dit: DiT, x0: Tensor, text: Tensor, sigma: Tensor, mask: Tensor | None, rng: torch.Generator) -> Tensor:
    """Mean squared error of the velocity noise - x0 on latents that are not given."""
    noise = torch.randn(x0.shape, generator=rng)
    x = x0 + noise * sigma[:, None, :, None, None]
    scaled, t = precondition(x, sigma, None if mask is None else x0, mask)
    position = torch.arange(x0.shape[2], dtype=torch.float32)
    velocity = dit(scaled, t, text, position, mask)
    weight = torch.ones_like(sigma) if mask is None else 1 - mask
    error = ((velocity - (noise - x0)) ** 2).mean((1, 3, 4))
    loss: Tensor = (error * weight).sum() / weight.sum().clamp_min(1)
    return loss


if __name__ == "__main__":
    main()
