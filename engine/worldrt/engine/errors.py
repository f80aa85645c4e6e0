"""The exceptions of worldrt.

    WorldrtError                 anything a user can mend; a command line prints it in one line and exits with 2
    ├── InputError               a flag, prompt, size or frame count that cannot be used
    ├── CheckpointError          weights that are missing, truncated or of another model
    ├── BundleError              a bundle that is damaged, foreign, or does not fit its weights
    ├── ShapeError               a tensor that does not fit a graph
    ├── BackendError             a backend or device that is absent or refuses a graph
    │   ├── UnsupportedError     a sound graph, for which the backend has no kernels on this device
    │   ├── DeviceMemoryError    a device with too little memory for what was asked
    │   └── RankError            a process of a run over several that is gone, stalled or has failed
    ├── OutputError              a place that cannot be written
    └── BlockedError             a prompt or a frame that the guardrail refuses; a command line exits with 3

Everything else that is raised is a defect of worldrt.
"""

from __future__ import annotations


class WorldrtError(Exception):
    """A mistake or a lack that the user can mend. The text says what, expected, got, and how to mend it."""


class InputError(WorldrtError):
    """A flag, prompt, size or frame count cannot be used."""


class CheckpointError(WorldrtError):
    """Weights are missing, truncated, of another dtype or of another model."""


class BundleError(WorldrtError):
    """A bundle is damaged, of an unknown version, or does not fit its weights."""


class ShapeError(WorldrtError):
    """A tensor does not fit the graph that it is given to."""


class BackendError(WorldrtError):
    """A backend or device is absent, or refuses a graph."""


class UnsupportedError(BackendError):
    """A graph is sound, but the backend has no kernels for its dtypes or operations on this device."""


class DeviceMemoryError(BackendError):
    """The device, or the host memory that it copies from, is too small for what was asked."""


class RankError(BackendError):
    """One of the processes of a run over several devices is gone, stalled or has failed. The text names its rank."""


class OutputError(WorldrtError):
    """A file or folder cannot be written."""


class BlockedError(WorldrtError):
    """The guardrail refuses a text or a frame, or could not check it. The text names the part that refuses and a
    category, never the text itself."""
