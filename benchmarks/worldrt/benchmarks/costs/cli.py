"""`trt-bench predict`: what a run would take on a GPU that is not here."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.benchmarks.render import table
from worldrt.benchmarks.results import Report, Table, read
from worldrt.engine import cli
from worldrt.engine.errors import InputError

if TYPE_CHECKING:
    from worldrt.benchmarks.costs.fit import Rates

TERA, GIGA = 1e12, 1e9
WORLDS = ("matrix-stage3", "matrix-stage4", "opendwm")


def add(verbs: Any) -> None:
    """The verb and its flags."""
    text = "seconds, memory and what bounds a run of Cosmos-Predict2, from its shapes alone"
    parser: cli.Parser = verbs.add_parser("predict", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=run)
    parser.add_argument("--model", choices=("2B", "14B", *WORLDS), default="2B",
                        help="video2world, or a world of The Matrix or OpenDWM, for which GPU, rates and FP8 can be "
                        "chosen (default %(default)s)")  # fmt: skip
    parser.add_argument("--gpu", default="h200", help="B200, H200, H200 NVL, H100, H100 PCIe or H100 NVL")
    parser.add_argument("--num_gpus", type=int, default=1)
    parser.add_argument("--resolution", choices=("480", "720"), default="720")
    parser.add_argument("--fps", type=int, choices=(10, 16), default=16, help="which says how long the clip is")
    parser.add_argument("--frames", type=int, help="of the clip (default: the model's own length)")
    parser.add_argument("--steps", type=int, default=35, help="one clean pass follows (default %(default)s)")
    parser.add_argument("--no_guidance", action="store_true", help="one evaluation a step in place of two")
    parser.add_argument("--cfg_parallel", action="store_true", help="the two evaluations of a step on two GPUs")
    parser.add_argument("--vae_parallel", action="store_true", help="the VAE's work divided among all GPUs")
    parser.add_argument("--fp8", action="store_true", help="linear layers in FP8")
    parser.add_argument("--fp8_attention", action="store_true")
    parser.add_argument("--natten", action="store_true", help="the sparse checkpoint, 720p only")
    parser.add_argument("--skipped", type=float, default=0.0, help="share of evaluations that a step cache leaves out")
    parser.add_argument("--gemm_tflops", type=float, help="rate of matrix products (default: that of published runs)")
    parser.add_argument("--attention_tflops", type=float, help="rate of attention (the same)")
    parser.add_argument("--rates", type=Path, metavar="RESULT", help="of trt-bench gpu: take the rates measured there")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Print the prediction."""
    from worldrt.benchmarks.costs.fit import fitted
    from worldrt.benchmarks.costs.gpus import gpu
    from worldrt.benchmarks.costs.predict import Setting, predict

    device = gpu(args.gpu)
    rates = measured(read(args.rates), fitted()[device.name]) if args.rates else fitted()[device.name]
    if args.gemm_tflops:
        rates = replace(rates, gemm=args.gemm_tflops * TERA)
    if args.attention_tflops:
        rates = replace(rates, attention=args.attention_tflops * TERA)
    if args.model in WORLDS:
        from worldrt.benchmarks.costs.world import predict_world

        world = predict_world(args.model, device, args.num_gpus, args.fp8, rates)
        print(json.dumps(world.data(), indent=1) if args.json else _world(world), flush=True)
        return 0
    setting = Setting(
        args.model,
        args.resolution,
        args.fps,
        args.frames,
        args.steps,
        not args.no_guidance,
        args.num_gpus,
        args.cfg_parallel,
        args.vae_parallel,
        args.fp8,
        args.fp8_attention,
        args.natten,
        args.skipped,
    )
    prediction = predict(setting, device, rates)
    print(json.dumps(prediction.data(), indent=1) if args.json else _text(prediction), flush=True)
    return 0


def measured(result: Report, fitted: Rates) -> Rates:
    """Rates by the fastest calls of a result; what was not measured, and what all GPUs share, is as it was fitted.

    Raises `InputError` for a result without rates.
    """
    for made in result.tables:
        if made.title.startswith("Rates of") and "TFLOP/s" in made.columns:
            place = made.columns.index("TFLOP/s")
            found = {str(line[0]): float(line[place]) * TERA for line in made.rows if line[place] is not None}
            shared = fitted.shared
            if "convolutions" in found and "matrix products" in found:
                shared = replace(shared, vae_share=found["convolutions"] / found["matrix products"])
            gemm, attention = found.get("matrix products", fitted.gemm), found.get("attention", fitted.attention)
            return replace(fitted, gemm=gemm, attention=attention, shared=shared)
    raise InputError(f"--rates: the result of trt-bench {result.verb} holds none; run trt-bench gpu --parts rates")


def _text(p: Any) -> str:
    s = p.setting
    limit = p.memory_limit_bytes
    fits = (
        "fits" if p.resident_bytes < limit else "fits one model at a time" if p.staged_bytes < limit else "NOT ENOUGH"
    )
    rate = p.flops / p.transformer_s / s.num_gpus / TERA
    lines = [
        f"{s.size} video2world, {s.resolution}p, {p.tokens} tokens, {s.evaluations:.0f} evaluations, "
        f"{s.num_gpus} x {p.gpu}: {p.total_s:.1f} s, bound by: {p.bound}",
        table(Table("Seconds", ("part", "s", "share"), _shares(p.seconds, 1.0))),
        f"Transformer: {p.flops / 1e15:.1f} PFLOP, {rate:.0f} TFLOP/s on each GPU.",
        table(Table("Received by each GPU", ("what", "GB", "share"), _shares(p.received_bytes, GIGA))),
        table(Table("Memory of each GPU", ("what", "GB", "share"), _shares(p.memory_bytes, GIGA))),
        f"{p.resident_bytes / GIGA:.1f} GB with all models there at once, {p.staged_bytes / GIGA:.1f} GB with one at a "
        f"time, of {limit / GIGA:.0f} GB: {fits}.",
        "Assumed:\n" + "\n".join(f"- {line}" for line in p.assumptions),
    ]
    return "\n\n".join(lines)


def _world(w: Any) -> str:
    lines = [
        f"{w.model}, {w.num_gpus} x {w.gpu}: {w.fps:.1f} frames per second, {w.latency_s:.2f} s from a control to its "
        f"first picture; {w.latents} latents leave after {w.evaluations} evaluations of {w.tokens} tokens",
        table(Table("Seconds of a shift", ("part", "s", "share"), _shares(w.seconds, 1.0))),
        "Assumed:\n" + "\n".join(f"- {line}" for line in w.assumptions),
    ]
    return "\n\n".join(lines)


def _shares(values: Any, unit: float) -> tuple[tuple[Any, ...], ...]:
    whole = sum(values.values()) or 1.0
    return tuple((name, value / unit, f"{value / whole:.0%}") for name, value in values.items())
