"""The flags of `trt-export` that are about quantisation."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError

if TYPE_CHECKING:
    from worldrt.export.quantize.job import Settings

DYNAMIC = "int8"
KINDS = (DYNAMIC, "fp8", "int8_static", "mxfp8", "nvfp4")
_STATIC_ONLY = ("quantize_keep", "quantize_limit", "calibration", "calibration_percentile", "calibration_size")
NAMES = ("quantize", *_STATIC_ONLY)


def add(parser: Parser) -> None:
    """A group of flags; all but `--quantize` are of the static kinds."""
    group = parser.add_argument_group("quantisation of denoisers")
    group.add_argument(
        "--quantize",
        choices=KINDS,
        help="for engines, measured: fp8, int8_static, or mxfp8 and nvfp4 of weights alone; for CPUs: int8",
    )
    group.add_argument("--quantize_keep", metavar="REGEX", help="names of more weights that stay as they are")
    group.add_argument(
        "--quantize_limit", type=float, metavar="FACTOR", help="allow this many times the usual error; default: 1"
    )
    group.add_argument(
        "--calibration", type=Path, metavar="DIR", help="inputs that trt-run --record_inputs kept; default: sample some"
    )
    group.add_argument(
        "--calibration_percentile", type=float, metavar="P", help="of magnitudes; default: 100, the largest"
    )
    group.add_argument(
        "--calibration_size",
        metavar="WxHxF",
        help="pixels and frames of the runs sampled; default: the model's own, or 160x96x9 where those are large",
    )


def settings(args: argparse.Namespace) -> Settings | None:
    """What the flags ask for in a static kind, None for the others. Raises `InputError`."""
    if args.quantize in (None, DYNAMIC):
        for name in _STATIC_ONLY:
            if getattr(args, name) is not None:
                raise InputError(f"--{name}: it is about --quantize fp8 and the other kinds for engines")
        return None
    job = importlib.import_module("worldrt.export.quantize.job")  # it takes a second; --help does not wait for it
    made: Settings = job.settings_of(
        args.quantize,
        args.quantize_keep,
        args.calibration,
        100.0 if args.calibration_percentile is None else args.calibration_percentile,
        1.0 if args.quantize_limit is None else args.quantize_limit,
        args.calibration_size,
    )
    return made


def quantize(args: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    """Write a quantised copy of `--bundle` to `--output`; the report as JSON. Raises `WorldrtError`."""
    if args.output is None:
        raise InputError("--quantize: say with -o where the quantised copy of the bundle goes")
    static = settings(args)
    if static is None:
        dynamic = importlib.import_module("worldrt.export.quantize.dynamic")
        dynamic.quantize_bundle(args.bundle, args.output, checkpoint=args.checkpoint, overwrite=args.overwrite)
        return {"output": str(args.output), "notes": []}
    job = importlib.import_module("worldrt.export.quantize.job")
    notes = job.quantize_bundle(
        args.bundle, args.output, static, progress, checkpoint=args.checkpoint, overwrite=args.overwrite
    )
    return {"output": str(args.output), "notes": notes}
