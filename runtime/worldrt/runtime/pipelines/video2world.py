"""A video that goes on from given frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from worldrt.engine.errors import InputError
from worldrt.runtime.images import cover
from worldrt.runtime.keep import Keep
from worldrt.runtime.long import chunked, prompts_of
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Frame, Pipeline
from worldrt.runtime.pipelines.chunks import Chunks
from worldrt.runtime.pipelines.given import as_clip, check_edit, of_length
from worldrt.runtime.pipelines.together import decoded, same_settings, video_latents
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
        vae = self.models.vae(TASK).spec
        temporal = vae.temporal
        if given_frames < 1 or (given_frames - 1) % temporal:
            raise InputError(f"frames: expected 1 more than a multiple of {temporal} given frames, got {given_frames}")
        spec = self.models.opener(TASK).bundle.manifest.denoisers[TASK]
        settings = video_settings(request, spec, temporal=temporal, clean_frames=given_frames)
        settings = chunked(settings, request, given_frames, temporal=temporal)
        if settings.num_chunks > 1 and request.hand_over == "frames" and vae.pixel_format != "rgb24":
            raise InputError(
                f"hand_over: frames that are encoded again are RGB, and this bundle gives {vae.pixel_format}; hand "
                "over latents, or export a bundle with rgb24 frames"
            )
        self.models.check(TASK, [*prompts_of(request), negative_text(request)], CONDITIONS)
        return settings

    def __call__(
        self,
        request: Request,
        frames: Frame,
        observer: Observer | None = None,
        *,
        edit: Frame | None = None,
        keep: Keep | None = None,
    ) -> Iterator[Frame]:
        """Yield uint8 RGB (H, W, 3) frames as they are decoded, the given ones first (they pass through the VAE too).
        A bundle that was exported so gives planes, as `VaeCodec.decode`.

        `frames`: one picture (h, w, 3) or 4 k + 1 frames (t, h, w, 3), uint8 RGB of any size; they are scaled to cover
        the video and cut at the centre. `edit` is the clip that `edit_strength` is about, in the same form; its first
        frames are taken, and the last one again and again where it is too short. `keep` is asked for chunks that are
        finished, and given those that are. Raises `InputError`, before any work.
        """
        given = as_clip("frames", frames)
        settings = self.settings(request, len(given))
        check_edit(request.edit_strength, edit)
        self.check_prompts(request)
        size, observer = (settings.width, settings.height), observer or Observer()
        if edit is not None:
            edit = cover(of_length(as_clip("edit", edit), settings.num_frames, observer), *size)
        chunks = Chunks(
            self.models, TASK, request, settings, cover(given, *size), edit, negative_text, observer, keep or Keep()
        )
        return self.watched(TASK, self._run(chunks), observer)

    def many(
        self, requests: Sequence[Request], frames: Sequence[Frame], observer: Observer | None = None
    ) -> list[Iterator[Frame]]:
        """The frames of several clips with equal settings, each going on from frames of its own and with its own seed:
        those of calls one by one, within the rounding of floats. They are sampled now, in one call of the denoiser for
        each step, and decoded one after another. Raises `InputError`."""
        observer = observer or Observer()
        known = (len(as_clip("frames", given)) for given in frames)
        settings = same_settings(requests, (self.settings(r, count) for r, count in zip(requests, known, strict=True)))
        for request in requests:
            self.check_prompts(request)
        negatives = [negative_text(request) for request in requests]
        latents = video_latents(self.models, TASK, settings, requests, negatives, frames, observer)
        made = (decoded(self.models, TASK, latents[i : i + 1], observer) for i in range(len(requests)))
        return [self.watched(TASK, clip, observer) for clip in made]

    def _run(self, chunks: Chunks) -> Iterator[Frame]:
        if negative_text(chunks.request) == chunks.request.prompt and chunks.settings.guidance:
            chunks.observer.warn(
                "the negative prompt is empty, or the prompt itself: guidance has no effect on the video"
            )
        yield from chunks.frames()


def negative_text(request: Request) -> str:
    """The default where none is given; the prompt itself where it is empty, as the official code does."""
    if request.negative_prompt is None:
        return DEFAULT_NEGATIVE_PROMPT
    return request.negative_prompt if request.negative_prompt.strip() else request.prompt
