"""A video that goes on from given frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.images import cover
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Float32, Frame, Pipeline, encode_texts, sample_clip
from worldrt.runtime.request import Request, Settings, video_settings

TASK = "video2world"
CONDITIONS = ("clean", "mask")

DEFAULT_NEGATIVE_PROMPT = (
    "Blurred, noisy, badly exposed footage with compression blocks; shaking camera, stutter, flicker, abrupt cuts; "
    "objects that melt or pass through each other, deformed bodies and faces, weightless motion; flat light, "
    "plastic textures, text, logos, like an old computer game."
)


class Video2World(Pipeline):
    """`for frame in world(Request(prompt="..."), frames): ...`"""

    def settings(self, request: Request, given_frames: int = 1) -> Settings:
        """What the request comes to when it starts from `given_frames` frames.

        Raises what stands in its way, before any graph is loaded.
        """
        temporal = self.models.vae(TASK).spec.temporal
        if given_frames < 1 or (given_frames - 1) % temporal:
            raise InputError(f"frames: expected 1 more than a multiple of {temporal} given frames, got {given_frames}")
        spec = self.models.opener(TASK).bundle.manifest.denoisers[TASK]
        settings = video_settings(request, spec, temporal=temporal, clean_frames=given_frames)
        self.models.check(TASK, [request.prompt, negative_text(request)], CONDITIONS)
        return settings

    def __call__(self, request: Request, frames: Frame, observer: Observer | None = None) -> Iterator[Frame]:
        """Yield uint8 RGB (H, W, 3) frames as they are decoded, the given ones first (they pass through the VAE too).
        A bundle that was exported so gives planes, as `VaeCodec.decode`.

        `frames`: one picture (h, w, 3) or 4 k + 1 frames (t, h, w, 3), uint8 RGB of any size; they are scaled to cover
        the video and cut at the centre. Raises `InputError`, before any work.
        """
        given = frames[None] if frames.ndim == 3 else frames
        if given.ndim != 4 or given.shape[-1] != 3 or given.dtype != np.uint8:
            raise InputError(f"frames: expected uint8 RGB (t, h, w, 3), got {frames.dtype}{list(frames.shape)}")
        settings = self.settings(request, len(given))
        return self._run(request, settings, cover(given, settings.width, settings.height), observer or Observer())

    def _run(self, request: Request, settings: Settings, given: Frame, observer: Observer) -> Iterator[Frame]:
        negative = negative_text(request)
        if negative == request.prompt and settings.guidance:
            observer.warn("the negative prompt is empty, or the prompt itself: guidance has no effect on the video")
        texts = encode_texts(self.models, TASK, request.prompt, negative, observer)
        with observer.stage(f"{TASK}: load"):
            vae = self.models.vae(TASK)
            self.models.with_room(TASK, "vae", lambda: vae.load("encode"))
        with observer.stage(f"{TASK}: encode"):
            clean, mask = _clean(vae.encode(given), vae.latent_frames(settings.num_frames))
        conditions = {"clean": clean, "mask": mask}
        latents = sample_clip(self.models, TASK, settings, request.seed, texts, conditions, observer)
        stage = f"{TASK}: decode"
        observer.progress(stage, 0, settings.num_frames)
        with observer.stage(f"{TASK}: load"):
            self.models.with_room(TASK, "vae", lambda: vae.load("decode"))
        decoded = vae.decode(latents)
        for done in range(1, settings.num_frames + 1):
            with observer.stage(stage):
                frame = next(decoded)
            yield frame
            observer.progress(stage, done, settings.num_frames)


def negative_text(request: Request) -> str:
    """The default where none is given; the prompt itself where it is empty, as the official code does."""
    if request.negative_prompt is None:
        return DEFAULT_NEGATIVE_PROMPT
    return request.negative_prompt if request.negative_prompt.strip() else request.prompt


def _clean(latents: Float32, frames: int) -> tuple[Float32, Float32]:
    """Clean latents (1, C, T, h, w), zero after the given ones, and their mask (1, T)."""
    _, channels, known, height, width = latents.shape
    clean = np.zeros((1, channels, frames, height, width), np.float32)
    mask = np.zeros((1, frames), np.float32)
    clean[:, :, :known], mask[:, :known] = latents, 1
    return clean, mask
