"""A picture from a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from worldrt.engine.errors import InputError
from worldrt.runtime.images import cover
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Float32, Frame, Pipeline, encode_texts, sample_clip
from worldrt.runtime.pipelines.given import as_clip, check_edit
from worldrt.runtime.pipelines.together import decoded, picture_latents, same_settings
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

    def __call__(
        self,
        request: Request,
        observer: Observer | None = None,
        *,
        own_size: bool = True,
        edit: Frame | None = None,
    ) -> Frame:
        """uint8 RGB (H, W, 3). Raises `InputError`.

        Without a negative prompt the unconditional text is all zeros, as the model was trained. `edit` is the picture
        that `edit_strength` is about, uint8 RGB (h, w, 3) of any size; it is scaled to cover and cut at the centre.
        """
        observer, settings = observer or Observer(), self.settings(request, own_size=own_size)
        check_edit(request.edit_strength, edit)
        self.check_prompts(request)
        given = None if edit is None else cover(as_clip("edit", edit)[:1], settings.width, settings.height)
        texts = encode_texts(self.models, TASK, request.prompt, request.negative_prompt or None, observer)
        start = None if given is None else self._encoded(given, observer)
        latents = sample_clip(self.models, TASK, settings, request.seed, texts, {}, observer, start)
        vae = self.models.vae(TASK)
        with observer.stage(f"{TASK}: load"):
            self.models.with_room(TASK, "vae", lambda: vae.load("decode"))
        with observer.stage(f"{TASK}: decode"):
            picture = next(vae.decode(latents))
        (passed,) = self.watched(TASK, iter([picture]), observer)
        return passed

    def many(
        self, requests: Sequence[Request], observer: Observer | None = None, *, own_size: bool = True
    ) -> list[Frame]:
        """Pictures of requests with equal settings, in one call of the denoiser for each step, each with its own seed:
        those of calls one by one, within the rounding of floats. Raises `InputError`."""
        observer = observer or Observer()
        settings = same_settings(requests, (self.settings(request, own_size=own_size) for request in requests))
        for request in requests:
            self.check_prompts(request)
        negatives = [request.negative_prompt or None for request in requests]
        latents = picture_latents(self.models, TASK, settings, requests, negatives, observer)
        made = (decoded(self.models, TASK, latents[i : i + 1], observer) for i in range(len(requests)))
        return [frame for frames in made for frame in self.watched(TASK, frames, observer)]

    def _encoded(self, picture: Frame, observer: Observer) -> Float32:
        vae = self.models.vae(TASK)
        with observer.stage(f"{TASK}: load"):
            self.models.with_room(TASK, "vae", lambda: vae.load("encode"))
        with observer.stage(f"{TASK}: encode"):
            return vae.encode(picture)
