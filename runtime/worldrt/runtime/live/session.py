"""A world that is steered while it runs.

    session = WorldSession(model, fps=16)
    session.start("a road through hills")
    while watching:
        session.control("DL")                   # from any thread, at any time
        for frame in session.step():            # a LiveFrame when it is due
            output.put(frame)
    session.stop()

One thread calls everything but `control` and `check`. The frames are a function of the model, the seed, the prompts by
row and the controls by frame; when they are made has no part in it, so a recording gives the same frames again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.live.clock import Clock, RealClock
from worldrt.runtime.live.controls import check_control
from worldrt.runtime.live.hooks import Heard, Log, Prompts
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.pace import PaceOptions, Pacer
from worldrt.runtime.live.production import Production, StreamState
from worldrt.runtime.live.prompting import Prompting
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.live.steering import Bound, Steering, Wheel
from worldrt.runtime.safety.base import Guard
from worldrt.runtime.sinks.base import VideoFormat

STEP_S = 0.5
"""`step` returns after that at the latest."""


@dataclass(frozen=True, eq=False)
class WorldState:
    """A session between two rows. `fps` and keys that are down are no part of it. `log`: where the recording was."""

    stream: StreamState
    prompt: str
    text: Any
    steering: Any
    log: Any = None


class WorldSession:
    """A world of one model. `steering` says where controls come from, a `Wheel` that `control` turns unless given;
    `base` are the controls of the video that the world begins with, where the model makes one; `prompts` are changes
    of the prompt that are known before, and `log` hears of all that happens. `guard` looks at every prompt, and
    at every picture before it is handed out."""

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
        self._prompting = Prompting(model, self.clock, guard, prompts)
        self._making: Production | None = None
        self._next = 0  # number of the frame that is handed out next

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
        self._prompting.begin(prompt)
        self.reset()

    def reset(self) -> None:
        """Begin again at the first frame, with the newest prompt; also after an error."""
        self._let_go()
        if self._log is not None:
            self._log.end(self._next)
        self._prompting.take_newest()
        self._steering.restore(self._fresh)
        self._next = 0
        if self._log is not None:
            self._log.begin(self._prompting.text, self.seed, self._base)
        making = self._new_production()
        making.queue.start(self.model.first(self._prompting.told, self.seed, self._base))
        self._making = making
        self.pacer.restart()

    def check(self, prompt: str) -> None:
        """Whether a prompt may be: `prompt` asks that itself, but waits for it. From any thread. Raises `InputError` or
        `BlockedError`."""
        self._prompting.check(prompt)

    def control(self, name: str | None) -> None:
        """The newest control wins; None: no key is pressed. From any thread. Raises `InputError`."""
        if name is not None:
            check_control(name, names=self.controls)
        self._steering.press(name, self.clock.now())

    def prompt(self, text: str) -> None:
        """Go on with another prompt as soon as it is encoded, which is done beside the world; the newest one wins.
        Raises `InputError` or `BlockedError`."""
        self._prompting.ask(text)

    def step(self) -> list[LiveFrame]:
        """The next frame when it is due; nothing where none came within half a second, or the world has ended. Raises
        what the model raised, and `BlockedError` for a picture that the guard refuses, which is not handed out, nor any
        that waits; `reset` brings the world back."""
        making = self._running()
        until_s = self.clock.now() + STEP_S
        while True:
            try:
                making.collect()
            except Exception:
                self._let_go()
                raise
            self._prompting.go_on()
            now_s = self.clock.now()
            until_s = min(until_s, now_s + STEP_S)  # a clock may be turned back
            begin_s = self._begin(making, now_s)
            due_s = self.pacer.due_s(now_s) if making.frames else until_s
            if making.frames and due_s <= now_s:
                return [self._shown(making, now_s)]
            if making.done or now_s >= until_s:
                return []
            self.clock.wait(min(until_s, due_s, begin_s), making.jobs + self._prompting.jobs)

    def frames(self) -> Iterator[LiveFrame]:
        """Frames until the world ends."""
        while not self.done:
            yield from self.step()

    def snapshot(self) -> WorldState:
        """The whole state, for `restore` and `branch`. Waits for what is under way."""
        making = self._running()
        making.settle()
        mark = None if self._log is None else self._log.mark()
        prompt = self._prompting
        return WorldState(making.state(), prompt.text, prompt.told.text, self._steering.state(), mark)

    def restore(self, state: WorldState) -> None:
        """Go on from a state of this session, or of another of the same model and seed. A recording goes on as one of
        the world up to that state and from there; it ends where the state was not recorded."""
        self._let_go()
        if self._log is not None:
            self._log.end(self._next)
            if not self._log.resume(state.log):
                self._log = None
        self._prompting.restore(state.prompt, state.text)
        making = self._new_production()
        making.restore(state.stream)
        self._next = state.stream.index - len(state.stream.frames)
        self._steering.restore(state.steering)
        self._making = making
        self.pacer.restart()

    def branch(
        self, *, steering: Steering | None = None, clock: Clock | None = None, log: Log | None = None
    ) -> WorldSession:
        """Another world that goes on from here, by itself; it is steered as this one is unless said otherwise. Its
        `log` begins with what that of this one has."""
        state = self.snapshot()
        other = WorldSession(
            self.model,
            seed=self.seed,
            pace=self.pacer.options,
            clock=clock,
            steering=steering or self._steering.fork(),
            base=self._base,
            prompts=self._prompts,
            log=log,
            guard=self._guard,
        )
        other.restore(state if steering is None else replace(state, steering=steering.state()))
        return other

    def recording(self) -> bytes:
        """The world so far as a recording, to be replayed. Raises `InputError` where none is made."""
        if self._log is None:
            raise InputError("this world is not recorded, or went on from a state that was not")
        return self._log.latest(self._next)

    def stop(self) -> None:
        """Let everything go, once what is under way is done."""
        self._let_go()
        if self._log is not None:
            self._log.end(self._next)
            self._log = None
        self.clock.close()

    def _running(self) -> Production:
        if self._making is None:
            raise InputError("this world does not run: start it first, or reset it after an error")
        return self._making

    def _new_production(self) -> Production:
        heard = Heard(self._before_row, self._on_bound, self._on_late, self.pacer.made)
        return Production(
            self.model, self.clock, self._prompting.told, self._steering, self.seed, heard=heard, guard=self._guard
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
        frame = making.frames.popleft()
        self._next = frame.index + 1
        return frame

    def _before_row(self, row: int) -> None:
        prompt = self._prompting.before_row(row)
        if prompt is not None and self._log is not None:
            self._log.prompt(row, prompt)

    def _on_bound(self, frame: int, bound: Bound) -> None:
        if self._log is not None:
            self._log.control(frame, bound.control)

    def _on_late(self, row: int, bound: Bound) -> None:
        if self._log is not None:
            self._log.late(row, bound.control)

    def _let_go(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.abandon()
