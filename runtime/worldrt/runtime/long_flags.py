"""Flags of long video, and of edits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.engine.schema import SchemaError, decode, parse_json
from worldrt.runtime.long import HandOver

MAX_PROMPT_FILE_BYTES = 10_000_000


def add(parser: Parser, task: str) -> None:
    """Add the groups of a task."""
    if task != "text2image":
        _long(parser)
    _edit(parser, task)


def _long(parser: Parser) -> None:
    add = parser.add_argument_group("a film of several clips").add_argument
    add("--num_chunks", type=int, help="how many clips (1, or one for each chunk's prompt); each goes on from the last")
    add(
        "--chunk_prompts",
        type=read_prompts,
        default=(),
        metavar="FILE",
        help="a prompt for each clip: one per line, or a JSON list",
    )
    add("--chunk_prompt", action="append", default=[], metavar="TEXT", help="the same, the flag given for each clip")
    add(
        "--num_overlap_frames",
        type=int,
        choices=(1, 5),
        help="how many frames a clip takes over from the one before it; default: as many as the film starts with",
    )
    add(
        "--hand_over",
        choices=get_args(HandOver),
        default="latents",
        help="what a clip takes over: latents as they are (default), or decoded frames that are encoded again",
    )


def _edit(parser: Parser, task: str) -> None:
    add = parser.add_argument_group("edit what is there (SDEdit)").add_argument
    if task == "text2world":
        add("--text2image_edit_strength", dest="picture_edit_strength", type=float, metavar="S", help="of the picture")
    add(
        "--edit_strength",
        *([] if task == "text2image" else ["--video2world_edit_strength"]),
        type=float,
        metavar="S",
        help="how much may change, from 0 (nothing) to 1 (all)",
    )
    names = ["--input_video_path"] + (["--input_path"] if task == "text2image" else [])
    by_default = "; default: that of --input_path" if task == "video2world" else ""
    what = "the picture" if task == "text2image" else "the clip, its first frames"
    add(*names, dest="input_video_path", type=Path, metavar="FILE", help=f"{what} to edit{by_default}")


def check(args: argparse.Namespace) -> None:
    """Fill in what one flag says of another. Raises `InputError` for flags that do not go together."""
    if args.verb == "text2image":
        return
    if args.chunk_prompt and args.chunk_prompts:
        raise InputError("--chunk_prompt: --chunk_prompts says the same; give one of them")
    args.chunk_prompts = args.chunk_prompts or tuple(args.chunk_prompt)
    if args.num_chunks is None:
        args.num_chunks = max(1, len(args.chunk_prompts))
    if args.chunk_prompts and not args.prompt:
        args.prompt = args.chunk_prompts[0]
    if args.num_chunks > 1 and args.record_inputs is not None:
        raise InputError("--record_inputs: it keeps one run of the sampler; leave --num_chunks out")


def read_prompts(name: str) -> tuple[str, ...]:
    """The prompts of a file: the strings of a JSON list, or the lines that are not empty. Raises `InputError`."""
    path = Path(name)
    try:
        if path.stat().st_size > MAX_PROMPT_FILE_BYTES:
            raise InputError(f"--chunk_prompts: {path}: expected at most {MAX_PROMPT_FILE_BYTES} bytes of text")
        text = path.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("["):
            prompts = tuple(line.strip() for line in text.split("\n") if line.strip())
        else:
            prompts = decode(tuple[str, ...], parse_json(text), "prompts")
    except OSError as error:
        raise InputError(f"--chunk_prompts: {path}: cannot be read: {error.strerror}") from error
    except (SchemaError, ValueError) as error:
        raise InputError(f"--chunk_prompts: {path}: expected lines of text or a JSON list of texts: {error}") from error
    if not prompts:
        raise InputError(f"--chunk_prompts: {path}: it holds no prompt")
    return prompts
