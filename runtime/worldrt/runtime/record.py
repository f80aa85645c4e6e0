"""Recording what a denoiser is given while it samples: the data that quantisation is calibrated and judged on.

`DIR/video2world-0007-cond.npz` holds every input of one branch at row 7 of the sampler's table, by name, as float32 of
batch 1; `DIR/frame-0003.npy` is a frame of the result as it left the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BlockedError, InputError, OutputError
from worldrt.engine.files import staged_file
from worldrt.engine.session import Call
from worldrt.engine.tensors import TensorSpec

BRANCHES = ("cond", "uncond")


@dataclass(frozen=True)
class Recording:
    """Where to record, and how many rows of each sampling run, spread evenly from the first to the last."""

    folder: Path
    steps: int = 8

    def prepare(self) -> None:
        """Make the folder. Raises `InputError` or `OutputError`."""
        if self.steps < 1:
            raise InputError(f"--record_steps: expected 1 or more, got {self.steps}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise OutputError(
                    f"{self.folder}: it holds other things, and is not recorded into; give another folder"
                )
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from error

    def rows(self, count: int) -> set[int]:
        """Which of `count` rows are recorded."""
        return {round(float(row)) for row in np.linspace(0, count - 1, min(self.steps, count))}

    def call(
        self,
        task: str,
        specs: Sequence[TensorSpec],
        inputs: Mapping[str, Buffer],
        texts: Sequence[Buffer],
        device: Device,
        rows: int,
    ) -> Call:
        """What is to run before every evaluation: it writes the inputs, which are described by `specs`, and the text of
        each branch."""
        taken, row = self.rows(rows), iter(range(rows))

        def save() -> None:
            index = next(row)
            if index in taken:
                shared = _shared(specs, inputs, device)
                for branch, text in zip(BRANCHES, texts, strict=False):
                    arrays = shared | {"text": device.download(text)}
                    self._write(self.folder / f"{task}-{index:04}-{branch}.npz", arrays)

        return Call({}, save)

    @contextmanager
    def unless_blocked(self) -> Iterator[None]:
        """Remove what was recorded in a `with` block that the guardrail ends: pictures can be made of it."""
        try:
            yield
        except BlockedError:
            for file in [*self.folder.glob("*-*.npz"), *self.folder.glob("frame-*.npy")]:
                file.unlink()
            raise

    def frames(self, frames: Iterable[np.ndarray[Any, Any]]) -> Iterator[np.ndarray[Any, Any]]:
        """Pass frames on, and write each."""
        for index, frame in enumerate(frames):
            self._write(self.folder / f"frame-{index:04}.npy", frame)
            yield frame

    def _write(self, path: Path, data: Any) -> None:
        with staged_file(path) as part, part.open("wb") as file:
            np.savez(file, **data) if isinstance(data, dict) else np.save(file, data)


def _shared(
    specs: Sequence[TensorSpec], inputs: Mapping[str, Buffer], device: Device
) -> dict[str, np.ndarray[Any, Any]]:
    """Everything but the text, of batch 1."""
    taken = {spec.name: spec.shape[0] == "batch" for spec in specs if spec.name != "text"}
    return {name: device.download(inputs[name][0:1] if batch else inputs[name]) for name, batch in taken.items()}
