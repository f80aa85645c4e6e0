"""Which control the keys say."""

from __future__ import annotations

CONTROLS = {"W": "D", "S": "B", "A": "DL", "D": "DR", "WA": "DL", "WD": "DR", "SA": "BL", "SD": "BR"}
KEYS = "WASD"


def control_of(keys: str) -> str | None:
    """The control of the keys that are held down, such as `WA`; None where none are, or where they say nothing
    together. Raises `ValueError` for other keys."""
    held = set(keys.upper())
    if not held <= set(KEYS):
        raise ValueError("keys: expected some of W, A, S, D")
    held -= {"W", "S"} if {"W", "S"} <= held else set()
    held -= {"A", "D"} if {"A", "D"} <= held else set()
    return CONTROLS.get("".join(key for key in "WSAD" if key in held))
