"""Tables of the cost model for its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worldrt.benchmarks import render
from worldrt.benchmarks.costs import fit, published
from worldrt.benchmarks.costs.gpus import GPU, gpu
from worldrt.benchmarks.costs.predict import Setting, levers, predict
from worldrt.benchmarks.costs.runs import run_work
from worldrt.benchmarks.costs.world import predict_world
from worldrt.benchmarks.results import Table

SIZES = (("2B", "480"), ("2B", "720"), ("14B", "480"), ("14B", "720"))
TERA, PETA, GIGA = 1e12, 1e15, 1e9


def section(text: str) -> str:
    """`NAME`, or `NAME GPU`. Raises `ValueError` for a name that is none."""
    name, _, device = text.partition(" ")
    makers: dict[str, Callable[[GPU], Table]] = {
        "work": lambda _: work(),
        "fit": lambda _: rates(),
        "errors": lambda _: errors(),
        "sparse": lambda _: sparse(),
        "where": where,
        "levers": lever_table,
        "memory": memory,
        "received": received,
        "worlds": worlds,
        "scaling": scaling,
    }
    if name not in makers:
        raise ValueError(f"there are {', '.join(makers)}")
    return render.table(makers[name](gpu(device or "h200"))).partition("\n\n")[2]


def work() -> Table:
    """Of an evaluation and of the steps beside it."""
    rows = []
    for size, resolution in SIZES:
        run = run_work(size, resolution)
        e = run.evaluation
        vae = tuple(w.flops / TERA for w in (run.encode, run.decode))
        share = f"{e.attention / e.flops:.0%}"
        rows.append((f"{size} {resolution}p", run.clip.tokens, e.linear / TERA, e.attention / TERA, share, *vae,
                     e.weight_bytes / GIGA, published.EVALUATIONS * e.flops / PETA))  # fmt: skip
    columns = (
        *("model", "tokens", "linear TFLOP", "attention TFLOP", "attention", "VAE encode TFLOP", "VAE decode TFLOP"),
        *("weights GB", "72 evaluations PFLOP"),
    )
    return Table("Work", columns, tuple(rows))


def rates() -> Table:
    """What was fitted."""
    rows = []
    for name, found in fit.fitted().items():
        peak = gpu(name).peak
        shares = (f"{found.gemm / peak:.0%}", f"{found.attention / peak:.0%}")
        rows.append((name, round(found.gemm / TERA), shares[0], round(found.attention / TERA), shares[1]))
    shared = next(iter(fit.fitted().values())).shared
    note = (
        f"Shared by all: {shared.passes:.0f} passes over the hidden state in each block, the VAE at "
        f"{shared.vae_share:.0%} of the rate of matrix products, and {shared.beside_s:.1f} s beside."
    )
    return Table(
        "Rates", ("GPU", "matrix products TFLOP/s", "of peak", "attention TFLOP/s", "of peak"), tuple(rows), (note,)
    )


def errors() -> Table:
    """Predicted and published, side by side."""
    found, rows = fit.errors(), []
    for name in published.DENSE_S:
        for case, seconds in published.times_s(name).items():
            error = found[name, case]
            rows.append((name, case.title, float(seconds), seconds * (1 + error), f"{error:+.1%}"))
    worst = max(map(abs, found.values()))
    note = f"{len(found)} times; the largest error is {worst:.1%}. Published: {published.SOURCE}"
    return Table("Errors", ("GPU", "run", "published s", "predicted s", "error"), tuple(rows), (note,))


def sparse() -> Table:
    """Times that took no part in the fit."""
    rows = []
    for name, times in published.SPARSE_S.items():
        for case, seconds in zip(published.SPARSE_CASES, times, strict=True):
            run = run_work(case.size, case.resolution, case.fps, sparse=True)
            predicted = fit.seconds(run, gpu(name), fit.fitted()[name])
            rows.append((name, case.title, float(seconds), predicted, f"{predicted / seconds - 1:+.1%}"))
    return Table("Sparse", ("GPU", "run", "published s", "predicted s", "error"), tuple(rows))


def where(device: GPU) -> Table:
    """Where the time of a run on one GPU goes."""
    made = {f"{size} {resolution}p": predict(Setting(size, resolution), device) for size, resolution in SIZES}
    parts = next(iter(made.values())).seconds
    rows = [
        (part, *(f"{p.seconds[part]:.1f} s ({p.seconds[part] / p.total_s:.0%})" for p in made.values()))
        for part in parts
        if part != "communication"
    ]
    rows.append(("together", *(f"{p.total_s:.1f} s" for p in made.values())))
    return Table("Where", ("part", *made), tuple(rows))


def lever_table(device: GPU) -> Table:
    """What each lever would bring."""
    made = {f"{size} {resolution}p": levers(Setting(size, resolution), device) for size, resolution in SIZES}
    base = {case: next(iter(found.values())) for case, found in made.items()}
    rows = []
    for name in next(iter(made.values())):
        cells = []
        for case, found in made.items():
            one, first = found[name], base[case]
            cells.append(
                "-" if one is None or first is None else f"{one.total_s:.1f} s, {first.total_s / one.total_s:.2f}x"
            )
        rows.append((name, *cells))
    return Table("Levers", ("lever", *made), tuple(rows))


def memory(device: GPU) -> Table:
    """Of one GPU, in GB."""
    settings = {
        "2B 720p": Setting("2B"),
        "14B 720p": Setting("14B"),
        "14B 720p, FP8": Setting("14B", fp8=True),
        "14B 720p, 8 GPUs": Setting("14B", num_gpus=8, cfg_parallel=True),
    }
    made = {name: predict(setting, device) for name, setting in settings.items()}
    parts = next(iter(made.values())).memory_bytes
    rows = [(part, *(p.memory_bytes[part] / GIGA for p in made.values())) for part in parts]
    rows.append(("all models there at once", *(p.resident_bytes / GIGA for p in made.values())))
    rows.append(("one model at a time", *(p.staged_bytes / GIGA for p in made.values())))
    return Table("Memory", ("GB", *made), tuple(rows))


def received(device: GPU) -> Table:
    """What a GPU receives in a run."""
    rows = []
    for size, resolution in SIZES:
        for cfg in (False, True):
            p = predict(Setting(size, resolution, num_gpus=8, cfg_parallel=cfg), device)
            way = "guidance on 2, tokens on 4" if cfg else "tokens on 8"
            volume, seconds = sum(p.received_bytes.values()) / GIGA, p.seconds["communication"]
            share = f"{seconds / p.transformer_s:.0%}"
            rows.append((f"{size} {resolution}p", way, volume, seconds, share))
    return Table("Received", ("model", "8 GPUs", "received GB", "s", "of the transformer's time"), tuple(rows))


def worlds(device: GPU) -> Table:
    """Of The Matrix, on one GPU and on several, and of OpenDWM."""
    rows = []
    for model in ("matrix-stage3", "matrix-stage4", "opendwm"):
        for count in (1, 2, 4, 8) if model != "opendwm" else (1,):
            w = predict_world(model, device, count)
            denoising = w.total_s - w.seconds["VAE decode"]
            rows.append((model, count, w.frames, denoising, w.seconds["VAE decode"], w.fps, w.latency_s))
    columns = (
        "model",
        "GPUs",
        "frames of a shift",
        "denoise s",
        "decode s",
        "frames per second",
        "control to picture s",
    )
    notes = predict_world("matrix-stage4", device).assumptions
    return Table("Worlds", columns, tuple(rows), tuple(f"Assumed: {line}." for line in notes))


def scaling(device: GPU) -> Table:
    """Of whole runs at 720p over GPUs, beside what others published."""
    ways: dict[str, dict[str, Any]] = {
        "tokens": {},
        "guidance on 2, tokens": {"cfg_parallel": True},
        "the same, and the VAE": {"cfg_parallel": True, "vae_parallel": True},
    }
    rows = []
    for size in ("2B", "14B"):
        alone = predict(Setting(size), device).total_s
        for way, change in ways.items():
            for count in (2, 4, 8):
                many = predict(Setting(size, num_gpus=count, **change), device).total_s
                shown = published.scaling_words(size, count) if way == "tokens" else ""
                rows.append((size, way, count, many, alone / many, f"{alone / many / count:.0%}", shown))
    columns = ("model", "divided", "GPUs", "run s", "times faster", "of ideal", "published")
    return Table("Scaling", columns, tuple(rows))
