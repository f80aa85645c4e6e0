"""The flags of `trt-run` that say where results go, and how a run tells of itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import benchmark
from worldrt.runtime.jobs import check_quality

_DEFAULT_PLACE = {"text2image": "output/generated_image.jpg"}


def add(parser: Parser, task: str) -> None:
    """Add the group of a task."""
    add = parser.add_argument_group("where it goes").add_argument
    place = _DEFAULT_PLACE.get(task, "output/generated_video.mp4")
    add("--save_path", default=place, help=f"name.mp4, name.jpg, name.png, png:FOLDER or null: (default {place})")
    add("--quality", type=int, metavar="1..100", help="of .jpg (95 by default) and .mp4 (65: H.264 at CRF 18)")
    add("--batch_input_json", type=Path, help="a list of {prompt, output_video or output_image, input_video}")
    add("--strict", action="store_true", help="of a batch with mistakes in it: make nothing")
    add("--overwrite", action="store_true", help="replace what is there")
    add("--from_sidecar", type=Path, metavar="FILE", help="repeat the run that a sidecar describes; other flags win")
    add("--record_inputs", type=Path, metavar="DIR", help="keep the denoiser's inputs and the frames, to quantise by")
    add("--record_steps", type=int, default=8, help="how many steps are kept of a run")
    add(
        "--benchmark",
        nargs="?",
        type=int,
        const=3,
        metavar="N",
        help="run once to warm up, then N times (3), and print how long each part took",
    )
    add("--json", action="store_true", help="print the result as JSON")
    add("--quiet", action="store_true", help="no progress")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a number that cannot be used."""
    benchmark.check(args.benchmark)
    if args.benchmark and args.batch_size > 1:
        raise InputError("--benchmark: it measures one result at a time; leave --batch_size out")
    check_quality(args.quality)
