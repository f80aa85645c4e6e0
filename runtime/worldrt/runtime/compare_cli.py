"""The flags of `trt-run compare`, and what it prints."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from worldrt.engine import plugin
from worldrt.engine.bundle import Manifest
from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import compare, engine_flags, probes
from worldrt.runtime.compare import TOLERANCES, Comparison
from worldrt.runtime.models import Models
from worldrt.runtime.probes import Case, Part

TOLERANCE_EXCEEDED = 1
_KINDS = {
    "int": ((int,), "a whole number of 0 or more"),
    "float": ((int, float), "a number of 0 or more"),
    "bool": ((bool,), "no value: it is switched on by its name"),
}
PROMPT = "A red car drives along a coast road in the evening sun"
ABOUT = (
    "Run every component and some sampling steps on two or more backends, on the same seeded inputs, and print how far "
    "their tensors are from those of the first one, and how long they take. The exit code is 1 past a tolerance."
)


def add(commands: Any) -> None:
    """The subcommand `compare`."""
    parser: Parser = commands.add_parser("compare", help="errors and times of two or more backends", description=ABOUT)
    parser.set_defaults(verb="compare")
    add = parser.add_argument
    add("--backends", required=True, metavar="A,B", help="the first is the reference; each NAME[:DEVICE], then any "
        "+OPTION[=VALUE] of the backend or of trt-run for GPUs and engines, as in "
        "onnxruntime:cpu,torch:cuda:1+compile,tensorrt:cuda+block_weights=constants+cfg=sequential")  # fmt: skip
    add("--bundle", required=True, metavar="DIR")
    add("--checkpoint", metavar="DIR", help="where the weights of the bundle lie now")
    add("--reference_bundle", metavar="DIR", help="the same model for the first backend, as in float32")
    add("--components", nargs="+", metavar="NAME", help="text, vae, text2image, video2world (default: all there are)")
    add("--steps", type=int, default=4, help="steps of the sampling (default %(default)s)")
    add("--rounds", type=int, default=3, help="timed rounds, in turns, after one warm-up (default %(default)s)")
    add("--prompt", default=PROMPT)
    add("--seed", type=int, default=0)
    add("--width", type=int, help="pixels; the model's own by default")
    add("--height", type=int, help="pixels")
    add("--num_frames", type=int, help="of video; by default the shortest clip with two latents")
    add("--tolerance", nargs="+", default=[], metavar="NUMBER", help="relative, for all, or PRECISION=NUMBER; default: "
        + ", ".join(f"{name}={value:g}" for name, value in TOLERANCES.items()))  # fmt: skip
    add("--one_at_a_time", action="store_true", help="one backend after the other, in the memory of one")
    add("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Compare and print; returns the exit code. Raises `InputError` for flags that cannot be used."""
    for flag, least in (("steps", 1), ("rounds", 0), ("seed", 0), ("width", 1), ("height", 1), ("num_frames", 1)):
        value = getattr(args, flag)
        if value is not None and value < least:
            raise InputError(f"--{flag}: expected {least} or more, got {value}")
    for flag, unit, rest in (("width", 16, 0), ("height", 16, 0), ("num_frames", 4, 1)):
        value = getattr(args, flag)
        if value is not None and value % unit != rest:
            raise InputError(f"--{flag}: expected {'1 more than ' * rest}a multiple of {unit}, got {value}")
    specs = [text for text in args.backends.split(",") if text]
    if len(specs) != len(set(specs)) or len(specs) < 2:
        raise InputError(f"--backends: expected two or more different ones, got '{args.backends}'")
    if parse_backend(specs[0])[0] == compare.BLIND:
        raise InputError(f"--backends: {compare.BLIND} computes nothing to compare with; name another one first")
    contenders = {spec: _open(args, spec, first=spec == specs[0]) for spec in specs}
    chosen = _chosen([models.bundles[0].manifest for models in contenders.values()], args.components)
    case = Case(args.prompt, args.steps, args.seed, args.width, args.height, args.num_frames)
    done = compare.run(
        contenders,
        chosen,
        case,
        args.rounds,
        tolerances=_tolerances(args.tolerance),
        together=not args.one_at_a_time,
    )
    if args.json:
        print(json.dumps({"bundle": args.bundle, "case": vars(case)} | compare.as_json(done), indent=1))
    else:
        show(done)
    return 0 if done.passed else TOLERANCE_EXCEEDED


def parse_backend(text: str) -> tuple[str, str, dict[str, Any]]:
    """`torch:cuda:1+compile+threads=2` -> ("torch", "cuda:1", {"compile": True, "threads": 2}).

    The device is the CPU where none is named, and cuda for TensorRT.
    """
    place, *settings = text.split("+")
    name, _, device = place.partition(":")
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        options[key] = _value(value) if equals else True
    return name, device or ("cuda" if name.startswith("tensorrt") else "cpu"), options


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _open(args: argparse.Namespace, spec: str, *, first: bool) -> Models:
    name, device, options = parse_backend(spec)
    own = first and args.reference_bundle
    bundle, checkpoint = (args.reference_bundle, None) if own else (args.bundle, args.checkpoint)
    flags, options = _of_runs(name, device, options)
    run = {"guidance": flags.cfg, **engine_flags.execution(flags)}
    return Models.open([Path(bundle)], [checkpoint], backend=name, options=options, **run)


def _of_runs(backend: str, device: str, options: Mapping[str, Any]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options that are GPU flags of `trt-run`, parsed as these are, and those of the backend."""
    parser = Parser(prog="trt-run compare --backends", add_help=False)
    parser.add_argument("--cfg", choices=("batched", "sequential"), default="batched")
    engine_flags.add(parser)
    parser.set_defaults(backend=backend, device=device)
    known = {action.dest for action in parser._actions}
    given = [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items() if key in known]
    flags = parser.parse_args(given)
    engine_flags.check(flags)
    own = {key: value for key, value in options.items() if key not in known}
    _check_own(backend, own)
    return flags, own


def _check_own(backend: str, options: Mapping[str, Any]) -> None:
    """The numbers and switches that a backend's `open_session` takes. Raises `InputError`."""
    taken = inspect.signature(plugin.load("worldrt.engine.backends", backend).open_session).parameters
    kinds: dict[str, str] = {name: str(p.annotation) for name, p in taken.items() if p.annotation in _KINDS}
    for name, value in options.items():
        if name not in kinds:
            there = ", ".join(kinds) or "none"
            raise InputError(
                f"--backends: {backend} has no option '{name}'; there are: {there}, and the flags of trt-run for GPUs"
            )
        fits, what = _KINDS[kinds[name]]
        if type(value) not in fits or value < 0:
            raise InputError(f"--backends: {backend}+{name}: expected {what}, got '{value}'")


def _chosen(manifests: Sequence[Manifest], names: Sequence[str] | None) -> list[Part]:
    """The parts that all bundles have. Raises `InputError` for a component that one has not."""
    common = [part for part in probes.parts(manifests[0]) if all(part in probes.parts(m) for m in manifests)]
    there = list(dict.fromkeys(component for component, _ in common))
    unknown = [name for name in names or () if name not in there]
    if unknown:
        raise InputError(f"--components: no '{unknown[0]}' in every bundle; there are: {', '.join(there)}")
    return [part for part in common if names is None or part[0] in names]


def _tolerances(given: Sequence[str]) -> dict[str, float]:
    tolerances = dict(TOLERANCES)
    for text in given:
        key, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e6 or (equals and key not in TOLERANCES):
            known = ", ".join(TOLERANCES)
            raise InputError(f"--tolerance: expected a number above 0, or PRECISION=NUMBER of {known}; got '{text}'")
        tolerances |= {key: value} if equals else dict.fromkeys(TOLERANCES, value)
    return tolerances


def show(done: Comparison) -> None:
    """Two tables: differences, and times with their ratio to the reference."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 200  # a log is read in full
    table = Table("component", "tensor", "backend", "max abs", "relative", "1 - cosine", "PSNR dB", "limit", "")
    for row in done.rows:
        found, verdict = row.difference, {True: "ok", False: "FAILED", None: "-"}[row.passed]
        numbers = (
            ["", "", ""] if found is None else [f"{v:.2e}" for v in (found.max_abs, found.relative, 1 - found.cosine)]
        )
        psnr = "" if row.psnr_db is None else f"{row.psnr_db:.1f}"
        limit = "" if row.tolerance is None else f"{row.tolerance:.0e}"
        table.add_row(row.component, row.tensor, escape(row.backend), *numbers, psnr, limit, verdict)
    console.print(table)
    for row in done.rows:
        if row.problem:
            console.print(f"{row.component} on {escape(row.backend)}: {escape(row.problem)}")
    if done.timings:
        console.print(_times(done))


def _times(done: Comparison) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("component", "work", *(f"{escape(name)} ms" for name in done.backends), "reference / it")
    found = {(t.component, t.work, t.backend): t.median_s for t in done.timings}
    for component, work in dict.fromkeys((t.component, t.work) for t in done.timings):
        times = [found.get((component, work, name)) for name in done.backends]
        ratios = [f"{times[0] / t:.2f}" if times[0] and t else "-" for t in times[1:]]
        cells = ["-" if t is None else f"{1e3 * t:.2f}" for t in times]
        table.add_row(component, work, *cells, ", ".join(ratios))
    return table
