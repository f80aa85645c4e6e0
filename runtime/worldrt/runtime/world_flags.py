"""The flags of `trt-run world`, and those of them that `trt-run serve` has too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import drive_flags, input_flags, model_flags, safety_flags, scale_flags
from worldrt.runtime.jobs import check_quality
from worldrt.runtime.live.offline import CONTROL_SEED, LONGEST_S
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.parallel import ray_flags

ABOUT = "Make a world that is steered by a signal, by chance or by a recording: of a length into a file, or live."
PROMPT = "A car drives along a road through open country"
DEFAULT_PLACE = "output/world.mp4"
FILE_LENGTH_S = 4
"""Of a world that goes into a file, where nothing else says how long it lasts."""


def add_command(commands: Any) -> None:
    """The subcommand `world`."""
    parser: Parser = commands.add_parser("world", help="an endless world, into a file or live", description=ABOUT)
    add = parser.add_argument_group("what is made of it").add_argument
    add(
        "--length",
        type=int,
        metavar="SECONDS",
        help=f"how long it lasts; without it, live until Ctrl-C, or with --save_path alone {FILE_LENGTH_S}",
    )
    add(
        "--control_signal", metavar="D,D,DL,...", help="a control for each latent frame, 4 a second; the rest is random"
    )
    add("--control_seed", type=int, default=CONTROL_SEED, help="of random controls (%(default)d)")
    add = parser.add_argument_group("live").add_argument
    add(
        "--to",
        action="append",
        default=[],
        metavar="PLACE",
        help="rtsp://HOST/PATH, rtsp-serve://127.0.0.1:8554/PATH, world.mp4, png:FOLDER, null:; several, in time",
    )
    add("--keys", action="store_true", help="steer with the keys of this terminal: W, A, S, D; q ends")
    add("--record", type=Path, metavar="FILE", help="record the session, to be replayed")
    add("--replay", type=Path, metavar="FILE", help="make the frames of a recorded session again")
    add = parser.add_argument_group("where it goes").add_argument
    add("--save_path", metavar="PLACE", help="name.mp4, png:FOLDER or null:, of a world that has a length; every frame")
    add("--quality", type=int, metavar="1..100", help="of .mp4 (65: H.264 at CRF 18)")
    add("--overwrite", action="store_true", help="replace what is there")
    add("--json", action="store_true", help="print the result as JSON")
    add("--quiet", action="store_true", help="no progress")
    add_shared(parser)
    ray_flags.add_world(parser)
    parser.set_defaults(verb="world")


def add_shared(parser: Parser) -> None:
    """Which world it is, how it runs in time, and which models make it."""
    add = parser.add_argument_group("the world").add_argument
    add("--model", metavar="NAME", help="a bundle of the folder bundles, such as nano-matrix; the only one by default")
    add("--family", metavar="NAME", help="matrix or opendwm: look at bundles of this one alone")
    add("--prompt", default=PROMPT, help="what the world is")
    add("--seed", type=int, default=0, help="of all noise (%(default)d)")
    add("--guidance_scale", type=float, metavar="S", help="x0 = u + S (c - u); the model's own by default")
    add("--size", metavar="WxH", help="width and height in pixels; the model's own by default")
    add("--init_video", type=Path, metavar="FILE", help="a video or picture whose beginning the world goes on from")
    add("--base_bundle", metavar="DIR", help="a bundle whose model makes the clip that the world goes on from")
    add("--base_steps", type=int, metavar="N", help="sampler steps of that clip")
    add = parser.add_argument_group("in time").add_argument
    add(
        "--idle",
        choices=("neutral", "hold", "random", "auto"),
        help="without a key: stand, go on, draw, or leave it to a car that drives by itself",
    )
    add(
        "--commit_level",
        type=int,
        metavar="N",
        help="a control reaches frames in flight whose noise is at level N or above (1 to the schedule's steps); by "
        "default it is for frames that begin",
    )
    add("--fps", type=float, help="frames per second; the model's own by default")
    add("--late", choices=("slow", "drop"), default="slow", help="of frames that come too late: show all, or drop some")
    drive_flags.add(parser)
    input_flags.add(parser)
    model_flags.add(parser)
    scale_flags.add(parser)
    safety_flags.add(parser)


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for what cannot be used, before anything is opened."""
    check_shared(args)
    check_quality(args.quality)
    _check_made(args)
    ray_flags.check_world(args)
    if args.ray and args.num_gpus > 1:
        raise InputError("--num_gpus: with --ray say --num_gpus_dit and --num_gpus_vae")


def check_shared(args: argparse.Namespace) -> None:
    """`check` of what `add_shared` adds."""
    model_flags.check(args)
    drive_flags.check(args)
    input_flags.check(args)
    safety_flags.check(args)
    scale_flags.check(args)
    if args.num_gpus > 1 and args.conditions_only:
        raise InputError("--num_gpus: --conditions_only runs no model; leave one of them out")
    pace(args)
    size(args.size)
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed: expected 0 to 4294967295, got {args.seed}")
    if args.base_steps is not None and not 1 <= args.base_steps <= 1000:
        raise InputError(f"--base_steps: expected 1 to 1000, got {args.base_steps}")
    if args.init_video and args.base_bundle:
        raise InputError("--init_video: the world goes on from it, so --base_bundle has no effect; leave one out")


def _check_made(args: argparse.Namespace) -> None:
    """Which world is made, and where it goes."""
    if args.length is not None and not 1 <= args.length <= LONGEST_S:
        raise InputError(f"--length: expected 1 to {LONGEST_S} seconds, got {args.length}")
    if args.replay is None and args.length is None and args.save_path is not None:
        if not (args.to or args.keys):
            args.length = FILE_LENGTH_S
            return
        raise InputError("--save_path: a live world has no end; give --length, or --to for a file that may grow")
    if args.replay is not None:
        for flag in ("control_signal", "length", "record"):
            if getattr(args, flag) is not None:
                raise InputError(f"--{flag}: the recording of --replay says it; leave it out")
    if args.length is None and args.replay is None and args.control_signal is not None:
        raise InputError("--control_signal: it belongs to a world that has an end; give --length")
    if args.keys and (args.length is not None or args.replay is not None):
        raise InputError("--keys: a world of --length or --replay has its controls already; leave one of them out")
    if args.save_path is None and not args.to:
        ends = args.length is not None or args.replay is not None
        args.save_path, args.to = (DEFAULT_PLACE, []) if ends else (None, ["null:"])


def pace(args: argparse.Namespace) -> PaceOptions:
    """How a live world runs in time; `fps` is None where the model's own is wanted."""
    return PaceOptions(args.fps, args.late)


def size(text: str | None) -> tuple[int, int] | None:
    """`720x480` as numbers. Raises `InputError`."""
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and len(text) < 12):
        raise InputError(f"--size: expected WIDTHxHEIGHT such as 720x480, got '{text[:20]}'")
    return int(width), int(height)
