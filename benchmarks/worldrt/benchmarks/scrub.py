"""Texts without the folders of the machine that they were written on: results are made to be shown to others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")
ABSOLUTE = re.compile(r"(?<![\w./:~-])~?/(?:[^\s/'\"`,;:()<>|]+/)+([^\s/'\"`,;:()<>|]*)")
"""Of two parts or more, outside of addresses."""


def scrubbed(text: str) -> str:
    """Paths below the working folder become relative to it, of others the last part stays: `/home/me/a/b.json` is
    `b.json`."""
    here = f"{Path.cwd()}/"
    if len(here) > 1:
        text = re.sub(rf"(?<![\w./-]){re.escape(here)}", "", text)
    return ABSOLUTE.sub(lambda found: found[1] or found[0].rstrip("/").rpartition("/")[2], text)


def clean(value: T) -> T:
    """The same value, all texts in it scrubbed: those of data classes, tuples, lists and mappings, keys too."""
    found: Any = value
    if isinstance(value, str):
        found = scrubbed(value)
    elif isinstance(value, Path):
        found = scrubbed(str(value))
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{field.name: clean(getattr(value, field.name)) for field in fields(value)})
    elif isinstance(value, (tuple, list)):
        found = type(value)(clean(item) for item in value)
    elif isinstance(value, Mapping):
        found = {clean(key): clean(item) for key, item in value.items()}
    return cast(T, found)
