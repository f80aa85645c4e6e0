"""`trt-bench`: measures on this machine, and writes what it found with the machine beside it."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worldrt.benchmarks import everything, quality_cli, quiet
from worldrt.benchmarks import machine as machines
from worldrt.benchmarks.costs import cli as predict_cli
from worldrt.benchmarks.gpu import cli as gpu_cli
from worldrt.benchmarks.pages import cli as pages_cli
from worldrt.benchmarks.progress import say
from worldrt.benchmarks.quiet import Quiet, caution
from worldrt.benchmarks.render import markdown
from worldrt.benchmarks.report import cli as report_cli
from worldrt.benchmarks.results import FAILED, Extra, Report, Table, read, report, write
from worldrt.engine import cli
from worldrt.engine.errors import InputError

MODELS = ("nano", "2B", "14B")
Made = (
    tuple[Sequence[Table], dict[str, Any], dict[str, list[float]]]
    | tuple[Sequence[Table], dict[str, Any], dict[str, list[float]], Extra]
)
"""Tables, settings, samples; and figures and hashes."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 1 where a part failed and the rest was measured."""
    return cli.run(_main, argv)


def build_parser() -> cli.Parser:
    parser = cli.Parser(prog="trt-bench", description="Measure worldrt on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=cli.Parser)
    cpu = _verb(verbs, "cpu", _cpu, 5, "text to video against diffusers: same weights, interleaved rounds")
    cpu.add_argument("--bundle", type=Path, help="of a diffusers-style checkpoint (default: nano is exported)")
    cpu.add_argument("--int8_bundle", type=Path, help="of the same checkpoint, quantised (default: made from --bundle)")
    cpu.add_argument("--contenders", nargs="+", metavar="NAME", default=["worldrt", "int8", "diffusers"],
                     help="of worldrt, int8, torch, diffusers, diffusers-compiled "
                     "(default: worldrt, int8, diffusers)")  # fmt: skip
    cpu.add_argument("--steps", type=int, default=10, help="steps of each sampling (default %(default)s)")
    cpu.add_argument("--num_frames", type=int, help="frames of the clip (default: the model's shortest)")
    cpu.add_argument("--compile_limit_s", type=float, default=120, help="of a round of diffusers-compiled, whose first "
                     "compiles; past it, it is left out (default %(default)s)")  # fmt: skip
    cpu.add_argument("--threads", type=int, default=machines.available_cores(), help="of each contender")
    overhead = _verb(verbs, "overhead", _overhead, 20, "time and memory per step, with graphs that do nothing")
    overhead.add_argument("--bundle", type=Path, help="default: nano is exported")
    export = _verb(verbs, "export", _export, 1, "time and memory of exports, from nano to the shape of 14B")
    export.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    engines = _verb(
        verbs, "build", _engines, 1, "time, memory and size of engine plans, built ahead of time", also=("engines",)
    )
    engines.add_argument("--cases", nargs="+", metavar="NAME", help="of nano-fp16, nano-bf16, 2B-inputs, 14B-inputs, "
                         "2B-constants, 2B-whole (default: those that need little memory and disk)")  # fmt: skip
    engines.add_argument("--backend", default="tensorrt_rtx", help="default %(default)s")
    engines.add_argument("--compute_capability", default="8.9", help="default %(default)s")
    engines.add_argument("--scratch", type=Path, metavar="DIR", help="where checkpoints and plans lie meanwhile")
    kernels = _verb(verbs, "kernels", _kernels, 10, "the compiled kernels against numpy")
    kernels.add_argument("--threads", type=int, default=machines.available_cores())
    frames = _verb(verbs, "io", _io, 10, "frames into files and out of them, against PyAV alone")
    frames.add_argument("--frames", type=int, default=24, help="of each size in a round (default %(default)s)")
    frames.add_argument("--threads", type=int, default=machines.available_cores())
    scaling = _verb(verbs, "scale", _scale, 20, "what ranks say to each other, what it costs, how a clip scales")
    scaling.add_argument("--gpu", default="h100", help="that is predicted for (default %(default)s)")
    _verb(verbs, "page", _page, 30, "from a key to the picture that answers it, in a headless browser")
    _verb(verbs, "rtsp", _rtsp, 200, "from a picture to a player, over RTSP on this machine")
    stream = _verb(verbs, "stream", _stream, 1, "from a control to its picture: sessions, simulated and in time")
    stream.add_argument(
        "--frames", type=int, default=100_000, help="simulated, in each case (default %(default)s); 0: none"
    )
    stream.add_argument("--cases", nargs="+", metavar="CASE", default=[], help="of the simulated ones (default: all)")
    stream.add_argument("--bundle", type=Path, help="of a world: run it in time, too")
    stream.add_argument("--seconds", type=float, default=20, help="of the bundle (default %(default)s)")
    stream.add_argument("--size", help="of the bundle's pictures, WxH")
    stream.add_argument("--fps", type=float, help="of the bundle's pictures (default: its own)")
    stream.add_argument(
        "--late", choices=("slow", "drop"), default="slow", help="of the bundle's (default %(default)s)"
    )
    gpu_cli.flags(_verb(verbs, "gpu", gpu_cli.measure, gpu_cli.ROUNDS, gpu_cli.TEXT))
    quality_cli.flags(_verb(verbs, "quality", quality_cli.measure, 1, quality_cli.TEXT), machines.available_cores())
    sampling = _verb(
        verbs, "sampling", _sampling, 5, "what step caching, less guidance and clips together gain and cost"
    )
    sampling.add_argument("--bundle", type=Path, help="with video2world (default: nano is exported)")
    sampling.add_argument("--steps", type=int, default=35, help="default %(default)s")
    sampling.add_argument("--threads", type=int, default=machines.available_cores())
    show = verbs.add_parser("show", help="print a result file as Markdown")
    show.add_argument("file", type=Path)
    show.set_defaults(command=_show)
    everything.add(verbs)
    report_cli.add(verbs)
    pages_cli.add(verbs)
    predict_cli.add(verbs)
    return parser


def _show(args: Namespace) -> int:
    print(markdown(read(args.file)), end="")
    return 0


def _verb(verbs: Any, name: str, measure: Any, rounds: int, text: str, also: tuple[str, ...] = ()) -> cli.Parser:
    parser: cli.Parser = verbs.add_parser(name, aliases=also, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(measure=measure)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write a JSON result file into this folder")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed into this file, too")
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds after a warm-up (default %(default)s)")
    parser.add_argument("--note", default="", help="what a reader must know; kept in the result file")
    parser.add_argument("--quiet", action="store_true", help="no word of progress")
    return parser


def _main(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    if hasattr(args, "command"):
        code: int = args.command(args)
        return code
    if args.rounds < 1:
        raise InputError(f"--rounds: expected 1 or more, got {args.rounds}")
    machine, since = machines.identify(argv), Quiet.now()

    def reported(made: Made) -> Report:
        tables, settings, samples, extra = made if len(made) == 4 else (*made, None)
        note = args.note or caution(since.others(), machine.cores)
        return report(args.verb, machine, {"rounds": args.rounds} | settings, tables, samples, extra, note)

    args.save = lambda made: _save(args, reported(made))
    with tempfile.TemporaryDirectory(prefix="trt-bench-") as scratch, quiet.adopting():
        made = args.measure(args, Path(scratch))
    result = reported(made)
    print(markdown(result), end="", flush=True)  # before it is written, which can fail
    _save(args, result)
    if args.output:
        print(f"\n{args.output / result.file_name}")
    return 1 if any(table.columns == FAILED for table in result.tables) else 0


def _save(args: Namespace, result: Report) -> None:
    """Write what there is so far; a verb may call for it in the middle, and the last one stays."""
    if args.markdown:
        args.markdown.write_text(markdown(result), encoding="utf-8")
    if args.output:
        path = write(result, args.output)
        if args.verb == "gpu":
            path.with_suffix(".md").write_text(markdown(result), encoding="utf-8")


def _cpu(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import bundles, cpu

    unknown = sorted(set(args.contenders) - set(cpu.CONTENDERS))
    if unknown:
        raise InputError(f"--contenders: no {', '.join(unknown)}; there are {', '.join(cpu.CONTENDERS)}")
    bundle = args.bundle or bundles.nano(scratch, say(args))
    int8 = args.int8_bundle
    if int8 is None and "int8" in args.contenders:
        int8 = bundles.int8(bundle, scratch, say(args))
    plan = cpu.Plan(
        *(bundle, int8, tuple(args.contenders), args.steps, args.rounds, args.threads, args.num_frames),
        compile_limit_s=args.compile_limit_s,
    )
    outcome = cpu.run(plan, scratch, say(args))
    settings = {"threads": args.threads} | asdict(outcome.workload)
    return outcome.tables, settings, outcome.samples, outcome.extra


def _overhead(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import bundles, overhead

    tables, samples = overhead.run(args.bundle or bundles.nano(scratch, say(args)), args.rounds)
    return tables, {"steps": overhead.STEPS}, samples


def _export(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import export

    tables, samples = export.run(args.models, args.rounds, scratch, say(args))
    return tables, {}, samples


def _engines(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import engines

    names = list(args.cases or engines.LIGHT)
    unknown = sorted(set(names) - set(engines.CASES))
    if unknown:
        raise InputError(f"--cases: no {', '.join(unknown)}; there are {', '.join(engines.CASES)}")
    tables, samples = engines.run(
        names, args.backend, args.compute_capability, args.rounds, args.scratch or scratch, say(args)
    )
    return tables, {"backend": args.backend, "compute capability": args.compute_capability}, samples


def _kernels(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import kernels

    tables, samples = kernels.run(args.rounds, args.threads, say(args))
    return tables, {"threads": args.threads}, samples


def _io(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import io

    if args.frames < 1:
        raise InputError(f"--frames: expected 1 or more, got {args.frames}")
    tables, samples, extra = io.run(args.frames, args.rounds, args.threads, scratch, say(args))
    return tables, {"frames": args.frames, "threads": args.threads}, samples, extra


def _scale(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import scale

    tables, samples, extra = scale.run(args.gpu, args.rounds, scratch, say(args))
    return tables, {"gpu": args.gpu}, samples, extra


def _page(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import page

    tables, samples = page.run(args.rounds, scratch, say(args))
    return tables, {}, samples


def _rtsp(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import rtsp

    tables, samples = rtsp.run(args.rounds, say(args))
    return tables, {}, samples


def _stream(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import soak, stream
    from worldrt.runtime.world_flags import size

    if not args.frames and args.bundle is None:
        raise InputError("--frames 0: it leaves nothing to measure; give --bundle")
    unknown = sorted(set(args.cases) - set(stream.CASES))
    if unknown:
        raise InputError(f"--cases: no {', '.join(unknown)}; there are: {'; '.join(stream.CASES)}")
    tables, samples = stream.run(args.frames, say(args), args.cases) if args.frames else ([], {})
    if args.bundle is not None:
        say(args)("in time")
        more, samples = soak.run(args.bundle, scratch, args.seconds, size=size(args.size), fps=args.fps, late=args.late)
        tables += more
    return tables, {"frames": args.frames, "seconds": args.seconds, "late": args.late}, samples


def _sampling(args: Namespace, scratch: Path) -> Made:
    from worldrt.benchmarks import bundles, sampling

    bundle = args.bundle or bundles.nano(scratch, say(args))
    tables, samples = sampling.run(bundle, args.steps, args.rounds, args.threads, say(args))
    return tables, {"steps": args.steps, "threads": args.threads}, samples


if __name__ == "__main__":
    raise SystemExit(main())
