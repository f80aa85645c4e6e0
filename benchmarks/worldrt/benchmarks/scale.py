"""`trt-bench scale`: what ranks say to each other, what that costs the host, and how a clip scales over GPUs.

The graphs are those of real shapes and do nothing, so that neither GPUs nor checkpoints are needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from worldrt.benchmarks.costs.gpus import GPU, gpu
from worldrt.benchmarks.costs.predict import Prediction, Setting, predict
from worldrt.benchmarks.costs.published import SCALING, scaling_words
from worldrt.benchmarks.results import Extra, Figure, Table
from worldrt.benchmarks.scale_ranks import Free, opener, shape, together
from worldrt.benchmarks.statistics import summarize
from worldrt.export.families.cosmos.variants import DiTConfig, variant
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.mesh import mesh
from worldrt.runtime.parallel.modes import shared_denoiser
from worldrt.runtime.parallel.ranks import Mode, Ranks
from worldrt.runtime.parallel.share import Share, cuts_of

Samples = dict[str, list[float]]
GPUS = (2, 4, 8)
RUNS: tuple[tuple[int, int, Mode, int], ...] = (
    *((ranks, groups, "gather", 5) for ranks, groups in ((2, 1), (3, 1), (2, 2), (4, 2))),
    *((4, 1, mode, 1) for mode in ("gather", "ulysses")),
    *((ranks, groups, "ulysses", 5) for ranks, groups in ((2, 1), (4, 1), (4, 2))),
)
"""Ranks, groups of guidance, how those of a group attend to all frames, and latent frames."""
SMALL = DiTConfig(4, 64, 4, (1.0, 1.0, 1.0), condition_mask=True, adaln_rank=8, text_width=16)
ROWS, COLUMNS, TEXT = 8, 8, 4


def run(device: str, rounds: int, scratch: Path, say: Callable[[str], None]) -> tuple[list[Table], Samples, Extra]:
    """Traffic on gloo against the formula, host time per segment, predicted scaling with a figure of it."""
    say("count collectives")
    traffic = _traffic(scratch)
    say("time the host")
    overhead, samples = _overhead(rounds, scratch)
    say("predict")
    scaling = _scaling(gpu(device), max(samples["segment_s"]), scratch, say)
    return [traffic, overhead, scaling], samples, Extra((figure(scaling),))


def figure(scaling: Table) -> Figure:
    """Times faster than one GPU, beside what others have published on eight."""
    series: dict[str, tuple[tuple[float | str, float], ...]] = {}
    for size, resolution, count, _, _, percent, _ in scaling.rows:
        name = f"{size} {resolution}, predicted"
        series[name] = (*series.get(name, ((1, 1.0),)), (count, count * percent / 100))
    for (_, count), (name, shares) in SCALING.items():
        series[f"published: {name}"] = tuple((count, count * share / 100) for share in shares)
    return Figure("scaling", "Scaling of video2world", "GPUs", "times faster than one", series)


def expected(
    config: DiTConfig, clip: DenoiserShape, ranks: int, groups: int, mode: Mode = "gather", item_bytes: int = 4
) -> tuple[int, int]:
    """Collectives that rank 0 takes part in for one guided evaluation, and the bytes that it receives in them.

    A gather for each block, of K and V (2, heads, tokens, head width) of every piece that is not this rank's, padded to
    the most pieces that a rank has. With `ulysses` two all-to-alls for each block, without padding: q, k and v of the
    pieces of others in this rank's heads, then what was attended of its own pieces in the heads of others. And x0 of
    the other text once, where the texts are split.
    """
    parts, rows = ranks // groups, clip.height // 2
    share = Share(0, parts, clip.frames, cuts=cuts_of(clip.frames, parts, rows))
    texts = 1 if groups > 1 else 2
    tokens = rows * (clip.width // 2) // share.cuts
    one = texts * clip.clips * tokens * config.width * item_bytes  # q, k, v or what was attended, of a piece
    x0 = 4 * clip.clips * config.latent_channels * clip.height * clip.width // share.cuts
    sent = share.each * (parts - 1) * 2 * one
    if mode == "ulysses":
        sent = (3 * (share.pieces - share.count) + share.count * (parts - 1)) * one // parts
    for_block, pairs = (0 if parts == 1 else 2 if mode == "ulysses" else 1), (1 if groups > 1 else 0)
    return for_block * config.blocks + pairs, config.blocks * sent + pairs * share.each * x0


def _traffic(scratch: Path) -> Table:
    rows = []
    for number, (ranks, groups, mode, frames) in enumerate(RUNS):
        clip = DenoiserShape(SMALL.latent_channels, frames, ROWS, COLUMNS, TEXT)
        folder = scratch / f"run {number}"
        found = together(ranks, partial(_counted, groups=groups, mode=mode, clip=clip, scratch=folder))
        wanted, mesh_of = expected(SMALL, clip, ranks, groups, mode), f"{groups} x {ranks // groups}"
        same = "yes" if found[0] == wanted else "NO"
        rows.append((ranks, mesh_of, *found[0], *wanted, same, mode, frames))
    columns = ("ranks", "guidance x frames", "collectives", "received_bytes", "formula", "formula_bytes", "equal")
    notes = (
        f"Of rank 0 in one guided evaluation: {SMALL.blocks} blocks of {SMALL.heads} heads, float32, over gloo. "
        "One frame is shared by its rows.",
    )
    return Table("What ranks say to each other", (*columns, "cp_mode", "latent_frames"), tuple(rows), notes)


def _counted(control: Control, groups: int, mode: Mode, clip: DenoiserShape, scratch: Path) -> tuple[int, int]:
    ranks = Ranks(control, cfg=groups, mode=mode)
    made = opener(SMALL, scratch / f"rank {control.rank}", attention_cut=mode == "ulysses")
    bound = shared_denoiser(made, made.bundle.manifest.denoisers["video2world"], ranks).bind(clip, guided=True)
    before = [(c.calls, c.received_bytes) for c in ranks.communicators]
    bound.run()
    after = [(c.calls, c.received_bytes) for c in ranks.communicators]
    ranks.close()
    calls, received = (sum(a[i] - b[i] for a, b in zip(after, before, strict=True)) for i in (0, 1))
    return calls, received


def _step_s(config: DiTConfig, clip: DenoiserShape, size: int, folder: Path, call_s: float, gather_s: float) -> float:
    """An evaluation of one text on one of `size` ranks that wait for nobody; `call_s` of a graph, `gather_s` of a
    collective are slept."""
    control = Host([])
    control.size = size
    ranks = Ranks(control, cfg=1)
    ranks.take(Free(control, range(size), gather_s))
    made = opener(config, folder, latency_s=call_s)
    bound = shared_denoiser(made, made.bundle.manifest.denoisers["video2world"], ranks).bind(clip, guided=False)
    bound.run()
    start = time.perf_counter()
    bound.run()
    return time.perf_counter() - start


def _overhead(rounds: int, scratch: Path) -> tuple[Table, Samples]:
    config = replace(SMALL, blocks=28)
    clip = DenoiserShape(SMALL.latent_channels, 2, 2, 2, TEXT)
    calls = config.blocks + 1
    segment = [_step_s(config, clip, 2, scratch / "overhead", 0, 0) / calls for _ in range(rounds)]
    s = summarize([1e6 * value for value in segment])
    row = (calls, s.count, s.minimum, s.median, s.p90)
    notes = ("A graph that does nothing, the gather behind it, which does nothing too, and the watch over both.",)
    columns = ("segments", "rounds", "min_us", "median_us", "p90_us")
    return Table("Host time of a segment with its collective", columns, (row,), notes), {"segment_s": segment}


def _scaling(device: GPU, segment_s: float, scratch: Path, say: Callable[[str], None]) -> Table:
    rows = []
    for size in ("2B", "14B"):
        dit = variant(size, "video2world").dit
        for resolution in ("480", "720"):
            one = predict(Setting(size, resolution), device)
            for count in GPUS:
                many, lost = _predicted(size, resolution, count, device)
                seconds = (many.transformer_s + many.setting.evaluations / 2 * (dit.blocks + 1) * segment_s) * lost
                share = 100 * one.transformer_s / count / seconds
                group = f"{2 if many.setting.cfg_parallel else 1} x {many.setting.context}"
                published = scaling_words(size, count)
                rows.append((size, f"{resolution}p", count, group, round(seconds, 1), round(share, 1), published))
    say("sleep through a step")
    notes = (
        f"By the cost model on {device.name}, with the host time of a segment above, nothing overlapping, and frames "
        "that do not divide evenly counted as the most that a GPU has.",
        _injected(device, scratch),
    )
    columns = ("model", "size", "GPUs", "guidance x frames", "transformer_s", "efficiency_percent", "published")
    return Table("Predicted scaling of video2world", columns, tuple(rows), notes)


def _predicted(size: str, resolution: str, count: int, device: GPU) -> tuple[Prediction, float]:
    """The prediction on the mesh that a run of so many GPUs chooses, and the loss by frames that do not divide."""
    chosen = mesh(count, guided=True)
    many = predict(Setting(size, resolution, num_gpus=count, cfg_parallel=chosen.cfg > 1), device)
    frames = many.setting.frames or 93
    latents = 1 + (frames - 1) // 4
    return many, -(-latents // chosen.context) * chosen.context / latents


def _injected(device: GPU, scratch: Path) -> str:
    """A step of 2B in 720p on 8 GPUs whose graphs and gathers sleep as long as predicted."""
    config, many = variant("2B", "video2world").dit, predict(Setting("2B", num_gpus=8, cfg_parallel=True), device)
    evaluations = many.setting.evaluations / 2
    gather_s = many.seconds["communication"] / evaluations / config.blocks
    call_s = many.transformer_s / evaluations / (config.blocks + 1) - gather_s
    took = _step_s(config, shape(config), 4, scratch / "injected", call_s, gather_s)
    ideal = (config.blocks + 1) * call_s + config.blocks * gather_s
    return (
        f"With graphs and gathers that sleep as long as predicted for 2B in 720p on 8 GPUs, an evaluation took "
        f"{1e3 * took:.0f} ms of this host, {1e3 * ideal:.0f} ms of which were slept."
    )
