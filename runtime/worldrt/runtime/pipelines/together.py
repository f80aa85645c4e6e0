"""Several clips of one task in one call of the denoiser for each row of the sampler's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from worldrt.engine.errors import InputError
from worldrt.runtime.clips import Clip, sample_clips
from worldrt.runtime.images import cover
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.base import Float32, Frame, encode_all
from worldrt.runtime.pipelines.chunks import known_frames
from worldrt.runtime.pipelines.given import as_clip
from worldrt.runtime.request import Request, Settings


def same_settings(requests: Sequence[Request], settings: Iterable[Settings]) -> Settings:
    """The settings of requests that are made together. Raises `InputError` where they differ, where there are none, or
    for an edit or a film in chunks, which are made one at a time."""
    if not requests:
        raise InputError("requests: expected at least one, got none")
    if any(request.edit_strength is not None or request.num_chunks > 1 for request in requests):
        raise InputError("requests: edits and films in chunks are made one at a time; leave --batch_size out")
    first, *others = settings
    for other in others:
        if other != first:
            raise InputError(f"requests: expected equal sizes and samplers to make them together, got {first}, {other}")
    return first


def picture_latents(
    models: Models,
    task: str,
    settings: Settings,
    requests: Sequence[Request],
    negatives: Sequence[str | None],
    observer: Observer,
) -> Float32:
    """Latents (N, C, 1, h, w) of pictures."""
    texts = encode_all(models, task, [(r.prompt, n) for r, n in zip(requests, negatives, strict=True)], observer)
    clips = [Clip(request.seed, rows, {}) for request, rows in zip(requests, texts, strict=True)]
    return sample_clips(models, task, settings, clips, observer)


def video_latents(
    models: Models,
    task: str,
    settings: Settings,
    requests: Sequence[Request],
    negatives: Sequence[str],
    frames: Sequence[Frame],
    observer: Observer,
) -> Float32:
    """Latents (N, C, T, h, w) of clips that go on from frames uint8 RGB (t, h, w, 3) of any size."""
    texts = encode_all(models, task, [(r.prompt, n) for r, n in zip(requests, negatives, strict=True)], observer)
    with observer.stage(f"{task}: load"):
        vae = models.vae(task)
        models.with_room(task, "vae", lambda: vae.load("encode"))
    clips, length = [], vae.latent_frames(settings.num_frames)
    for request, rows, given in zip(requests, texts, frames, strict=True):
        with observer.stage(f"{task}: encode"):
            known = vae.encode(cover(as_clip("frames", given), settings.width, settings.height))
        clips.append(Clip(request.seed, rows, known_frames(known, length)))
    return sample_clips(models, task, settings, clips, observer)


def decoded(models: Models, task: str, latents: Float32, observer: Observer) -> Iterator[Frame]:
    """The frames of one clip's latents (1, C, T, h, w) as they are decoded."""
    stage, vae = f"{task}: decode", models.vae(task)
    total = 1 + (latents.shape[2] - 1) * vae.spec.temporal
    observer.progress(stage, 0, total)
    with observer.stage(f"{task}: load"):
        models.with_room(task, "vae", lambda: vae.load("decode"))
    frames = vae.decode(latents)
    for done in range(1, total + 1):
        with observer.stage(stage):
            frame = next(frames)
        yield frame
        observer.progress(stage, done, total)
