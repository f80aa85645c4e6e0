"""The 2B video transformer at 480p with random weights, by torch: each block, whole evaluations, a few guided steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from worldrt.benchmarks.gpu._torch import materialised, peak_gb, plain_rope
from worldrt.benchmarks.gpu.base import Made, Samples, Setup, first_line, row, timed
from worldrt.benchmarks.gpu.block import captured, flops
from worldrt.benchmarks.results import Table
from worldrt.export.families.cosmos.denoiser import Denoise
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import PATCH, VAE_SCALE, Variant, variant
from worldrt.runtime.samplers import rectified_flow_ab2

STEPS = 3
Call = Callable[[], object]
Given = tuple[Any, ...]


@torch.no_grad()
def run(setup: Setup) -> Iterator[Made]:
    """nano and a tiny clip in a dry run."""
    plain_rope()
    v, dtype, frames, height, width = model_of(setup)
    dit = materialised(lambda: DiT(v.dit), setup.device, dtype)
    denoise = Denoise(dit)
    given = _clip(v, setup.device, frames, height, width)
    title = f"{v.size} on {setup.device}, {frames} x {height // PATCH} x {width // PATCH} tokens"
    columns = ("min_ms", "median_ms", "p90_ms")

    times = _by_block(setup, dit, lambda: denoise(*given))
    parts = tuple((name, *row(values)) for name, values in times.items())
    yield [Table(f"{title}: parts of an eager evaluation", ("part", *columns), parts)], _samples(times)

    yield _steps(setup, title, v, denoise, given)

    rate = flops(v.dit, frames * height * width // PATCH**2) * v.dit.blocks / 1e12
    for mode, prepare in _modes(setup, dit, denoise, given).items():  # one by one: compiling may take all the time left
        yield _evaluated(setup, title, mode, prepare, rate)


def _evaluated(setup: Setup, title: str, mode: str, prepare: Callable[[], Call], rate: float) -> Made:
    """`rate`: TFLOP of an evaluation. A mode that fails is a line that says why."""
    samples: Samples = {}
    try:
        values = timed(setup, prepare(), warmups=1)
    except Exception as failure:
        line: tuple[Any, ...] = (f"{mode}: {first_line(failure)}", *[None] * 5)
    else:
        samples[f"evaluation, {mode}_s"] = values
        line = (mode, *row(values), rate / min(values), peak_gb(setup.device))
    notes = ("An evaluation is of one text; a guided step has two. TFLOP/s counts the blocks alone.",)
    columns = ("mode", "min_ms", "median_ms", "p90_ms", "TFLOP/s", "peak_GB")
    return [Table(f"{title}: evaluations, {mode}", columns, (line,), notes)], samples


def model_of(setup: Setup) -> tuple[Variant, torch.dtype, int, int, int]:
    """What is run: variant, dtype, latent frames, latent rows and columns."""
    if setup.dry:
        return variant("nano", "video2world"), torch.float32, 2, 4, 4
    v = variant("2B", "video2world")
    width, height = v.pixel_size(resolution="480")
    return v, torch.bfloat16, v.clip_latents(), height // VAE_SCALE, width // VAE_SCALE


def _steps(setup: Setup, title: str, v: Variant, denoise: Denoise, given: Given) -> Made:
    """Guided steps down the sampler's own table, both texts one after the other, the update written out in torch."""
    table = rectified_flow_ab2(v.sampler.steps, v.sampler.sigma_max, v.sampler.sigma_min)
    x, level, text, *rest = given
    x, other, previous, index = x * float(table.levels[0]), torch.randn_like(text), torch.zeros_like(x), 0

    def step() -> None:
        nonlocal x, previous, index
        level.fill_(float(table.levels[index]))
        cond, uncond = denoise(x, level, text, *rest), denoise(x, level, other, *rest)
        x0 = cond + v.guidance * (cond - uncond)
        a, b, c, _ = map(float, table.coefficients[index])
        x, previous, index = a * x + b * x0 + c * previous, x0, index + 1

    values = timed(replace(setup, rounds=STEPS), step, warmups=1)
    finite = "yes" if bool(torch.isfinite(x).all()) else "NO"
    columns = ("steps", "min_ms", "median_ms", "p90_ms", "finite", "peak_GB")
    rows = ((len(values), *row(values), finite, peak_gb(setup.device)),)
    return [Table(f"{title}: guided steps, eager", columns, rows)], {"step_s": values}


def _modes(setup: Setup, dit: DiT, denoise: Denoise, given: Given) -> dict[str, Callable[[], Call]]:
    """Ways to run an evaluation, each made when its turn comes. The stem copies numbers from the host, so a CUDA graph
    holds the blocks and the last layer; so does the compiled way, in which one block serves all."""
    x, level, text, position, _, mask = given
    hidden, cond, tables = dit.stem(x, level, position, mask)
    arguments = (text.to(hidden.dtype), cond, *(table.flatten(0, 1).unsqueeze(0) for table in tables))
    first = dit.block(0)

    def blocks(run: Callable[..., torch.Tensor]) -> torch.Tensor:
        state = hidden
        for number in range(len(dit.blocks)):
            state = run(number, state)
        made: torch.Tensor = dit.final(state, cond, x.shape[3] // PATCH, x.shape[4] // PATCH)
        return made

    def graph() -> Call:
        return captured(lambda: blocks(lambda number, state: dit.block(number)(state, *arguments)))

    def compiled() -> Call:
        def shared(weights: dict[str, Any], *given: Any) -> Any:
            return torch.func.functional_call(first, weights, given)

        fast = torch.compile(shared)
        states: list[dict[str, Any]] = [dict(dit.block(number).named_parameters()) for number in range(len(dit.blocks))]
        return lambda: blocks(lambda number, state: fast(states[number], state, *arguments))

    eager: dict[str, Callable[[], Call]] = {"eager": lambda: lambda: denoise(*given)}
    if setup.dry:
        return eager
    return eager | {"CUDA graph of the blocks": graph, "one compiled block for all": compiled}


def _by_block(setup: Setup, dit: DiT, call: Call) -> dict[str, list[float]]:
    """Seconds of the stem, of each block and of the last layer, by hooks around them."""
    modules = {"stem": dit.stem, **{f"block {i}": b for i, b in enumerate(dit.blocks)}, "final": dit.final}
    marks: dict[str, list[Any]] = {name: [] for name in modules}
    hooks = []
    for name, module in modules.items():
        mark = _marker(setup, marks[name])
        hooks += [module.register_forward_pre_hook(mark), module.register_forward_hook(mark)]
    for _ in range(min(setup.rounds, 5) + 1):
        call()
    if not setup.dry:
        torch.cuda.synchronize()
    for hook in hooks:
        hook.remove()
    return {name: [_between(*made[i : i + 2]) for i in range(2, len(made), 2)] for name, made in marks.items()}


def _marker(setup: Setup, marks: list[Any]) -> Callable[..., None]:
    event: Any = torch.cuda.Event

    def mark(*_: Any) -> None:
        marks.append(time.perf_counter() if setup.dry else event(enable_timing=True))
        if not setup.dry:
            marks[-1].record()

    return mark


def _between(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else float(start.elapsed_time(end)) / 1e3


def _samples(times: dict[str, list[float]]) -> Samples:
    return {f"{name}_s": values for name, values in times.items()}


def _clip(v: Variant, device: str, frames: int, height: int, width: int) -> Given:
    """x, level, text, position, clean, mask, with the first frame known."""
    torch.manual_seed(0)
    shape = (1, v.dit.latent_channels, frames, height, width)
    mask = torch.zeros(1, frames, device=device)
    mask[:, 0] = 1
    return (
        torch.randn(shape, device=device),
        torch.full((1, frames), 2.0, device=device),
        torch.randn(1, v.t5.tokens, v.dit.text_width, device=device),
        torch.arange(frames, dtype=torch.float32, device=device),
        torch.randn(shape, device=device),
        mask,
    )
