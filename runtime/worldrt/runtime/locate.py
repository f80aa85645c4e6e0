"""Where bundles are looked for when none is named."""

from __future__ import annotations

import os
from pathlib import Path

from worldrt.engine.bundle import FILE_NAME
from worldrt.engine.errors import InputError
from worldrt.engine.packaged import packaged

DEFAULT_SIZE = "2B"
FIRST_MODEL = "nano"
"""The one that comes with the package, and is taken where there is nothing else."""
VARIABLE = "WORLDRT_BUNDLES"


def find_bundles(size: str | None) -> list[Path]:
    """The bundles of a model size: `SIZE`, and `SIZE-anything`, in $WORLDRT_BUNDLES or the folder `bundles`.

    Without a size: the only bundle there is, else those of size 2B. What is in no folder may be part of the package,
    as `nano` is. Raises `InputError` that says what to run.
    """
    present = all_bundles()
    own = packaged(size or FIRST_MODEL)
    if size is not None:
        found = [folder for folder in present if _is(folder, size)]
        if not found and own is not None:
            return [own]
        if not found:
            raise InputError(f"no bundle of size '{size}' in {_places()}{_those(present)}; {_how(size)}")
        return sorted(found, key=lambda folder: len(folder.name))
    if not present and own is not None:
        return [own]
    if not present:
        raise InputError(f"no bundle in {_places()}; {_how('nano')} (a small model), or --model {DEFAULT_SIZE}")
    of_default = [folder for folder in present if _is(folder, DEFAULT_SIZE)]
    if len(present) > 1 and not of_default:
        raise InputError(f"several bundles in {_places()}{_those(present)}; choose one with --model_size or --bundle")
    return of_default or present


def all_bundles() -> list[Path]:
    """Every bundle in the places that are looked at."""
    return [folder for root in _roots() for folder in _in(root)]


def _is(folder: Path, size: str) -> bool:
    name, wanted = folder.name.lower(), size.lower()
    return name == wanted or name.startswith(f"{wanted}-")


def _roots() -> list[Path]:
    named = os.environ.get(VARIABLE)
    return [Path(part) for part in named.split(os.pathsep) if part] if named else [Path("bundles")]


def _in(root: Path) -> list[Path]:
    return sorted(place.parent for place in root.glob(f"*/{FILE_NAME}"))


def _places() -> str:
    return " or ".join(str(root) for root in _roots())


def _those(present: list[Path]) -> str:
    return f" (there are {', '.join(folder.name for folder in present)})" if present else ""


def _how(size: str) -> str:
    return f"make one with: trt-export --model {size} -o {_roots()[0] / size}"
