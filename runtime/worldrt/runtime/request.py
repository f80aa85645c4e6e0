"""What a user asks for, and what it comes to for one model: checked numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log

import numpy as np

from worldrt.engine.bundle import Denoiser
from worldrt.engine.errors import InputError
from worldrt.runtime import samplers
from worldrt.runtime.edit import check_strength, edited
from worldrt.runtime.noise import check_seed
from worldrt.runtime.samplers import DISTILLED
from worldrt.runtime.shortcuts import Shortcuts

DEFAULT_ASPECT_RATIO = "16:9"
DEFAULT_RESOLUTION = "720"
DEFAULT_FPS = 16
LATENT_BYTES_PER_PIXEL = 2  # of noise, state and prediction, where 16 channels stand for 4 frames of 8x8 pixels
ANY = "any"  # the key of a model that has one resolution


@dataclass(frozen=True)
class Request:
    """One picture or clip. None leaves a choice to the model.

    `resolution`, `fps`, `num_frames`, `width`, `height` and `guidance` are those of the video where text becomes a
    video; the picture before it has the model's own size and guidance. `num_frames` is 4 k + 1. `negative_prompt` None
    is the default text of video, and no text for a picture alone. Sizes in pixels.

    A film of `num_chunks` clips of `num_frames` frames: each goes on from the last `num_overlap_frames` of the one
    before it (as many as were given, by default), which it takes over as `latents` or as `frames`. `chunk_prompts` are
    one for each chunk, or none. `edit_strength`, from 0 to 1, is how much of a given clip or picture may change, and
    `picture_edit_strength` that of the picture before a video.

    `distill_steps` samples the picture in so many steps of a distilled model, 0 as the model says. `step_cache`,
    `guidance_interval` and `adaptive_guidance` are `Shortcuts`, of the picture and of the video.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    sigma_max: float | None = None
    sigma_min: float | None = None
    resolution: str | None = None
    aspect_ratio: str | None = None
    fps: int | None = None
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    num_chunks: int = 1
    chunk_prompts: tuple[str, ...] = ()
    num_overlap_frames: int | None = None
    hand_over: str = "latents"
    edit_strength: float | None = None
    picture_edit_strength: float | None = None
    distill_steps: int = 0
    step_cache: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    adaptive_guidance: float | None = None

    def __post_init__(self) -> None:
        """Numbers of NumPy and lists as a sidecar has them."""
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
            elif isinstance(value, list):
                object.__setattr__(self, name, tuple(value))


@dataclass(frozen=True)
class Settings:
    """A request in numbers for one model. `guidance` g is that of x0 = c + g (c - u). `num_frames` are those of one
    chunk, of which there are `num_chunks`."""

    width: int
    height: int
    fps: int
    num_frames: int
    guidance: float
    sampler: str
    steps: int
    sigma_max: float
    sigma_min: float
    order: float
    num_chunks: int = 1
    num_overlap_frames: int = 0
    edit_strength: float | None = None
    shortcuts: Shortcuts = field(default_factory=Shortcuts)

    @property
    def total_frames(self) -> int:
        """Frames of the result: those that two chunks share are there once."""
        return self.num_frames + (self.num_chunks - 1) * (self.num_frames - self.num_overlap_frames)

    def table(self) -> samplers.SamplerTable:
        whole = samplers.table(self.sampler, self.steps, self.sigma_max, self.sigma_min, self.order)
        return whole if self.edit_strength is None else edited(whole, self.steps, self.edit_strength)


def image_settings(request: Request, spec: Denoiser, *, own_size: bool) -> Settings:
    """For a picture. `own_size`: the request's size and guidance are meant for this model, not for a later one.

    Raises `InputError`.
    """
    if own_size:
        size, guidance = _size(request, spec), request.guidance
    else:
        size, guidance = spec_size(spec, _aspect_ratio(request, spec), None), None
        if spec.sampler.kind == DISTILLED:  # steps and solver of the request are those of the video
            request = replace(request, sampler=None, steps=None, sigma_max=None)
    if request.distill_steps:
        request = replace(request, sampler=DISTILLED, steps=request.distill_steps)
    if (request.sampler or spec.sampler.kind) == DISTILLED and guidance is None:
        guidance = 0.0 if spec.guidance.convention == "delta" else 1.0  # the teacher's guidance is in the weights
    return _settings(request, spec, size, fps=1, num_frames=1, guidance=guidance)


def video_settings(request: Request, spec: Denoiser, *, temporal: int, clean_frames: int) -> Settings:
    """For a clip that starts with `clean_frames` given frames. Raises `InputError`."""
    fps = _fps(request, spec.frames)
    num_frames = request.num_frames if request.num_frames is not None else spec.frames[str(fps)]
    if num_frames < 1 or (num_frames - 1) % temporal:
        below = max(clean_frames, num_frames - 1) // temporal * temporal + 1
        near = f"{below} or {below + temporal}" if below > clean_frames else str(below + temporal)
        raise InputError(
            f"num_frames: expected 1 more than a multiple of {temporal}, got {num_frames}; {near} would do"
        )
    if num_frames <= clean_frames:
        raise InputError(
            f"num_frames: expected more than the {clean_frames} given frame(s), got {num_frames}; "
            f"{clean_frames + temporal} would do"
        )
    return _settings(request, spec, _size(request, spec), fps=fps, num_frames=num_frames, guidance=request.guidance)


def _settings(
    request: Request, spec: Denoiser, size: tuple[int, int], *, fps: int, num_frames: int, guidance: float | None
) -> Settings:
    """Raises `InputError` for texts, a seed, a size or sampler numbers that cannot be used."""
    if not request.prompt.strip():
        raise InputError('prompt: it is empty; say what the video shows, with --prompt "..."')
    check_text("prompt", request.prompt)
    check_text("negative_prompt", request.negative_prompt or "")
    check_strength(request.edit_strength)
    if spec.sparse is not None:
        _check_sparse(spec, size, num_frames)
    check_seed(request.seed)
    _check_memory(*size, num_frames)
    sampler = spec.sampler
    settings = Settings(
        *size,
        fps=fps,
        num_frames=num_frames,
        guidance=_delta(spec, guidance),
        sampler=request.sampler or sampler.kind,
        steps=sampler.steps if request.steps is None else request.steps,
        sigma_max=sampler.sigma_max if request.sigma_max is None else request.sigma_max,
        sigma_min=sampler.sigma_min if request.sigma_min is None else request.sigma_min,
        order=sampler.order,
        edit_strength=request.edit_strength,
        shortcuts=Shortcuts(request.step_cache, request.guidance_interval, request.adaptive_guidance),
    )
    settings.table()  # refuses numbers that cannot be used
    return settings


def check_text(name: str, text: str) -> None:
    """Raises `InputError` for a text that no tokenizer can read."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{name}: it is not UTF-8 text, or holds a character 0; write it as UTF-8")


def _check_sparse(spec: Denoiser, size: tuple[int, int], num_frames: int) -> None:
    """Raises `InputError` for what the windows of a sparse model are not made for."""
    width, height = spec.first_size
    if size != (width, height):
        raise InputError(
            f"{size[0]}x{size[1]}: a sparse model has windows for {width}x{height} alone; leave the size out, or take "
            "the dense model, without --natten"
        )
    if num_frames == 1:
        raise InputError("num_frames: a sparse model makes clips, got 1 frame; take the dense model, without --natten")


def _check_memory(width: int, height: int, num_frames: int) -> None:
    """Raises `InputError` for a clip whose latents alone do not fit: better than being killed in the middle."""
    needed, present = width * height * num_frames * LATENT_BYTES_PER_PIXEL, memory_bytes()
    if present is not None and needed > present:
        raise InputError(
            f"{num_frames} frame(s) of {width}x{height} need at least {needed / 1e9:.1f} GB of memory, "
            f"and this machine has {present / 1e9:.1f}; ask for a smaller size or fewer frames"
        )


def memory_bytes() -> int | None:
    """Physical memory of this machine, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _delta(spec: Denoiser, scale: float | None) -> float:
    """Guidance scale of the model's own convention as g of c + g (c - u); u + s (c - u) is g = s - 1."""
    scale = spec.guidance.scale if scale is None else scale
    if not -1e4 < scale < 1e4:
        raise InputError(f"guidance: expected a number such as {spec.guidance.scale:g}, got {scale}")
    return scale if spec.guidance.convention == "delta" else scale - 1


def _size(request: Request, spec: Denoiser) -> tuple[int, int]:
    """Width and height: given, or from the model's table."""
    if (request.width is None) != (request.height is None):
        raise InputError("width and height: give both, or neither")
    if request.width is None or request.height is None:
        return spec_size(spec, _aspect_ratio(request, spec), request.resolution)
    for name, value in (("width", request.width), ("height", request.height)):
        multiple = spec.size_multiple_px
        if value < multiple or value % multiple:
            near = max(multiple, round(value / multiple) * multiple)
            raise InputError(f"{name}: expected a multiple of {multiple} pixels, got {value}; {near} would do")
    return request.width, request.height


def spec_size(spec: Denoiser, aspect_ratio: str, resolution: str | None) -> tuple[int, int]:
    """Width and height from a model's table. Raises `InputError` for a resolution or aspect ratio not in it."""
    if resolution is not None and resolution not in spec.sizes:
        known = ", ".join(key for key in spec.sizes if key != ANY) or "a single one: leave --resolution out"
        raise InputError(f"resolution '{resolution}': this model has {known}")
    by_default = DEFAULT_RESOLUTION if DEFAULT_RESOLUTION in spec.sizes else next(iter(spec.sizes))
    table = spec.sizes[resolution or by_default]
    if aspect_ratio not in table:
        raise InputError(f"aspect_ratio '{aspect_ratio}': expected one of {', '.join(table)}")
    return table[aspect_ratio]


def _aspect_ratio(request: Request, spec: Denoiser) -> str:
    """The one asked for, else that of the model's table which is nearest to the given width and height, else 16:9."""
    given = (request.width or 0) > 0 and (request.height or 0) > 0
    if request.aspect_ratio is not None or not given:
        return request.aspect_ratio or DEFAULT_ASPECT_RATIO
    assert request.width and request.height
    wanted = log(request.width) - log(request.height)
    table = next(iter(spec.sizes.values()))
    return min(table, key=lambda ratio: abs(log(table[ratio][0] / table[ratio][1]) - wanted))


def _fps(request: Request, frames: Mapping[str, int]) -> int:
    if request.fps is None:
        return DEFAULT_FPS if str(DEFAULT_FPS) in frames else int(next(iter(frames)))
    if str(request.fps) not in frames:
        raise InputError(f"fps: expected {' or '.join(frames)} frames per second for this model, got {request.fps}")
    return request.fps
