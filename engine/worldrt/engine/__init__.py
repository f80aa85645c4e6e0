"""Bundles, devices, sessions: what a runtime needs to run exported graphs."""

from worldrt.engine.bundle import Bundle, load_bundle
from worldrt.engine.device import Buffer, Device, host_buffer, open_device
from worldrt.engine.errors import WorldrtError
from worldrt.engine.session import Call, Session, open_session
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import WeightStore, open_weights

__all__ = [
    "Buffer",
    "Bundle",
    "Call",
    "Device",
    "Session",
    "TensorSpec",
    "WeightStore",
    "WorldrtError",
    "host_buffer",
    "load_bundle",
    "open_device",
    "open_session",
    "open_weights",
]
