"""Lists of blocked words, from files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from worldrt.engine.errors import InputError

MAX_BYTES = 8_000_000


@dataclass(frozen=True)
class Entry:
    """A word or phrase. `exact`: as it is written, without other endings, spellings and disguises."""

    text: str
    category: str
    exact: bool = False


def own_list() -> list[Entry]:
    """The small list that comes with worldrt."""
    text = resources.files("worldrt.runtime.safety").joinpath("words.txt").read_text(encoding="utf-8")
    return list(_entries(text.splitlines(), "words"))


def read_list(path: Path) -> list[Entry]:
    """A file of the user: UTF-8, one word or phrase to a line, `# ...` a comment, `[name]` a category.

    Raises `InputError` where it cannot be read or holds nothing.
    """
    found = list(_entries(_lines(path), "your list"))
    if not found:
        raise InputError(f"{path}: expected one word or phrase to a line, got none")
    return found


def read_folder(folder: Path, *, exact: bool = False) -> list[Entry]:
    """All files of a folder of the guardrail's checkpoint, which have neither comments nor categories. Raises
    `InputError` where one cannot be read."""
    files = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    lines = (line.strip() for path in files for line in _lines(path, errors="replace"))
    return [Entry(line, "the checkpoint's list", exact) for line in lines if line]


def _lines(path: Path, errors: str = "strict") -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: expected a list of words of at most {MAX_BYTES} bytes, got a larger file")
        return path.read_text(encoding="utf-8-sig", errors=errors).splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a list of words in UTF-8, got other bytes: {error}") from error


def _entries(lines: Iterable[str], category: str) -> Iterable[Entry]:
    for line in map(str.strip, lines):
        if heading := re.fullmatch(r"\[(.{1,60})\]", line):
            category = heading[1]
        elif line and not line.startswith("# ") and line != "#":
            yield Entry(line, category)
