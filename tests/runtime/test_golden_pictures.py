"""What the packaged nano draws, against pictures that were looked at: other roundings pass, a broken sampler does not.

`python tests/runtime/test_golden_pictures.py` makes them again, from the weights that are packaged; look at them then.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldrt.benchmarks.likeness import psnr_db, ssim
from worldrt.engine.bundle import load_bundle
from worldrt.engine.packaged import packaged
from worldrt.runtime import Request, Text2Image, Video2World
from worldrt.runtime import request as requests
from worldrt.runtime.models import Models
from worldrt.runtime.samplers import SamplerTable

GOLDEN = Path(__file__).parents[1] / "golden" / "nano"
FACTS = GOLDEN / "facts.json"
SCENE = "A red car drives along the coast of a blue sea at sunset. The road bends to the"
PICTURE, VIDEO = Request(f"{SCENE} left.", seed=3, steps=10), Request(f"{SCENE} right.", seed=3, steps=10)
SHOWN = (0, 8, 16)
LEAST_DB, LEAST_SSIM = 42.0, 0.99
"""Weights and inputs of 8 bits in every linear layer give 52 dB; the nearest of the mistakes below 35 dB."""


@cache
def models() -> Models:
    return Models.open([packaged("nano")], options={"threads": 1})


def drawn(request: Request = PICTURE) -> np.ndarray:
    """uint8 (80, 128, 3)."""
    return Text2Image(models())(request)


def filmed(first: np.ndarray, request: Request = VIDEO) -> np.ndarray:
    """Some frames side by side."""
    frames = list(Video2World(models())(request, first))
    return np.concatenate([frames[i] for i in SHOWN], axis=1)


def facts() -> dict[str, list[int]]:
    """Of the weights that pictures depend on."""
    manifest = load_bundle(packaged("nano")).manifest
    return {
        "sizes": [file.size_bytes for _, file in sorted(manifest.weights.files.items())],
        "sums": [_sum(packaged("nano") / "checkpoint" / name) for name in sorted(manifest.weights.files)],
    }


def _sum(path: Path) -> int:
    return int(np.frombuffer(path.read_bytes()[-(path.stat().st_size // 8 * 8) :], np.uint64).sum(dtype=np.uint64))


def read(name: str) -> np.ndarray:
    known = json.loads(FACTS.read_text()) == facts()
    assert known, (
        "other weights are packaged than drew these pictures: run python tests/runtime/test_golden_pictures.py"
    )
    return np.asarray(Image.open(GOLDEN / f"{name}.png"))


def alike(made: np.ndarray, golden: np.ndarray) -> bool:
    return psnr_db(made, golden) >= LEAST_DB and ssim(made, golden) >= LEAST_SSIM


def test_a_picture_is_the_one_that_was_looked_at():
    assert alike(drawn(), read("picture"))


def test_a_video_is_the_one_that_was_looked_at():
    golden = read("video")
    made = filmed(read("picture"))
    assert alike(made, golden)
    width = made.shape[1] // len(SHOWN)
    assert not alike(made[:, ::-1], golden) and not alike(np.roll(made, width, 1), golden), "the order of frames counts"


def without_memory(table: SamplerTable) -> SamplerTable:
    rows = table.coefficients.copy()
    rows[:, 2] = 0  # the x0 of the step before is forgotten, and nothing put in its place
    return replace(table, coefficients=rows)


def with_a_row_left_out(table: SamplerTable) -> SamplerTable:
    keep = [i for i in range(len(table)) if i != len(table) // 2]
    return replace(table, levels=table.levels[keep], coefficients=table.coefficients[keep])


def with_levels_of_the_next_row(table: SamplerTable) -> SamplerTable:
    return replace(table, levels=np.append(table.levels[1:], table.levels[-1]))


BROKEN_TABLES = (without_memory, with_a_row_left_out, with_levels_of_the_next_row)
BROKEN_REQUESTS = {
    "another solver": {"sampler": "rectified_flow_euler"},
    "no guidance": {"guidance": 0.0},
    "another negative prompt": {"negative_prompt": "A blue car."},
    "another seed": {"seed": 4},
}


@pytest.mark.parametrize("broken", BROKEN_TABLES, ids=lambda broken: broken.__name__)
def test_a_broken_sampler_is_seen(monkeypatch, broken):
    golden, right = read("picture"), requests.samplers.table
    monkeypatch.setattr(requests.samplers, "table", lambda *numbers: broken(right(*numbers)))
    assert not alike(drawn(), golden)


@pytest.mark.parametrize("change", BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS)
def test_what_a_request_changes_is_seen(change):
    assert not alike(drawn(replace(PICTURE, **change)), read("picture"))


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    picture = drawn()
    Image.fromarray(picture).save(GOLDEN / "picture.png", optimize=True)
    Image.fromarray(filmed(picture)).save(GOLDEN / "video.png", optimize=True)
    FACTS.write_text(json.dumps(facts(), indent=1) + "\n")


if __name__ == "__main__":
    main()
