"""A world that is steered while it runs.

    session = WorldSession(model, fps=16)
    session.start("a road through hills")
    while watching:
        session.control("DL")                   # from any thread, at any time
        for frame in session.step():            # a LiveFrame when it is due
            output.put(frame)
    session.stop()

One thread calls everything but `control`. The frames are a function of the model, the seed, the prompts by row and the
controls by frame; when they are made has no part in it, so a recording gives the same frames again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.live.clock import Clock, Job, RealClock
from worldrt.runtime.live.controls import check_control
from worldrt.runtime.live.hooks import Guard, Log, Prompts
from worldrt.runtime.live.model import LiveModel, Told
from worldrt.runtime.live.pace import PaceOptions, Pacer
from worldrt.runtime.live.production import Production, StreamState
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.live.steering import Bound, Steering, Wheel
from worldrt.runtime.sinks.base import VideoFormat

STEP_S = 0.5
"""`step` returns after that at the latest."""


@dataclass(frozen=True, eq=False)
class WorldState:
    """A session between two rows. `fps` and keys that are down are no part of it."""

    stream: StreamState
    prompt: str
    text: Any
    steering: Any


class WorldSession:
    """A world of one model. `steering` says where controls come from, a `Wheel` that `control` turns unless given;
    `base` are the controls of the video that the world begins with, where the model makes one; `prompts` are changes
    of the prompt that are known before, and `log` hears of all that happens."""

    def __init__(
        self,
        model: LiveModel,
        *,
        seed: int = 0,
        pace: PaceOptions | None = None,
        clock: Clock | None = None,
        steering: Steering | None = None,
        base: Sequence[str] = ("D",),
        prompts: Prompts | None = None,
        log: Log | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.model, self.seed = model, seed
        self.clock: Clock = clock or RealClock()
        self.pacer = Pacer(pace or PaceOptions(model.video.fps))
        self.dropped = 0
        self._steering: Steering = steering or Wheel(model.controls, seed=seed)
        self._base, self._prompts, self._log, self._guard = tuple(base), prompts, log, guard
        self._fresh = self._steering.state()
        self._prompt = ""
        self._told = Told(None)
        self._making: Production | None = None
        self._wanted: str | None = None  # a prompt to encode
        self._encoding: tuple[str, Job] | None = None
        self._ready: deque[tuple[str, Any]] = deque(maxlen=1)  # a prompt to take before the next row
        self._handed_out = 0

    @property
    def video(self) -> VideoFormat:
        """What its pictures are."""
        fps = self.pacer.options.fps
        return self.model.video if fps is None else replace(self.model.video, fps=round(fps))

    @property
    def controls(self) -> Sequence[str]:
        """The names that `control` takes."""
        return self.model.controls

    @property
    def done(self) -> bool:
        """Whether the world has ended, since its controls did."""
        return self._making is not None and self._making.done

    def start(self, prompt: str) -> None:
        """Load what is needed and begin at the first frame. Raises `InputError` or `BlockedError`."""
        self._check(prompt)
        self._told = Told(self.model.encode(prompt))
        self._prompt = prompt
        self.reset()

    def reset(self) -> None:
        """Begin again at the first frame, with the prompt of now; also after an error."""
        self._let_go()
        if self._log is not None:
            self._log.end(self._handed_out)
        self._steering.restore(self._fresh)
        self._handed_out = 0
        if self._log is not None:
            self._log.begin(self._prompt, self.seed, self._base)
        making = self._new_production()
        making.queue.start(self.model.first(self._told, self.seed, self._base))
        self._making = making
        self.pacer.restart()

    def control(self, name: str | None) -> None:
        """The newest control wins; None: no key is pressed. From any thread. Raises `InputError`."""
        if name is not None:
            check_control(name, names=self.controls)
        self._steering.press(name, self.clock.now())

    def prompt(self, text: str) -> None:
        """Go on with another prompt as soon as it is encoded, which is done beside the world; the newest one wins.
        Raises `InputError` or `BlockedError`."""
        self._check(text)
        self._wanted = text
        self._encode()

    def step(self) -> list[LiveFrame]:
        """The next frame when it is due; nothing where none came within half a second, or the world has ended. Raises
        what the model raised; `reset` brings the world back."""
        making = self._running()
        until_s = self.clock.now() + STEP_S
        while True:
            try:
                making.collect()
            except Exception:
                self._let_go()
                raise
            self._encode()
            now_s = self.clock.now()
            begin_s = self._begin(making, now_s)
            due_s = self.pacer.due_s(now_s) if making.frames else until_s
            if making.frames and due_s <= now_s:
                return [self._shown(making, now_s)]
            if making.done or now_s >= until_s:
                return []
            encoding = [self._encoding[1]] if self._encoding else []
            self.clock.wait(min(until_s, due_s, begin_s), making.jobs + encoding)

    def frames(self) -> Iterator[LiveFrame]:
        """Frames until the world ends."""
        while not self.done:
            yield from self.step()

    def snapshot(self) -> WorldState:
        """The whole state, for `restore` and `branch`. Waits for what is under way."""
        making = self._running()
        making.settle()
        return WorldState(making.state(), self._prompt, self._told.text, self._steering.state())

    def restore(self, state: WorldState) -> None:
        """Go on from a state of this session, or of another of the same model and seed. A recording ends here."""
        self._let_go()
        self._close_log()
        self._told, self._prompt = Told(state.text), state.prompt
        making = self._new_production()
        making.restore(state.stream)
        self._steering.restore(state.steering)
        self._making = making
        self.pacer.restart()

    def branch(self, *, steering: Steering | None = None, clock: Clock | None = None) -> WorldSession:
        """Another world that goes on from here, by itself; it is steered as this one is unless said otherwise."""
        state = self.snapshot()
        other = WorldSession(
            self.model,
            seed=self.seed,
            pace=self.pacer.options,
            clock=clock,
            steering=steering or self._steering.fork(),
            base=self._base,
            prompts=self._prompts,
            guard=self._guard,
        )
        other.restore(state if steering is None else replace(state, steering=steering.state()))
        return other

    def stop(self) -> None:
        """Let everything go, once what is under way is done."""
        self._let_go()
        self._close_log()
        self.clock.close()

    def _running(self) -> Production:
        if self._making is None:
            raise InputError("this world does not run: start it first, or reset it after an error")
        return self._making

    def _check(self, prompt: str) -> None:
        if self._guard is not None:
            self._guard.check_text(prompt)
        self.model.check(prompt)

    def _new_production(self) -> Production:
        return Production(
            self.model,
            self.clock,
            self._told,
            self._steering,
            self.seed,
            made=self.pacer.made,
            before_row=self._before_row,
            on_bound=self._on_bound,
        )

    def _begin(self, making: Production, now_s: float) -> float:
        """Begin the next row if it is time; when that will be, as far as that is known."""
        if not making.may_begin:
            return now_s + STEP_S
        begin_s = self.pacer.begin_s(making.frames_to_come, now_s)
        if begin_s > now_s:
            return begin_s
        making.begin()
        return now_s + STEP_S

    def _shown(self, making: Production, now_s: float) -> LiveFrame:
        """The next frame that is not too late."""
        while len(making.frames) > 1 and self.pacer.too_late(now_s):
            making.frames.popleft()
            self.dropped += 1
            self.pacer.shown(now_s)
        self.pacer.shown(now_s)
        self._handed_out += 1
        return making.frames.popleft()

    def _encode(self) -> None:
        """Take a prompt that was encoded, and have the next one encoded."""
        if self._encoding is not None and self._encoding[1].done():
            (text, job), self._encoding = self._encoding, None
            self._ready.append((text, job.result()))
        if self._encoding is None and self._wanted is not None:
            text, self._wanted = self._wanted, None
            self._encoding = text, self.clock.submit("text", lambda: self.model.encode(text))

    def _before_row(self, row: int) -> None:
        """In the denoising stage: swap the prompt in."""
        written = None if self._prompts is None else self._prompts.of(row)
        if written is not None:
            self._ready.append((written, self.model.encode(written)))
        with suppress(IndexError):
            self._prompt, self._told.text = self._ready.pop()
            if self._log is not None:
                self._log.prompt(row, self._prompt)

    def _on_bound(self, frame: int, bound: Bound) -> None:
        if self._log is not None:
            self._log.control(frame, bound.control)

    def _let_go(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.abandon()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.end(self._handed_out)
            self._log = None
