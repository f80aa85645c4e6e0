"""Sampling runs of a bundle, made by the runtime in a process of its own and read back from files.

The exporter does not import the runtime: it knows its command line and the names of the files that it records
(`worldrt.runtime.record`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.bundle import Manifest
from worldrt.engine.errors import BackendError, InputError

Array = np.ndarray[Any, Any]
PROMPTS = (
    "A red car drives along a coast road in the evening sun, waves break on the rocks below",
    "A robot arm puts a glass on a wooden table in a bright kitchen",
    "Snow falls on a quiet street at night, a tram with lit windows passes",
)
"""The last one is for the comparison of frames alone; ranges are taken from the others."""
SMALL = 200_000
"""Pixels of a clip that takes seconds on a CPU."""


@dataclass(frozen=True)
class Size:
    """How large the runs of calibration and of the comparison are. More is better and slower."""

    width: int = 160
    height: int = 96
    num_frames: int = 9
    steps: int = 35
    recorded_steps: int = 8

    @property
    def pixels(self) -> int:
        return self.width * self.height * self.num_frames


def size_of(text: str) -> Size:
    """`160x96x9`: width, height and frames. Raises `InputError`."""
    found = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})x([1-9]\d{0,3})", text)
    if found is None:
        raise InputError(f"--calibration_size '{text}': expected WIDTHxHEIGHTxFRAMES such as 160x96x9")
    return Size(*(int(number) for number in found.groups()))


def usual_size(manifest: Manifest) -> Size:
    """That of the model's own clips where they are small enough for a CPU; a small one otherwise."""
    own = [Size(*spec.first_size, max(spec.frames.values())) for spec in manifest.denoisers.values()]
    largest = max(own, key=lambda size: size.pixels)
    return largest if largest.pixels <= SMALL else Size()


@dataclass(frozen=True)
class Recorded:
    """One call of a denoiser: its float32 inputs by name, of batch 1."""

    inputs: Mapping[str, Array]

    @property
    def level(self) -> float:
        """The noise level of the frames that are not given."""
        return float(self.inputs["level"].max())


def run(bundle: Path, task: str, prompt: str, size: Size, folder: Path, picture: Path | None, seed: int = 0) -> None:
    """Sample once and keep inputs and frames in `folder`. Raises `BackendError` where the run fails."""
    numbers = {"width": size.width, "height": size.height, "steps": size.steps, "seed": seed}
    numbers |= {"record_steps": size.recorded_steps}
    words = ["--bundle", str(bundle), "--prompt", prompt, "--record_inputs", str(folder), "--save_path", "null:"]
    if task != "text2image":
        numbers |= {"num_frames": size.num_frames}
        words += ["--input_path", str(picture)]
    words += [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "worldrt.runtime", task, *words, "--cfg", "sequential", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BackendError(f"{task}: a sampling run for quantisation failed: {reason[-1].removeprefix('error: ')}")


def recorded(folder: Path, task: str) -> list[Recorded]:
    """The recorded calls of a task, in the order of their rows. Raises `InputError` where there are none."""
    paths = sorted(folder.glob(f"{task}-*.npz"))
    if not paths:
        raise InputError(
            f"{folder}: no recorded inputs of {task}; make some: trt-run {task} ... --record_inputs {folder}"
        )
    try:
        return [Recorded({name: np.asarray(data[name]) for name in data.files}) for data in map(_load, paths)]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: recorded inputs cannot be read: {error}") from error


def _load(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def frames(folder: Path) -> Iterator[Array]:
    """The recorded frames, uint8."""
    for path in sorted(folder.glob("frame-*.npy")):
        yield np.load(path, allow_pickle=False)


def write_picture(path: Path, width: int, height: int) -> None:
    """A smooth picture to start a video from (PPM): coloured waves, always the same."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / width * a + y / height * b) for a, b in ((5.0, 2.0), (2.0, 6.0), (7.0, 4.0))]
    pixels = np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    path.write_bytes(f"P6\n{width} {height}\n255\n".encode() + pixels.tobytes())
