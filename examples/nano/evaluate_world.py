"""Measures the trained Matrix nano on drives that no training saw, with the runtime that users run.

python examples/nano/evaluate_world.py --bundle runs/nano-matrix --nano runs/nano --judge runs/judge --strips strips

- `vae_psnr_db`: of drives, encoded as the transformer's training has them (by the Cosmos nano, `--nano`) and decoded as
  a stream; `own_vae_psnr_db`: of pictures that the world's own VAE encodes and decodes.
- `steered`: share of the latents of a drive with a wheel that turns, in which the judge sees a road that bends to the
  side of the control; `drawn_steered` is the same of drives that the world draws.
- `delay_frames`: by how many frames the bend follows the control of these frames (drawn: the car's own lag). A key has
  to wait for the latents in flight besides, `in_flight_frames`.
- `drift`: a drive of `--minutes`, its first minute against its last: mean and deviation of each colour (of 255), and
  the mean bend that the judge sees under DL, D, DR (1 is a full bend).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import averaged
from drives import FRAMES, frames_of
from encode_drives import drive_of, encoded
from evaluate import psnr_db, write_strip
from render import render
from train_judge import Judge, as_input
from world_levels import PHASES

from worldrt.runtime import Video2World
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.schedule import methods

HELD_OUT = 6_200_000
"""Number of a drive: far beyond those of any training."""
BEND = {"DL": -1, "DR": 1}
LEADS = 24
"""Frames over which the delay is looked for."""
SHOWN = 6
"""Clips on the strip of what the decoder makes."""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bundle", type=Path, required=True)
    p.add_argument("--nano", type=Path, help="the bundle of the Cosmos nano; without it its VAE is not compared")
    p.add_argument("--judge", type=Path, required=True, help="a run of train_judge.py")
    p.add_argument("--clips", type=int, default=48, help="drawn ones, for the VAE")
    p.add_argument("--drives", type=int, default=6, help="steered ones")
    p.add_argument("--seconds", type=int, default=20, help="of each steered drive")
    p.add_argument("--minutes", type=float, default=5.0, help="of the long drive; 0: none")
    p.add_argument("--steps", type=int, help="of each latent, in place of the model's own, as 20 for a teacher")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--strips", type=Path, help="folder for PNG strips of what was made")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    judge = Judge().eval()
    judge.load_state_dict(averaged(args.judge))
    options = {"threads": args.threads}
    schedule = methods.swin_dpm(args.steps, PHASES, 1) if args.steps else None
    world = World(Models.open([args.bundle], backend="onnxruntime", options=options), schedule=schedule)
    found: dict[str, Any] = codec(world, args.nano, args.clips, args.strips)
    found |= steering(world, judge, args.drives, args.seconds, args.strips)
    if args.minutes:
        found["drift"] = drift(world, judge, round(60 * args.minutes), args.strips)
    text = json.dumps(found, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


def codec(world: World, nano: Path | None, count: int, strips: Path | None) -> dict[str, float]:
    """Drives through the decoder, and through encoder and decoder."""
    found: dict[str, list[float]] = {}
    drawn = [render(drive_of(HELD_OUT + i), 17) for i in range(count)]
    for frames in drawn:
        made = np.stack(list(world.vae.decode(world.vae.encode(frames))))[FRAMES - 1 :]  # the first latent is one frame
        found.setdefault("own_vae_psnr_db", []).append(psnr_db(made, frames))
    if nano is not None:
        with Video2World.open(nano, backend="onnxruntime", options={"threads": 1}) as cosmos:
            vae, rows = cosmos.models.vae("video2world"), []
            for i in range(count):
                latents, frames = encoded(vae, HELD_OUT + i), frames_of(drive_of(HELD_OUT + i), 0, 12)
                made = np.stack(list(world.vae.decode(latents[None, :, :12])))
                found.setdefault("vae_psnr_db", []).append(psnr_db(made, frames))
                rows += [list(frames[3::8]), list(made[3::8])] if i < SHOWN else []
        if strips is not None:
            write_strip(strips / "world-vae.png", rows)
    return {name: round(sum(values) / len(values), 2) for name, values in found.items()}


def signal_of(seed: int, latents: int) -> list[str]:
    """A wheel that turns now and then, each way as often: blocks of 6 to 12 latents."""
    rng = np.random.default_rng([seed, 11])
    made: list[str] = []
    while len(made) < latents:
        others = [action for action in ("D", "DL", "DR") if not made or action != made[-1]]
        made += [str(rng.choice(others))] * int(rng.integers(6, 13))
    return made[:latents]


def steering(world: World, judge: Judge, count: int, seconds: int, strips: Path | None) -> dict[str, Any]:
    """Whether the road obeys, how soon, and what the judge says of drawn roads under the same controls."""
    pairs, drawn, rows = [], [], []
    for i in range(count):
        scene = drive_of(HELD_OUT + 100 + i)
        signal = signal_of(i, 4 * seconds + 16)
        frames = list(world.generate(scene.caption.partition(".")[0] + ".", seconds, signal, seed=i))
        pairs.append((signal[world.schedule.given :], bends(judge, frames)))  # those of the history are not shown
        truth = render(replace(scene, actions=("D", *signal)), len(frames) + 1)[1:]
        drawn.append((signal, bends(judge, list(truth))))
        rows.append([frames[n] for n in range(len(frames) // 2, len(frames), 16)][:10])
    if strips is not None:
        write_strip(strips / "world.png", rows)
    delay = best_delay(pairs)
    return {
        "steered": obeyed(pairs, delay),
        "delay_frames": delay,
        "drawn_steered": obeyed(drawn, best_delay(drawn)),
        "drawn_delay_frames": best_delay(drawn),
        "in_flight_frames": FRAMES * world.schedule.slots,
    }


def bends(judge: Judge, frames: Sequence[np.ndarray]) -> np.ndarray:
    """What the judge sees in each frame; 1 is a full bend to the right."""
    with torch.no_grad():
        parts = [judge(as_input(np.stack(frames[n : n + 64])))["curvature"] for n in range(0, len(frames), 64)]
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def wheel(signal: Sequence[str], frames: int) -> np.ndarray:
    """-1, 0 or 1 for each frame."""
    return np.repeat([BEND.get(action, 0) for action in signal], FRAMES)[:frames]


def best_delay(pairs: Sequence[tuple[Sequence[str], np.ndarray]]) -> int:
    """The delay, in frames, at which bends go best with the wheel."""

    def match(delay: int) -> float:
        parts = [(wheel(signal, len(b))[: len(b) - LEADS], b[delay : len(b) - LEADS + delay]) for signal, b in pairs]
        told, seen = (np.concatenate(side) for side in zip(*parts, strict=True))
        return float(np.corrcoef(told, seen)[0, 1])

    return max(range(LEADS), key=match)


def obeyed(pairs: Sequence[tuple[Sequence[str], np.ndarray]], delay: int) -> float:
    """Share of the frames under a turned wheel, seen `delay` frames later, whose road bends to its side."""
    right = []
    for signal, seen in pairs:
        told = wheel(signal, len(seen) - delay)
        right += list((told * seen[delay:] > 0)[told != 0])
    return round(float(np.mean(right)), 3)


def drift(world: World, judge: Judge, seconds: int, strips: Path | None) -> dict[str, Any]:
    """The first minute of a long drive against its last."""
    scene, signal = drive_of(HELD_OUT + 50), signal_of(50, 4 * seconds + 16)
    minute = 60 * world.video.fps
    ends: list[list[np.ndarray]] = [[], []]
    total, row = seconds * world.video.fps, []
    for number, frame in enumerate(shown(world, scene.caption.partition(".")[0] + ".", seconds, signal)):
        if number < minute:
            ends[0].append(frame)
        if number >= total - minute:
            ends[1].append(frame)
        if number % max(1, total // 10) == total // 20:
            row.append(frame)
    if strips is not None:
        write_strip(strips / "world-long.png", [row])
    found = {}
    for name, frames, first in zip(("first", "last"), ends, (0, total - len(ends[1])), strict=True):
        told = wheel(signal[world.schedule.given :], total)[first : first + len(frames)]
        seen = bends(judge, frames)
        pixels = np.stack(frames[::16]).reshape(-1, 3)
        found[name] = {
            "mean": [round(float(v), 1) for v in pixels.mean(0)],
            "deviation": [round(float(v), 1) for v in pixels.std(0)],
            "bend": {
                key: round(float(seen[told == side].mean()), 2) for key, side in (("DL", -1), ("D", 0), ("DR", 1))
            },
        }
    return found


def shown(world: World, prompt: str, seconds: int, signal: Sequence[str]) -> Iterator[np.ndarray]:
    """The frames of a drive."""
    yield from world.generate(prompt, seconds, signal, seed=7)


if __name__ == "__main__":
    main()
