"""The process that workers are forked from: it imports torch by itself, so that nobody waits for it."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
from multiprocessing.context import BaseContext

_PRELOAD = "worldrt.export.job"


def context() -> BaseContext:
    """How workers begin: forked from a clean server process that has the imports (no threads, and most memory shared),
    or from nothing where the system has no such thing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([_PRELOAD])
    return made


def prepare() -> None:
    """Start that process now, to import while this one does."""
    if context().get_start_method() == "forkserver":
        multiprocessing.forkserver.ensure_running()
