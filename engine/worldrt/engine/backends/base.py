"""What a module in this folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from worldrt.engine.bundle import Graph
from worldrt.engine.device import Device
from worldrt.engine.plans import Profile
from worldrt.engine.session import Session
from worldrt.engine.weights import WeightStore


class Backend(Protocol):
    """The two functions of a backend module. Importing the module must not import the backend's own package."""

    def unavailable(self) -> str | None:
        """Why the backend cannot be used here and how to mend that, or None where it can."""
        ...

    def open_session(
        self,
        path: Path,
        graph: Graph,
        device: Device,
        *,
        weight_root: Path,
        weights: WeightStore | None,
        profile: Profile | None,
        **options: Any,
    ) -> Session:
        """Load a graph. `weights` are those of its component, `profile` the ranges of its axes, where the caller has
        them.

        Raises `BackendError` where the file or the device does not suit.
        """
        ...
