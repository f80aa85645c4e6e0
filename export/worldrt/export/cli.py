"""`trt-export`: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.engine.cli import Parser, run
from worldrt.engine.errors import InputError
from worldrt.export import cache_cli

if TYPE_CHECKING:
    from worldrt.export.run import Progress, Report

MODELS = ("nano", "0.6B", "2B", "14B")
TASKS = ("text2image", "video2world")
COMPONENTS = (*TASKS, "vae", "text")
EPILOG = """\
examples:
  trt-export --model nano
  trt-export --model 2B --checkpoint /models/Cosmos-Predict2-2B-Video2World -o bundles/2B
  trt-export --model 14B --checkpoint /models --task video2world --resolution 480 --fps 10
  trt-export cache --help           engine plans that were built before: ls, rm, verify
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code is 0, 2 for a mistake of the user, 130 when interrupted."""
    return run(_main, argv)


def build_parser() -> Parser:
    """All flags of `trt-export`."""
    p = Parser(
        prog="trt-export",
        description="Export a Cosmos-Predict2 checkpoint to a bundle of ONNX graphs; weights are not copied.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what")
    what.add_argument("--model", required=True, choices=MODELS, help="nano needs no checkpoint, it makes one")
    what.add_argument("--task", default="all", choices=(*TASKS, "all"), help="default: all that the checkpoint holds")
    what.add_argument("--components", nargs="+", choices=COMPONENTS, default=[], help="export only these")
    what.add_argument("--resolution", default="720", choices=("480", "720"), help="which official video weights")
    what.add_argument("--fps", type=int, default=16, choices=(10, 16), help="which official video weights")
    places = p.add_argument_group("where")
    places.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a diffusers pipeline, official files, or a hub cache"
    )
    places.add_argument(
        "--dit_path", type=Path, metavar="FILE", help="the transformer's weights, instead of those found"
    )
    places.add_argument(
        "--load_ema", action="store_true", help="take the averaged weights (net_ema.) of an official file"
    )
    places.add_argument(
        "--convert_to", type=Path, metavar="DIR", help="where .pt files are converted to; default: beside them"
    )
    places.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: bundles/MODEL, with the task if one is given"
    )
    places.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    how = p.add_argument_group("how")
    how.add_argument(
        "--form", default="auto", choices=("auto", "whole", "block"), help="auto: block from 1 B parameters"
    )
    how.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "bf16"), help="auto: as stored")
    how.add_argument(
        "--rope_dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: as official pipelines round"
    )
    how.add_argument("--pixel_format", default="rgb24", choices=("rgb24", "nv12", "yuv420p"), help="of decoded frames")
    how.add_argument("--quantize", choices=("int8",), help="denoisers, for CPUs; these weights go into the bundle")
    how.add_argument("--seed", type=int, default=0, help="of the nano checkpoint")
    then = p.add_argument_group("and then")
    then.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, help="compare with torch; default: small models"
    )
    then.add_argument(
        "--torch_program", action=argparse.BooleanOptionalAction, help="save torch programs; default: small models"
    )
    then.add_argument("--full_hash", action="store_true", help="also hash the weight files whole")
    then.add_argument("--jobs", type=int, default=_jobs(), help="graphs made side by side")
    then.add_argument("--json", action="store_true", help="print the report as JSON")
    return p


def _main(argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["cache"]:
        return cache_cli.main(argv[1:])
    args = build_parser().parse_args(argv)
    if args.dit_path is not None and args.task == "all":
        raise InputError("--dit_path: say of which task the file is: --task text2image or --task video2world")
    os.environ.setdefault("SYMPY_CACHE_SIZE", "100000")  # shapes are symbols; its default forgets most of them
    # torch takes seconds to import; --help and wrong flags do not wait for it
    exporter = importlib.import_module("worldrt.export.run")
    plan = importlib.import_module("worldrt.export.plan")
    options = plan.Options(
        model=args.model,
        task=args.task,
        form=args.form,
        precision=args.precision,
        resolution=args.resolution,
        fps=args.fps,
        load_ema=args.load_ema,
        rope_dtype=args.rope_dtype,
        pixel_format=args.pixel_format,
        components=tuple(args.components),
        seed=args.seed,
        quantize=args.quantize,
    )
    with _progress(quiet=args.json) as progress:
        report = exporter.export_bundle(
            options,
            args.output or _default_output(args.model, args.task),
            checkpoint=args.checkpoint,
            dit_path=args.dit_path,
            convert_to=args.convert_to,
            verified=args.verify,
            torch_program=args.torch_program,
            full_hash=args.full_hash,
            overwrite=args.overwrite,
            workers=args.jobs,
            progress=progress,
        )
    print(json.dumps(_as_json(report), indent=1)) if args.json else _print(report)
    return 0 if all(row.passed for row in report.verified) else 1


def _jobs() -> int:
    """One for every two CPUs, which are often the two threads of one core."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def _default_output(model: str, task: str) -> Path:
    return Path("bundles", model if task == "all" else f"{model}-{task}")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        line = bar.add_task("looking for the checkpoint", total=None)
        yield lambda text, done, total: bar.update(line, description=text, completed=done, total=total)


def _print(report: Report) -> None:
    from rich.console import Console

    console = Console()
    if report.verified:
        importlib.import_module("worldrt.export.verify").print_table(report.verified, console)
    for note in report.notes:
        print(note, file=sys.stderr)
    size = sum(report.bytes_written.values()) / 1e6
    memory = "" if report.peak_rss_bytes is None else f", {report.peak_rss_bytes / 1e6:.0f} MB of memory at most"
    console.print(
        f"{report.output}: {len(report.bytes_written)} files, {size:.1f} MB, in {report.seconds:.1f} s{memory}",
        highlight=False,
        soft_wrap=True,
    )


def _as_json(report: Report) -> dict[str, Any]:
    return {
        "output": str(report.output),
        "seconds": round(report.seconds, 3),
        "peak_rss_bytes": report.peak_rss_bytes,
        "bytes_written": report.bytes_written,
        "notes": report.notes,
        "verified": [
            {
                "graph": row.graph,
                "output": row.difference.name,
                "max_abs": row.difference.max_abs,
                "relative": row.difference.relative,
                "cosine": row.difference.cosine,
                "passed": row.passed,
            }
            for row in report.verified
        ],
    }
