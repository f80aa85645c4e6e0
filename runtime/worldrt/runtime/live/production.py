"""The making of one stream: rows of the queue in one stage, decoding in another, a guard's look at pictures in a third,
and short hand-overs between them.

Everything here is called by one thread, the session's; the stages get work that touches nothing else meanwhile.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from worldrt.engine.errors import BlockedError
from worldrt.runtime.live.clock import Clock, Job
from worldrt.runtime.live.hooks import Heard
from worldrt.runtime.live.model import Array, Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.live.steering import Bound, Steering
from worldrt.runtime.live.streams import stream_of
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Latent
from worldrt.runtime.queue.state import restore, snapshot
from worldrt.runtime.safety.base import Guard

Shown = list[tuple[Picture, Stamps]]


@dataclass
class _Batch:
    """Latents that left the queue together, on their way to pictures, and how long each stage worked on them."""

    row_s: float
    left: int
    frames: int = 0
    first_s: float | None = None
    decode_s: float = 0.0
    guard_s: float = 0.0


@dataclass(frozen=True, eq=False)
class StreamState:
    """A stream between two rows, with nothing in the stages."""

    queue: dict[str, Array]
    stream: Any
    decoder: Any
    frames: tuple[LiveFrame, ...]
    index: int


class Production:
    """Makes frames into `frames`, none of them before `guard` has seen it. `heard` is told what happens."""

    def __init__(
        self,
        model: LiveModel,
        clock: Clock,
        told: Told,
        steering: Steering,
        seed: int,
        *,
        heard: Heard | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.frames: deque[LiveFrame] = deque()
        self._model, self._clock, self._steering = model, clock, steering
        self._heard, self._guard = heard or Heard(), guard
        self.queue = model.queue(told, self._feed, seed)
        self._stream = stream_of(model, told, seed)
        self._decoder: LatentDecoder = model.decoder()
        self._row: Job | None = None
        self._latents: deque[tuple[Float32, Stamps, _Batch]] = deque()  # the hand-over: those of one row
        self._decoding: tuple[Job, _Batch] | None = None
        self._decoded: deque[tuple[Shown, _Batch]] = deque()  # of one latent, before it is looked at
        self._looking: tuple[Job, _Batch, int] | None = None
        self._bound: dict[int, tuple[float | None, float]] = {}
        self._index = 0

    @property
    def jobs(self) -> list[Job]:
        """What is under way."""
        stages = (self._row, self._decoding and self._decoding[0], self._looking and self._looking[0])
        return [job for job in stages if job]

    @property
    def done(self) -> bool:
        """Whether all frames were made and taken."""
        return not (self._busy or self.frames) and self.queue.done

    @property
    def may_begin(self) -> bool:
        """Whether a row may begin: not while one runs, or the latents of another wait, or too many frames do."""
        room = len(self.frames) <= 2 * self._model.frames_at_once
        return self._row is None and not self._latents and room and not self.queue.done

    @property
    def frames_to_come(self) -> int:
        """Frames that are made, or will be by what is under way."""
        looked_at = sum(len(shown) for shown, _ in self._decoded) + (self._looking[2] if self._looking else 0)
        return len(self.frames) + looked_at + self._model.frames_at_once * (self._decoding is not None)

    def begin(self) -> None:
        """Begin the rows up to the next latents."""
        self._row = self._clock.submit("denoise", self._rows)

    def collect(self) -> None:
        """Take what is done, and go on with it. Raises what a stage raised, `BlockedError` for a picture that the guard
        refuses; then this stream cannot go on."""
        if self._row is not None and self._row.done():
            row, self._row = self._row, None
            latents = row.result()
            batch = _Batch(_seconds(row), len(latents))
            for latent in latents:
                self._latents.append((latent.latent, self._stamps(latent.number, row), batch))
        if self._looking is not None and self._looking[0].done():
            (look, batch, _), self._looking = self._looking, None
            batch.guard_s += _seconds(look)
            self._made([(picture, stamps.at(checked=look.ended_s)) for picture, stamps in look.result()], batch)
        if self._decoding is not None and self._decoding[0].done():
            (job, batch), self._decoding = self._decoding, None
            batch.decode_s += _seconds(job)
            self._decoded.append(([(p, stamps.at(decoded=job.ended_s)) for p, stamps in job.result()], batch))
        if self._decoded and self._looking is None:
            self._look(*self._decoded.popleft())
        if self._decoding is None and self._latents and not self._decoded:
            latent, stamps, batch = self._latents.popleft()
            self._decoding = self._clock.submit("decode", lambda: self._decode(latent, stamps)), batch

    def settle(self) -> None:
        """Wait until nothing is under way. Raises what `collect` does."""
        while self._busy:
            self._clock.wait(self._clock.now() + 1.0, self.jobs)
            self.collect()

    def abandon(self) -> None:
        """Wait until nothing is under way, whatever becomes of it."""
        for job in self.jobs:
            with suppress(Exception):  # it was raised before, or nobody wants it any more
                job.result()
        self._row, self._decoding, self._looking = None, None, None
        self._stream.close()

    def state(self) -> StreamState:
        """Everything that the next frames depend on; to be called settled."""
        return StreamState(
            snapshot(self.queue), self._stream.state(), self._decoder.state(), tuple(self.frames), self._index
        )

    def restore(self, state: StreamState) -> None:
        """Go on from a state; to be called before anything was begun, or settled."""
        restore(self.queue, state.queue)
        self._stream.restore(state.stream)
        self._decoder = self._model.decoder()
        self._decoder.restore(state.decoder)
        self.frames, self._index = deque(state.frames), state.index
        self._bound = {}

    @property
    def _busy(self) -> bool:
        return bool(self.jobs or self._latents or self._decoded)

    def _rows(self) -> list[Latent]:
        while not self.queue.done:
            self._heard.before_row(self.queue.row_number)
            self._bind_late()
            latents = self.queue.run()
            if latents:
                return latents
        return []

    def _feed(self, frame: int) -> Condition | None:
        bound = self._steering.of(frame)
        if bound is None:
            return None
        self._heard.bound(frame, bound)
        return self._condition(frame, bound)

    def _bind_late(self) -> None:
        """Give the frames in flight that still take one the newest control, where the schedule has it so."""
        queue, lowest = self.queue, self.queue.schedule.commit_level
        if lowest is None:
            return
        end = queue.first + queue.filled if queue.end is None else queue.end
        slots = range(min(queue.filled, end - queue.first))
        frames = [queue.first + slot for slot in slots if queue.levels[slot] >= lowest]
        bound = self._steering.late(queue.row_number) if frames else None
        if bound is not None:
            self._heard.late(queue.row_number, bound)
            for frame in frames:
                queue.rebind(frame, self._condition(frame, bound))

    def _condition(self, frame: int, bound: Bound) -> Condition:
        self._bound[frame] = bound.came_s, self._clock.now()
        return Condition(self.queue.conditions.next, self._stream.condition(bound.control))

    def _stamps(self, number: int, row: Job) -> Stamps:
        came_s, bound_s = self._bound.pop(number, (None, None))
        for old in [frame for frame in self._bound if frame < number]:
            del self._bound[old]  # of frames that are not shown
        return Stamps(came_s, bound_s, max(row.begun_s, bound_s or row.begun_s), row.ended_s)

    def _decode(self, latent: Float32, stamps: Stamps) -> Shown:
        return [(self._stream.shown(picture), stamps) for picture in self._decoder(latent[:, :, None])]

    def _look(self, shown: Shown, batch: _Batch) -> None:
        """Have the guard look at pictures, beside the making of the next ones."""
        if self._guard is None or not shown:
            self._made(shown, batch)
        else:
            first = self._index
            self._looking = self._clock.submit("guard", lambda: self._seen(shown, first)), batch, len(shown)

    def _seen(self, shown: Shown, first: int) -> Shown:
        assert self._guard is not None
        pictures = (picture for picture, _ in shown)
        seen = list(self._guard.frames(pictures, self._model.video.pixel_format, start=first))
        if len(seen) != len(shown):
            raise BlockedError(f"frame {first}: the guardrail gave back {len(seen)} frames for {len(shown)}")
        return [(picture, stamps) for picture, (_, stamps) in zip(seen, shown, strict=True)]

    def _made(self, shown: Shown, batch: _Batch) -> None:
        for picture, stamps in shown:
            self.frames.append(LiveFrame(self._index, picture, stamps))
            self._index += 1
        batch.frames += len(shown)
        batch.left -= 1
        if batch.frames and batch.first_s is None:
            batch.first_s = batch.row_s + batch.decode_s + batch.guard_s
        if batch.left == 0 and batch.first_s is not None:
            self._heard.made(batch.frames, batch.first_s, max(batch.row_s, batch.decode_s, batch.guard_s))


def _seconds(job: Job) -> float:
    """How long a job took; nothing where the clock was turned back meanwhile."""
    return max(0.0, job.ended_s - job.begun_s)
