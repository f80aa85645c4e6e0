"""A picture from a prompt."""

from __future__ import annotations

from worldrt.engine.errors import InputError
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Frame, Pipeline, encode_texts, sample_clip
from worldrt.runtime.request import Request, Settings, image_settings

TASK = "text2image"


class Text2Image(Pipeline):
    """`with Text2Image.open(folder) as draw: picture = draw(Request(prompt="..."))`"""

    def settings(self, request: Request, *, own_size: bool = True) -> Settings:
        """What the request comes to. Raises what stands in its way, before any graph is loaded.

        `own_size` as for `image_settings`.
        """
        pixels = self.models.vae(TASK).spec.pixel_format
        if pixels != "rgb24":
            raise InputError(
                f"{TASK}: a picture wants RGB, and this bundle gives {pixels}; export one with rgb24 frames"
            )
        settings = image_settings(request, self.models.opener(TASK).bundle.manifest.denoisers[TASK], own_size=own_size)
        self.models.check(TASK, [request.prompt, request.negative_prompt or ""])
        return settings

    def __call__(self, request: Request, observer: Observer | None = None, *, own_size: bool = True) -> Frame:
        """uint8 RGB (H, W, 3). Raises `InputError`.

        Without a negative prompt the unconditional text is all zeros, as the model was trained.
        """
        observer, settings = observer or Observer(), self.settings(request, own_size=own_size)
        texts = encode_texts(self.models, TASK, request.prompt, request.negative_prompt or None, observer)
        latents = sample_clip(self.models, TASK, settings, request.seed, texts, {}, observer)
        vae = self.models.vae(TASK)
        with observer.stage(f"{TASK}: load"):
            self.models.with_room(TASK, "vae", lambda: vae.load("decode"))
        with observer.stage(f"{TASK}: decode"):
            return next(vae.decode(latents))
