"""The flags of `trt-run` that say where results go, and how a run tells of itself."""

from __future__ import annotations

from pathlib import Path

from worldrt.engine.cli import Parser

_DEFAULT_PLACE = {"text2image": "output/generated_image.png"}


def add(parser: Parser, task: str) -> None:
    """Add the group of a task."""
    add = parser.add_argument_group("where it goes").add_argument
    place = _DEFAULT_PLACE.get(task, "output/generated_video.mp4")
    add("--save_path", default=place, help=f"name.mp4, name.png, png:FOLDER or null: (default {place})")
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
