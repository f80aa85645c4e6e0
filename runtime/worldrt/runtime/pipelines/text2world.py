"""A video from a prompt: a picture first, then the video that goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from worldrt.runtime.keep import Keep
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Frame, Pipeline
from worldrt.runtime.pipelines.given import as_clip, check_edit
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT, Video2World
from worldrt.runtime.request import Request, Settings


class Text2World(Pipeline):
    """`with Text2World.open(folder) as world:` then `for frame in world(Request(prompt="...")): ...`

    Bundles may hold both models, or one each: `Text2World.open(images, videos)`.
    """

    def settings(self, request: Request) -> dict[str, Settings]:
        """What the request comes to, by task; raises `InputError`."""
        image = Text2Image(self.models).settings(self._of_image(request), own_size=False)
        return {"text2image": image, "video2world": Video2World(self.models).settings(request)}

    def __call__(
        self,
        request: Request,
        observer: Observer | None = None,
        refine: Callable[[Frame], Request] | None = None,
        *,
        edit: Frame | None = None,
        keep: Keep | None = None,
    ) -> Iterator[Frame]:
        """Yield uint8 RGB (H, W, 3) frames as they are decoded. Raises `InputError`, before any work.

        The picture goes to the video model as it is, without a lossy file between; where sizes differ it is scaled to
        cover the video and cut at the centre. `refine` is shown it, and gives the request of the video. `edit` is a
        clip: `picture_edit_strength` is about its first frame, `edit_strength` about all of it. `keep` as for
        `Video2World`; the picture is kept too.
        """
        self.settings(request)
        check_edit(request.edit_strength or request.picture_edit_strength, edit)
        self.check_prompts(request)
        clip, observer = None if edit is None else as_clip("edit", edit), observer or Observer()
        frames = self._run(request, observer, refine or (lambda picture: request), clip, keep or Keep())
        return self.watched("video2world", frames, observer)

    def _run(
        self, request: Request, observer: Observer, refine: Callable[[Frame], Request], edit: Frame | None, keep: Keep
    ) -> Iterator[Frame]:
        picture = keep.load("picture")
        if picture is None:
            first = None if request.picture_edit_strength is None else edit
            picture = Text2Image(self.models)(self._of_image(request), observer, own_size=False, edit=first)
            keep.save("picture", picture)
        clip = None if request.edit_strength is None else edit
        refined = refine(picture)
        if refined != request:
            self.check_prompts(refined, "refined prompt")
        yield from Video2World(self.models)(refined, picture, observer, edit=clip, keep=keep)

    def many(
        self,
        requests: Sequence[Request],
        observer: Observer | None = None,
        refine: Callable[[Request, Frame], Request] | None = None,
    ) -> list[Iterator[Frame]]:
        """The frames of several videos with equal settings, as `Video2World.many`; their pictures are made together,
        too. `refine` is shown each request with its picture, and gives the request of the video."""
        observer = observer or Observer()
        for request in requests:
            self.settings(request)
            self.check_prompts(request)
        images = [self._of_image(request) for request in requests]
        pictures = Text2Image(self.models).many(images, observer, own_size=False)
        refined = [refine(r, p) if refine else r for r, p in zip(requests, pictures, strict=True)]
        for request in (new for new, old in zip(refined, requests, strict=True) if new != old):
            self.check_prompts(request, "refined prompt")
        clips = Video2World(self.models).many(refined, pictures, observer)
        return [self.watched("video2world", frames, observer) for frames in clips]

    def _of_image(self, request: Request) -> Request:
        """The picture is guided away from the same text as the video, and has a strength of its own."""
        negative = DEFAULT_NEGATIVE_PROMPT if request.negative_prompt is None else request.negative_prompt
        return replace(request, negative_prompt=negative, edit_strength=request.picture_edit_strength)
