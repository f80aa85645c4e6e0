"""`trt-bench quality`: its flags, and the bundles that are compared."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.benchmarks.progress import say
from worldrt.benchmarks.results import Extra, Table
from worldrt.engine import cli
from worldrt.engine.errors import InputError

if TYPE_CHECKING:
    from worldrt.benchmarks.quality import Source

TEXT = "what precisions, shortcuts, fewer steps and schedules do to pictures, and to the control of a world"
PARTS = ("videos", "steps", "schedules", "control")
PRECISIONS = ("fp16", "bf16")


def flags(parser: cli.Parser, threads: int) -> None:
    """Of the verb."""
    parser.add_argument("--bundle", type=Path, help="float32, of text2image and video2world (default: nano)")
    parser.add_argument("--bundles", nargs="+", metavar="NAME=FOLDER[@BACKEND]", default=[],
                        help="of the same checkpoint, to compare, as in fp8=bundles/fp8@tensorrt:cuda")  # fmt: skip
    parser.add_argument("--export", nargs="+", choices=PRECISIONS, default=[], help="make nano in these, in minutes")
    parser.add_argument("--no_int8", action="store_true", help="leave out 8-bit weights, which are made from --bundle")
    parser.add_argument("--world", type=Path, help="a bundle of The Matrix, trained (default: that of the package)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="of %(choices)s")
    parser.add_argument("--ways", nargs="+", metavar="WAY", default=[], help="of the videos (default: all)")
    parser.add_argument("--steps", type=int, default=35, help="of each sampling (default %(default)s)")
    parser.add_argument("--prompts", type=int, default=3, help="videos of each way (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=12, help="of each world (default %(default)s)")
    parser.add_argument("--threads", type=int, default=threads)


def measure(args: Namespace, scratch: Path) -> tuple[list[Table], dict[str, Any], dict[str, list[float]], Extra]:
    """The parts in their order; each is saved as it is done. Raises `InputError`."""
    from worldrt.benchmarks import quality, schedules, steering, trajectory

    if min(args.steps, args.prompts, args.seconds) < 1:
        raise InputError("--steps, --prompts, --seconds: expected 1 or more")
    sources = _sources(args, scratch)
    settings = {name: getattr(args, name) for name in ("steps", "prompts", "seconds", "threads")}
    tables: list[Table] = []
    samples: dict[str, list[float]] = {}
    extra = Extra()
    if "videos" in args.parts:
        tables, samples, extra = quality.run(sources, args.steps, args.prompts, args.ways, say(args))
        args.save((tables, settings, samples, extra))
    if "steps" in args.parts:
        tables.append(trajectory.of_sources(sources, args.steps, say(args)))
    if "schedules" in args.parts:
        made, more = schedules.table(quality.opened(sources[quality.EXACT]), args.steps, args.prompts, say(args))
        tables.append(made)
        samples |= more
    if "control" in args.parts:
        made, more = steering.table(args.world, args.seconds, args.threads, say(args))
        tables.append(made)
        samples |= more
    return tables, settings, samples, extra


def _sources(args: Namespace, scratch: Path) -> dict[str, Source]:
    from worldrt.benchmarks import bundles, quality
    from worldrt.runtime.compare_cli import parse_backend

    options = {"threads": args.threads}
    exact = args.bundle or bundles.nano(scratch, say(args))
    found = {quality.EXACT: quality.Source(exact, options=options)}
    if not args.no_int8:
        found["int8"] = quality.Source(bundles.int8(exact, scratch, say(args)), options=options)
    for precision in args.export:
        folder = bundles.exported(scratch / precision, precision, say(args))
        backend = "torch" if precision == "bf16" else "onnxruntime"  # ONNX Runtime has no bfloat16 on a CPU
        found[precision] = quality.Source(folder, backend, options=options)
    for text in args.bundles:
        name, equals, rest = text.partition("=")
        folder, at, where = rest.partition("@")
        if not equals or not name or not folder:
            raise InputError(f"--bundles {text}: expected NAME=FOLDER or NAME=FOLDER@BACKEND")
        backend, device, more = parse_backend(where) if at else ("onnxruntime", "cpu", {})
        found[name] = quality.Source(Path(folder), backend, device, (options if device == "cpu" else {}) | more)
    return found
