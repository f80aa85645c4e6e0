"""What a long run has finished, kept until its result is whole, so that an interrupted run goes on where it was.

    out.mp4.chunks/run.json        what the run was asked, with which models
                   picture.npz     the picture of text2world, uint8
                   refined.txt     the refined prompt
                   chunk-000.npz   latents of a chunk, float32

Frames are not kept: they are decoded again from the latents, which takes little of the time that sampling takes and
gives the same bytes. The folder is there from the first finished piece on, and goes with the last.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.errors import BlockedError, InputError, OutputError
from worldrt.engine.files import staged_file
from worldrt.engine.schema import parse_json

Array = np.ndarray[Any, Any]


class Keep:
    """Keeps nothing."""

    def load(self, name: str) -> Array | None:
        """A piece that is kept, or None."""
        return None

    def save(self, name: str, piece: Array) -> None:
        """Keep a piece. Raises `OutputError`."""

    def text(self, name: str, make: Callable[[], str]) -> str:
        """A text that is kept; else it is made, and kept."""
        return make()


class KeepInFolder(Keep):
    """Keeps pieces in a folder. As a context manager it removes them when the result is whole, and where the result
    was blocked; any other exception leaves them for the next run.

    `run` is plain JSON data that says what the pieces belong to. Raises `InputError` for a folder of another run.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self._say = folder, say
        self._run = json.dumps(run, indent=1, sort_keys=True)
        self._begun = False
        if folder.exists() and not self._is_bare():
            self._check()

    def _is_bare(self) -> bool:
        """Whether nothing is there but what a run that was killed was about to write."""
        return self.folder.is_dir() and all(item.name.startswith(".run-") for item in self.folder.iterdir())

    def _check(self) -> None:
        try:
            kept, run = (
                parse_json(text) for text in ((self.folder / "run.json").read_text(encoding="utf-8"), self._run)
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder}: expected what an interrupted run kept there, and it has no run.json that can be read; "
                "move it away, or give another --save_path"
            ) from error
        if kept != run:
            other = ", ".join(_differing(kept, run)) or "everything"
            raise InputError(
                f"{self.folder}: it keeps the chunks of another run, which differs in: {other}. "
                "Repeat that one to go on, remove the folder, or give another --save_path"
            )

    def load(self, name: str) -> Array | None:
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                piece: Array = file["piece"]
                return piece
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: it is damaged; remove it and later chunks, and they are made again") from error

    def save(self, name: str, piece: Array) -> None:
        self._begin()
        with staged_file(self.folder / f"{name}.npz", overwrite=True) as part, part.open("wb") as file:
            np.savez(file, piece=piece)

    def text(self, name: str, make: Callable[[], str]) -> str:
        path = self.folder / f"{name}.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        made = make()
        self._begin()
        _write(path, made)
        return made

    def _begin(self) -> None:
        """Say whose folder it is. Another run may have begun one meanwhile."""
        if not self.folder.is_dir() or self._is_bare():
            _write(self.folder / "run.json", self._run)
        elif not self._begun:
            self._check()
        self._begun = True

    def __enter__(self) -> KeepInFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self.folder.is_dir():
            return
        if kind is None or issubclass(kind, BlockedError):
            try:
                shutil.rmtree(self.folder)
            except OSError as trouble:
                raise OutputError(f"{self.folder}: cannot be removed: {trouble.strerror}") from trouble
            return
        count = len(list(self.folder.glob("chunk-*.npz")))
        self._say(f"{count} finished chunk(s) are kept in {self.folder}; the same command goes on from there")


def _write(path: Path, text: str) -> None:
    with staged_file(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")


def _differing(kept: Any, run: Any, place: str = "") -> list[str]:
    """The places where two pieces of JSON data differ."""
    if not isinstance(kept, dict) or not isinstance(run, dict):
        return [] if kept == run else [place]
    keys = sorted({*kept, *run})
    return [x for key in keys for x in _differing(kept.get(key), run.get(key), f"{place}.{key}".lstrip("."))]
