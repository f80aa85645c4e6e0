"""Instructions to the models: our own, which lie beside this file, or the user's."""

from __future__ import annotations

from hashlib import sha256
from importlib import resources
from pathlib import Path

from worldrt.engine.errors import InputError

MOST_BYTES = 65536


def instruction(kind: str, file: Path | None) -> str:
    """The text of `kind` (`critic`, `refiner`), or of the user's file. Raises `InputError`."""
    if file is None:
        return resources.files(__package__).joinpath(f"{kind}.txt").read_text(encoding="utf-8").strip()
    try:
        data = file.read_bytes()
        text = data.decode("utf-8").strip()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: it is not UTF-8 text; save the instruction as UTF-8") from error
    if not text or len(data) > MOST_BYTES:
        raise InputError(f"{file}: expected an instruction of 1 to {MOST_BYTES} bytes, got {len(data)}")
    return text


def digest(text: str) -> str:
    """SHA-256 of an instruction, so that a report says what it was made with."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
