"""How near the steps of a run are to what the machine can do: FLOPs and bytes of the graphs over the time taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.contenders.roof import COPIED_BYTES, PRODUCT_FLOP
from worldrt.benchmarks.costs.walk import walk_component
from worldrt.benchmarks.costs.work import Work
from worldrt.benchmarks.results import Figure, Table
from worldrt.benchmarks.statistics import quantile
from worldrt.benchmarks.worker import Worker
from worldrt.engine.bundle import Bundle

ROUNDS = 7
SPATIAL, TEMPORAL, PATCH = 8, 4, 2
NOTES = (
    "FLOP and bytes are those of the graphs: matrix products, attention, convolutions; weights, inputs and outputs. A "
    "guided step is two evaluations, whose weights are read once. The limit is the larger of FLOP over the rate of a "
    "large product of matrices in float32, and of bytes over the rate of a large copy, by numpy on as many threads.",
)


@dataclass(frozen=True)
class Roof:
    """FLOP/s and bytes/s of this machine."""

    flops: float
    bandwidth: float

    def limit_s(self, work: Work) -> float:
        return max(work.flops / self.flops, (work.weight_bytes + work.edge_bytes) / self.bandwidth)


def measure_roof(threads: int) -> Roof:
    """The best of some rounds, in a process of its own."""
    with Worker("roof", "roof", {}, threads) as worker:
        rounds = [worker.ask("round", index=index)["seconds"] for index in range(ROUNDS)]
    product, copy = (min(seconds[name] for seconds in rounds) for name in ("product", "copy"))
    return Roof(PRODUCT_FLOP / product, 2 * COPIED_BYTES / copy)


def works(bundle: Bundle, load: Workload) -> dict[str, Work]:
    """By stage, those that have a fixed amount of it."""
    manifest = bundle.manifest
    assert manifest.vae is not None
    found: dict[str, Work] = {}
    latents = 1 + (load.num_frames - 1) // TEMPORAL
    for stage, task, size, frames in (
        ("image step", "text2image", load.image_size, 1),
        ("video step", "video2world", load.video_size, latents),
    ):
        axes = _axes(load, size, frames, batch=2)
        found[stage] = sum(walk_component(bundle, manifest.denoisers[task], axes).values(), Work())
    picture, clip = (
        walk_component(
            bundle, manifest.vae, _axes(load, size, 1) | {"rows": size[1] // SPATIAL, "columns": size[0] // SPATIAL}
        )
        for size in (load.image_size, load.video_size)
    )
    found["encode"] = clip["encode_first"]
    found["decode"] = picture["decode_first"] + clip["decode_first"] + clip["decode_next"] * (latents - 1)
    return found


def _axes(load: Workload, size: tuple[int, int], frames: int, batch: int = 1) -> dict[str, int]:
    """`rows` and `columns` are those of tokens."""
    columns, rows = (pixels // SPATIAL // PATCH for pixels in size)
    return {
        **{"batch": batch, "frames": frames, "context_frames": frames, "text": load.text_tokens},
        **{"rows": rows, "columns": columns, "tokens": rows * columns},
    }


def table(work: Mapping[str, Work], seconds: Mapping[str, Sequence[float]], roof: Roof) -> Table:
    """`seconds` of the rounds, by stage."""
    rows = []
    for stage, needed in work.items():
        took, limit = quantile(seconds[stage], 0.5), roof.limit_s(needed)
        moved = needed.weight_bytes + needed.edge_bytes
        rate = needed.flops / took
        rows.append((stage, needed.flops / 1e9, moved / 2**20, 1e3 * limit, 1e3 * took, rate / 1e9, 100 * limit / took))
    columns = ("stage", "GFLOP", "MiB", "limit_ms", "p50_ms", "GFLOP/s", "% of the limit")
    best = f"{roof.flops / 1e9:.0f} GFLOP/s and {roof.bandwidth / 1e9:.1f} GB/s were reached here."
    return Table("Distance to the limit of this machine", columns, tuple(rows), (*NOTES, best))


def figure(work: Mapping[str, Work], seconds: Mapping[str, Sequence[float]], roof: Roof) -> Figure:
    """The same as a roofline."""
    series: dict[str, tuple[tuple[float | str, float], ...]] = {
        "roof": ((roof.flops / roof.bandwidth, roof.flops / 1e9),)
    }
    for stage, needed in work.items():
        intensity = needed.flops / (needed.weight_bytes + needed.edge_bytes)
        series[stage] = ((intensity, needed.flops / quantile(seconds[stage], 0.5) / 1e9),)
    return Figure("roofline", "Roofline of this machine", "FLOP per byte", "GFLOP/s", series)
