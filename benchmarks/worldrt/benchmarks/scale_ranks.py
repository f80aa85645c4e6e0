"""Ranks to measure with: threads of this process, a communicator that costs nothing, and graphs that do nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from worldrt.engine import bundle as b
from worldrt.engine.device import Buffer
from worldrt.export.families.cosmos.graphs import denoiser_graphs
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.runtime.chain import NEXT
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.parallel.communicators.base import Collective, Communicator, Pieces
from worldrt.runtime.parallel.control import LOOPBACK, Control
from worldrt.runtime.parallel.meeting import Meeting, join

T = TypeVar("T")
LIMIT_S = 100.0
_SECRET = "of this process"


def together(size: int, work: Callable[[Control], T]) -> list[T]:
    """What each of `size` ranks returns. Raises what one of them raises."""
    meeting = Meeting(size, _SECRET)
    made: dict[int, T] = {}
    errors: list[BaseException] = []

    def rank(number: int) -> None:
        control: Control | None = None
        try:
            if number == 0:
                control = meeting.hold(limit_s=LIMIT_S)
            else:
                control = join(number, size, LOOPBACK, meeting.port, _SECRET, limit_s=LIMIT_S)
            made[number] = work(control)
            control.collect(None)
        except BaseException as error:
            errors.append(error)
            if control is not None:
                control.fail(f"rank {number}: {error}")
        finally:
            if control is not None:
                control.close()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [made[number] for number in range(size)]


class Free(Communicator):
    """Moves nothing. A collective takes `latency_s`."""

    def __init__(self, control: Control, members: Sequence[int], latency_s: float) -> None:
        super().__init__(control, members)
        self._latency_s = latency_s

    def group(self, members: Sequence[int]) -> Communicator:
        return Free(self.control, members, self._latency_s)

    def close(self, *, failed: bool = False) -> None:
        pass

    def _all_gather(self, target: Buffer, source: Buffer) -> Collective:
        return self._barrier

    def _all_to_all(self, target: Pieces, source: Pieces) -> Collective:
        return self._barrier

    def _broadcast(self, buffer: Buffer, root: int) -> Collective:
        return self._barrier

    def _barrier(self) -> None:
        if self._latency_s:
            time.sleep(self._latency_s)


def opener(config: DiTConfig, folder: Path, latency_s: float = 0.0, attention_cut: bool = False) -> Opener:
    """Of a denoiser in block form whose graphs have the right shapes, no weights, and take `latency_s`."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {}
    for source in denoiser_graphs(config, "block", attention_cut=attention_cut):
        file = f"{source.name}.onnx"
        (folder / file).touch()
        taken = {spec.name for spec in source.inputs}
        outputs = tuple(replace(o, name=f"{NEXT}{o.name}") if o.name in taken else o for o in source.outputs)
        graphs[source.name] = b.Graph(file, "", source.inputs, outputs, "external", ())
    spec = b.Denoiser(
        precision="float32",
        files=(),
        graphs=graphs,
        form="block",
        blocks=config.blocks,
        conditions={},
        sampler=b.Sampler("rectified_flow_ab2", 35, 80.0, 0.002),
        guidance=b.Guidance("delta", 7.0),
        sizes={},
        frames={},
    )
    manifest = b.Manifest(b.SCHEMA, "cosmos", "none", {}, b.Weights(".", {}), {"video2world": spec})
    return Opener(b.Bundle(folder, manifest, folder), Execution(backend="null", options={"latency_s": latency_s}))


def shape(config: DiTConfig, frames: int = 4) -> DenoiserShape:
    """A small clip."""
    return DenoiserShape(config.latent_channels, frames, 2, 2, 2)
