"""The making of one stream: rows of the queue in one stage, decoding in another, and a short hand-over between them.

Everything here is called by one thread, the session's; the stages get work that touches nothing else meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from worldrt.runtime.live.clock import Clock, Job
from worldrt.runtime.live.model import Array, Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.live.steering import Bound, Steering
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Latent
from worldrt.runtime.queue.state import restore, snapshot

Made = Callable[[int, float, float], None]
BeforeRow = Callable[[int], None]
OnBound = Callable[[int, Bound], None]


@dataclass
class _Batch:
    """Latents that left the queue together, on their way to pictures."""

    row_s: float
    left: int
    frames: int = 0
    first_s: float | None = None
    decode_s: float = 0.0


@dataclass(frozen=True, eq=False)
class StreamState:
    """A stream between two rows, with nothing in the stages."""

    queue: dict[str, Array]
    decoder: Any
    frames: tuple[LiveFrame, ...]
    index: int


class Production:
    """Makes frames into `frames`. `before_row` and `on_bound` are called in the denoising stage: with the number of the
    row to come, and with each frame that gets its control. `made` hears of frames, the seconds of work up to the first
    of them, without waiting, and those of the slowest stage."""

    def __init__(
        self,
        model: LiveModel,
        clock: Clock,
        told: Told,
        steering: Steering,
        seed: int,
        *,
        made: Made = lambda frames, took_s, busy_s: None,
        before_row: BeforeRow = lambda row: None,
        on_bound: OnBound = lambda frame, bound: None,
    ) -> None:
        self.frames: deque[LiveFrame] = deque()
        self._model, self._clock, self._steering = model, clock, steering
        self._made, self._before_row, self._on_bound = made, before_row, on_bound
        self.queue = model.queue(told, self._feed, seed)
        self._decoder: LatentDecoder = model.decoder()
        self._row: Job | None = None
        self._decoding: tuple[Job, _Batch] | None = None
        self._latents: deque[tuple[Float32, Stamps, _Batch]] = deque()  # the hand-over: those of one row
        self._bound: dict[int, tuple[float | None, float]] = {}
        self._index = 0

    @property
    def jobs(self) -> list[Job]:
        """What is under way."""
        return [job for job in (self._row, self._decoding and self._decoding[0]) if job]

    @property
    def done(self) -> bool:
        """Whether all frames were made and taken."""
        return not (self.jobs or self._latents or self.frames) and self.queue.done

    @property
    def may_begin(self) -> bool:
        """Whether a row may begin: not while one runs, or the latents of another wait, or too many frames do."""
        room = len(self.frames) <= 2 * self._model.frames_at_once
        return self._row is None and not self._latents and room and not self.queue.done

    @property
    def frames_to_come(self) -> int:
        """Frames that are made, or will be by what is under way."""
        return len(self.frames) + self._model.frames_at_once * (self._decoding is not None)

    def begin(self) -> None:
        """Begin the rows up to the next latents."""
        self._row = self._clock.submit("denoise", self._rows)

    def collect(self) -> None:
        """Take what is done, and go on with it. Raises what a stage raised; then this stream cannot go on."""
        if self._row is not None and self._row.done():
            row, self._row = self._row, None
            latents = row.result()
            batch = _Batch(row.ended_s - row.begun_s, len(latents))
            for latent in latents:
                self._latents.append((latent.latent, self._stamps(latent.number, row), batch))
        if self._decoding is not None and self._decoding[0].done():
            (job, batch), self._decoding = self._decoding, None
            self._decoded(job, batch)
        if self._decoding is None and self._latents:
            latent, stamps, batch = self._latents.popleft()
            self._decoding = self._clock.submit("decode", lambda: self._decode(latent, stamps)), batch

    def settle(self) -> None:
        """Wait until nothing is under way. Raises what `collect` does."""
        while self.jobs or self._latents:
            self._clock.wait(self._clock.now() + 1.0, self.jobs)
            self.collect()

    def abandon(self) -> None:
        """Wait until nothing is under way, whatever becomes of it."""
        for job in self.jobs:
            with suppress(Exception):  # it was raised before, or nobody wants it any more
                job.result()
        self._row, self._decoding = None, None

    def state(self) -> StreamState:
        """Everything that the next frames depend on; to be called settled."""
        return StreamState(snapshot(self.queue), self._decoder.state(), tuple(self.frames), self._index)

    def restore(self, state: StreamState) -> None:
        """Go on from a state; to be called before anything was begun, or settled."""
        restore(self.queue, state.queue)
        self._decoder = self._model.decoder()
        self._decoder.restore(state.decoder)
        self.frames, self._index = deque(state.frames), state.index
        self._bound = {}

    def _rows(self) -> list[Latent]:
        while not self.queue.done:
            self._before_row(self.queue.row_number)
            latents = self.queue.run()
            if latents:
                return latents
        return []

    def _feed(self, frame: int) -> Condition | None:
        bound = self._steering.of(frame)
        if bound is None:
            return None
        self._bound[frame] = bound.came_s, self._clock.now()
        self._on_bound(frame, bound)
        return Condition(frame + self.queue.schedule.given, self._model.condition(bound.control))

    def _stamps(self, number: int, row: Job) -> Stamps:
        came_s, bound_s = self._bound.pop(number, (None, None))
        for old in [frame for frame in self._bound if frame < number]:
            del self._bound[old]  # of frames that are not shown
        return Stamps(came_s, bound_s, row.begun_s, row.ended_s)

    def _decode(self, latent: Float32, stamps: Stamps) -> list[tuple[Picture, Stamps]]:
        return [(picture, stamps) for picture in self._decoder(latent[:, :, None])]

    def _decoded(self, job: Job, batch: _Batch) -> None:
        for picture, stamps in job.result():
            self.frames.append(LiveFrame(self._index, picture, stamps.at(decoded=job.ended_s)))
            self._index += 1
            batch.frames += 1
        batch.left -= 1
        batch.decode_s += job.ended_s - job.begun_s
        if batch.frames and batch.first_s is None:
            batch.first_s = batch.row_s + batch.decode_s
        if batch.left == 0 and batch.first_s is not None:
            self._made(batch.frames, batch.first_s, max(batch.row_s, batch.decode_s))
