"""Recordings of sessions: JSON lines of all that the frames depend on. The same model makes the same frames of them.

    {"worldrt_world": 1, "model": {...}}
    {"begin": {"prompt": "a road", "seed": 0, "base": ["D"]}}      the world began; again after each reset
    {"frame": 0, "control": "D"}                                   this latent frame and those after it
    {"row": 12, "prompt": "rain"}                                  from this row on
    {"end": {"frames": 480}}                                       frames that were shown

Each line is written when it happens, so a recording that was cut short is good up to there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Replayed

VERSION = 1
MARK = "worldrt_world"
LONGEST_LINE = 100_000


class Recording:
    """Writes a session into a file, which is not to exist. Raises `OutputError`. What cannot be written while the world
    runs ends the recording, not the world; `problem` says why."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        try:
            self._file = path.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be recorded to: {error.strerror}; give another place") from error
        self.problem = ""
        self._control: str | None = None
        self._begun = False
        self._write({MARK: VERSION, "model": dict(facts)})

    def begin(self, prompt: str, seed: int, base: Sequence[str]) -> None:
        self._control, self._begun = None, True
        self._write({"begin": {"prompt": prompt, "seed": seed, "base": list(base)}})

    def control(self, frame: int, control: str) -> None:
        if control != self._control:
            self._control = control
            self._write({"frame": frame, "control": control})

    def prompt(self, row: int, prompt: str) -> None:
        self._write({"row": row, "prompt": prompt})

    def end(self, frames: int) -> None:
        if self._begun:
            self._begun = False
            self._write({"end": {"frames": frames}})

    def close(self) -> None:
        """After the session has stopped."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.problem:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            self.problem = f"the recording ended: {error.strerror}"


@dataclass
class Script:
    """One world of a recording, from its begin to its end. `frames` is None where it was cut short."""

    prompt: str
    seed: int
    base: tuple[str, ...]
    controls: dict[int, str] = field(default_factory=dict)
    prompts: dict[int, str] = field(default_factory=dict)
    frames: int | None = None

    def of(self, row: int) -> str | None:
        """The prompt that is new before a row."""
        return self.prompts.get(row)


def read(path: Path) -> tuple[Mapping[str, Any], list[Script]]:
    """The facts of the model, and the worlds of a recording. Raises `InputError`."""
    facts: Mapping[str, Any] | None = None
    scripts: list[Script] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
                if not line.endswith("\n"):
                    break  # cut short
                try:
                    data = json.loads(line)
                    if facts is None:
                        facts = _facts(data)
                    else:
                        _take(data, scripts)
                except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not of a recording: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if facts is None or not scripts:
        raise InputError(f"{path}: this is no recording of a world, or an empty one")
    return facts, scripts


def replaying(model: LiveModel, script: Script, **options: Any) -> WorldSession:
    """A session that does what a recording says; `options` are those of `WorldSession`. It is to be started with
    `script.prompt`, and goes on after `script.frames` frames as if no key had changed."""
    return WorldSession(
        model,
        seed=script.seed,
        base=script.base,
        steering=Replayed(script.controls),
        prompts=script,
        **options,
    )


def check_model(facts: Mapping[str, Any], model: LiveModel) -> None:
    """Raises `InputError` where a recording is of another model than this one."""
    own = json.loads(json.dumps(dict(model.facts())))
    differing = sorted(name for name in own.keys() | facts.keys() if own.get(name) != facts.get(name))
    if differing:
        raise InputError(f"recording: it is of another model ({', '.join(differing)} differ); give the bundle it is of")


def _facts(data: Any) -> Mapping[str, Any]:
    if data[MARK] != VERSION:
        raise ValueError(f"version {data[MARK]!r}, this worldrt reads {VERSION}")
    return dict(data["model"])


def _take(data: Any, scripts: list[Script]) -> None:
    if "begin" in data:
        begun = data["begin"]
        base = tuple(_is(str, name) for name in _is(list, begun["base"]))
        scripts.append(Script(_is(str, begun["prompt"]), _is(int, begun["seed"]), base))
    elif "control" in data:
        scripts[-1].controls[_is(int, data["frame"])] = _is(str, data["control"])
    elif "prompt" in data:
        scripts[-1].prompts[_is(int, data["row"])] = _is(str, data["prompt"])
    else:
        scripts[-1].frames = _is(int, data["end"]["frames"])


def _is(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {value!r}"[:100])
    return value
