"""Long video: a film of several chunks, each of which goes on from the end of the one before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from worldrt.engine.errors import InputError
from worldrt.runtime.noise import MAX_SEED
from worldrt.runtime.request import Request, Settings, check_text

HandOver = Literal["latents", "frames"]
MAX_CHUNKS = 10_000  # half a day of film


def chunked(settings: Settings, request: Request, given_frames: int, *, temporal: int) -> Settings:
    """The settings of each chunk of a film that starts with `given_frames` frames: how many chunks there are, and how
    many frames two of them share. Raises `InputError`."""
    count, prompts = request.num_chunks, request.chunk_prompts
    if not 1 <= count <= MAX_CHUNKS:
        raise InputError(f"num_chunks: expected 1 to {MAX_CHUNKS}, got {count}")
    if prompts and len(prompts) != count:
        raise InputError(f"chunk_prompts: expected one for each of {count} chunk(s), got {len(prompts)}")
    for i, text in enumerate(prompts):
        if not text.strip():
            raise InputError(f"chunk_prompts: number {i + 1} is empty; say what that chunk shows")
        check_text(f"chunk_prompts: number {i + 1}", text)
    if request.seed + count - 1 > MAX_SEED:
        raise InputError(f"seed: chunk i takes seed + i, at most {MAX_SEED}; got {request.seed} and {count} chunks")
    if request.hand_over not in get_args(HandOver):
        raise InputError(f"hand_over: expected {' or '.join(get_args(HandOver))}, got '{request.hand_over}'")
    if count == 1:
        return settings
    if request.edit_strength is not None:
        raise InputError("edit_strength: one clip is edited at a time; leave num_chunks out, or the edit")
    overlap = given_frames if request.num_overlap_frames is None else request.num_overlap_frames
    if overlap < 1 or (overlap - 1) % temporal or overlap >= settings.num_frames:
        raise InputError(
            f"num_overlap_frames: expected 1 or {temporal + 1}, and less than the {settings.num_frames} frames of a "
            f"chunk, got {overlap}"
        )
    return replace(settings, num_chunks=count, num_overlap_frames=overlap)


def of_chunk(request: Request, index: int) -> Request:
    """What is asked of one chunk: its prompt, and a seed of its own so that motion does not repeat."""
    prompt = request.chunk_prompts[index] if request.chunk_prompts else request.prompt
    return replace(request, prompt=prompt, seed=request.seed + index)


def prompts_of(request: Request) -> tuple[str, ...]:
    """Every text that a user asks for, each once: the prompt and those of the chunks."""
    return tuple(dict.fromkeys((request.prompt, *request.chunk_prompts)))
