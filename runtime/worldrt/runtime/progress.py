"""Progress on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from worldrt.runtime.observer import Observer


class Bars(Observer):
    """A rich progress bar per stage that counts, with an estimate; on stderr, and only where that is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(True),
        )
        self._console = Console(stderr=True)
        self._shown = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self._shown.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.stop()

    def progress(self, stage: str, done: int, total: int) -> None:
        super().progress(stage, done, total)
        if stage not in self._tasks or done == 0:
            self._tasks[stage] = self._shown.add_task(stage, total=total)
        self._shown.update(self._tasks[stage], completed=done)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


class Plain(Observer):
    """No progress; warnings go to stderr."""

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)
