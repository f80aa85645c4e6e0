"""`trt-export`: a checkpoint becomes a bundle, and a bundle engine plans."""

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

from worldrt.engine.cli import run
from worldrt.engine.errors import InputError
from worldrt.export import cache_cli, engine_flags, forks, world_flags
from worldrt.export.flags import build_parser, family_of
from worldrt.export.quantize import flags as quantize_flags

if TYPE_CHECKING:
    from worldrt.export.run import Progress, Report

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code is 0, 2 for a mistake of the user, 130 when interrupted."""
    return run(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["cache"]:
        return cache_cli.main(argv[1:])
    parser = build_parser()
    args = parser.parse_args(argv)
    engine_flags.check(parser, args)
    made: dict[str, Any] = {}
    code = 0
    if args.model is not None:
        made, code = _export(args)
    elif args.quantize is not None:
        made = _quantize(args)
    if code == 0 and (args.backend or args.check):
        engines = importlib.import_module("worldrt.export.engine_cli")
        plans, code = engines.run(Path(made["output"]) if made else args.bundle, args)
        made |= plans
    if args.json:
        print(json.dumps(made, indent=1))
    return code


def _export(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Make a bundle. Gives the report as JSON, printed already unless JSON is wanted, and the exit code."""
    if args.dit_path is not None and args.task == "all":
        raise InputError("--dit_path: say of which task the file is: --task text2image or --task video2world")
    os.environ.setdefault("SYMPY_CACHE_SIZE", "100000")  # shapes are symbols; its default forgets most of them
    if args.jobs > 1:
        forks.prepare()
    # torch takes seconds to import; --help and wrong flags do not wait for it
    exporter = importlib.import_module("worldrt.export.run")
    plan = importlib.import_module("worldrt.export.plan")
    family = family_of(args.model)
    options = plan.Options(
        model=args.model,
        task=args.task,
        precision=args.precision,
        resolution=args.resolution,
        fps=args.fps,
        load_ema=args.load_ema,
        rope_dtype=args.rope_dtype,
        pixel_format=args.pixel_format,
        components=tuple(args.components),
        seed=args.seed,
        quantize=args.quantize,
        natten=args.natten,
        distilled=args.distilled,
        attention_cut=args.attention_cut,
        **world_flags.options(args, family),
    )
    with _progress(quiet=args.json) as progress:
        report = exporter.export_bundle(
            options,
            args.output or _default_output(args),
            checkpoint=args.checkpoint,
            dit_path=args.dit_path,
            convert_to=args.convert_to,
            family=family,
            verified=args.verify,
            torch_program=args.torch_program,
            full_hash=args.full_hash,
            overwrite=args.overwrite,
            workers=args.jobs,
            quantization=quantize_flags.settings(args),
            progress=progress,
        )
    if not args.json:
        _print(report)
    return _as_json(report), 0 if all(row.passed for row in report.verified) else 1


def _quantize(args: argparse.Namespace) -> dict[str, Any]:
    """Make a quantised copy of a bundle. Gives the report as JSON, printed already unless JSON is wanted."""
    with _progress(quiet=args.json) as progress:
        made = quantize_flags.quantize(args, lambda text: progress(text, 0, 0))
    if not args.json:
        for note in made["notes"]:
            print(note)
    return made


def _default_output(args: argparse.Namespace) -> Path:
    kinds = [name for name in ("natten", "distilled", "fold_levels") if getattr(args, name)]
    return Path("bundles", "-".join([args.model, *([] if args.task == "all" else [args.task]), *kinds]))


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
        TextColumn("{task.description}", markup=False),
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
        markup=False,
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
