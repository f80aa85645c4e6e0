"""Modules found by their file name: adding a backend, family, sink or source is adding a file.

In a plugin package `base.py` is the protocol, `_x.py` is private, and every other name is a key.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from worldrt.engine.errors import InputError


def names(package: str) -> list[str]:
    """The keys of a plugin package, sorted. Imports the package but none of its plugins."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(m.name for m in found if m.name != "base" and not m.name.startswith("_"))


def load(package: str, key: str) -> ModuleType:
    """Import the plugin `key` of `package`. Raises `InputError` that lists the keys present."""
    if key not in names(package):
        kind = package.rpartition(".")[2]
        raise InputError(f"{kind}: no '{key}' here; there are: {', '.join(names(package))}")
    return importlib.import_module(f"{package}.{key}")
