"""Measures the trained nano world on scenes that no training saw, with the runtime that users run.

python examples/nano/evaluate.py --bundle bundles/nano --judge runs/judge --strips strips [--json FILE]

- `vae_psnr_db`: of clips that are encoded and decoded, as the world has them; `turning_vae_psnr_db`: of the clips of
  `bends`, in all of which the car begins to turn.
- `attributes`: share of pictures in which the judge sees the place, weather, time and colour that the prompt asks for;
  `of_drawn` is the same for pictures that the world drew, the most that the judge can tell.
- `bends`: share of videos, told to bend to a side, in which the judge sees a road that bends to that side at the end.
- `first_frame_psnr_db`: of the first frame of a video against the picture that it starts from.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import averaged
from PIL import Image
from render import render
from scene import Scene, sample
from train_judge import HEADS, Judge, as_input

from worldrt.runtime import Request, Text2Image, Video2World
from worldrt.runtime.vae import VaeCodec

HELD_OUT = 9_100_000
LATENTS = 5
FRAMES = 4 * LATENTS - 3


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bundle", type=Path, required=True)
    p.add_argument("--judge", type=Path, required=True, help="a run of train_judge.py")
    p.add_argument("--pictures", type=int, default=60)
    p.add_argument("--videos", type=int, default=16)
    p.add_argument("--clips", type=int, default=96, help="drawn ones, for the VAE; they differ by 3 dB and more")
    p.add_argument("--guidance", type=float, help="default: the model's own")
    p.add_argument("--steps", type=int, help="default: the model's own")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--strips", type=Path, help="folder for PNG strips of what was made")
    p.add_argument("--json", type=Path)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    judge = Judge().eval()
    judge.load_state_dict(averaged(args.judge))
    options = {"backend": "onnxruntime", "options": {"threads": args.threads}}
    wish = {"guidance": args.guidance, "steps": args.steps}
    found = pictures(args.bundle, judge, args.pictures, wish, options, args.strips)
    found |= videos(args.bundle, judge, args.videos, wish, options, args.strips)
    found |= codec(args.bundle, args.clips, options)
    text = json.dumps(found, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


def scenes(count: int, first: int = HELD_OUT) -> list[Scene]:
    """Held-out scenes that hold one action throughout."""
    return [sample(first + i, LATENTS, steady=True) for i in range(count)]


def pictures(
    bundle: Path, judge: Judge, count: int, wish: dict[str, Any], options: dict[str, Any], strips: Path | None
) -> dict[str, Any]:
    """What the judge sees in pictures made from captions, and in those that the world draws for them."""
    asked = scenes(count)
    with Text2Image.open(bundle, **options) as draw:
        made = [draw(Request(prompt=scene.caption, seed=scene.seed, **wish)) for scene in asked]
    drawn = [render(scene, 1)[0] for scene in asked]
    if strips is not None:
        write_strip(strips / "pictures.png", [drawn[:8], made[:8], drawn[8:16], made[8:16]])
    return {"attributes": right(judge, made, asked), "of_drawn": right(judge, drawn, asked)}


def videos(
    bundle: Path, judge: Judge, count: int, wish: dict[str, Any], options: dict[str, Any], strips: Path | None
) -> dict[str, Any]:
    """How videos go on from drawn pictures: faithful to the first frame, and to the side that the prompt names."""
    sides = ("DL", "DR")
    asked = [replace(scene, actions=("D",) + (sides[i % 2],) * (LATENTS - 1)) for i, scene in enumerate(scenes(count))]
    first, turning, bends, rows = [], [], [], []
    with Video2World.open(bundle, **options) as world:
        vae = world.models.vae("video2world")
        for number, scene in enumerate(asked):
            truth = render(scene, FRAMES)
            said = replace(scene, actions=(scene.actions[-1],)).caption
            made = np.stack(list(world(Request(prompt=said, seed=scene.seed, **wish), truth[0])))
            first.append(psnr_db(made[:1], truth[:1]))
            turning.append(through(vae, truth))
            bends.append(_bend(judge, made[-4:]) * (1 if number % 2 else -1))
            rows += [list(truth[:: FRAMES // 4]), list(made[:: FRAMES // 4])] if number < 4 else []
    if strips is not None and rows:
        write_strip(strips / "videos.png", rows)
    return {
        "bends": share([bend > 0 for bend in bends]),
        "first_frame_psnr_db": round(sum(first) / len(first), 2),
        "turning_vae_psnr_db": round(sum(turning) / len(turning), 2),
    }


def codec(bundle: Path, count: int, options: dict[str, Any]) -> dict[str, float]:
    """Drawn clips, encoded and decoded: the mean, and its standard error."""
    with Video2World.open(bundle, **options) as world:
        vae = world.models.vae("video2world")
        found = [through(vae, render(sample(HELD_OUT + 500 + i, LATENTS), FRAMES)) for i in range(count)]
    return {
        "vae_psnr_db": round(float(np.mean(found)), 2),
        "vae_psnr_error_db": round(float(np.std(found)) / count**0.5, 2),
    }


def through(vae: VaeCodec, frames: np.ndarray) -> float:
    """PSNR of frames that are encoded and decoded."""
    return psnr_db(np.stack(list(vae.decode(vae.encode(frames)))), frames)


def _bend(judge: Judge, frames: np.ndarray) -> float:
    """Mean curvature in frames; positive to the right."""
    with torch.no_grad():
        return float(judge(as_input(frames))["curvature"].mean())


def right(judge: Judge, made: Sequence[np.ndarray], asked: Sequence[Scene]) -> dict[str, float]:
    """Share of pictures in which the judge sees what the scene says, by attribute."""
    with torch.no_grad():
        said = judge(as_input(np.stack(made)))
    return {
        name: share([values[int(i)] == getattr(s, name) for i, s in zip(said[name].argmax(1), asked, strict=True)])
        for name, values in HEADS.items()
    }


def psnr_db(made: np.ndarray, truth: np.ndarray) -> float:
    """Of uint8 frames."""
    error = np.mean((made.astype(np.float64) - truth) ** 2)
    return 10 * math.log10(255**2 / max(error, 1e-9))


def share(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 3)


def write_strip(place: Path, rows: Sequence[Sequence[np.ndarray]]) -> None:
    """A PNG of rows of frames, those that are as long as the first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = [np.concatenate(list(row), 1) for row in rows if len(row) == len(rows[0])]
    Image.fromarray(np.concatenate(whole)).save(place)


if __name__ == "__main__":
    main()
