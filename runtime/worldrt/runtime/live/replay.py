"""Sessions made again from their recordings (`worldrt.runtime.live.recording`), by the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.recording import MARK, VERSION
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Replayed

LONGEST_LINE = 100_000


@dataclass
class Script:
    """One world of a recording, from its begin to its end. `frames` is None where it was cut short."""

    prompt: str
    seed: int
    base: tuple[str, ...]
    controls: dict[int, str] = field(default_factory=dict)
    late: dict[int, str] = field(default_factory=dict)
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
    `script.prompt`, and goes on after `script.frames` frames as if no key had changed. Raises `InputError` or
    `BlockedError` for a prompt that may not be."""
    session = WorldSession(
        model,
        seed=script.seed,
        base=script.base,
        steering=Replayed(script.controls, late=script.late),
        prompts=script,
        **options,
    )
    for prompt in script.prompts.values():
        session.check(prompt)
    return session


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
    elif "late" in data:
        scripts[-1].late[_is(int, data["row"])] = _is(str, data["late"])
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
