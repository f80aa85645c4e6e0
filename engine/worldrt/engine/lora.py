"""LoRA files: low-rank changes of linear layers, merged into the weights that they change.

    W' = W + sum over files of scale * (alpha / rank) * B A          A [rank, in], B [out, rank], W [out, in]

(Hu et al. 2021, https://arxiv.org/abs/2106.09685.) Sums are in float32, rounded once, to nearest even, to how W is
stored. Known names: `lora_A` and `lora_B` of PEFT, diffusers and the official Cosmos scripts (there with the name of
the adapter after it), `lora_down`, `lora_up` and `alpha` of others.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.engine.merge import Float32, Term, widened
from worldrt.engine.namings import plain, spellings
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.schema import parse_json

_KEY = re.compile(r"(.+?)\.(?:lora_(A|B)(?:\.([^.]+))?\.weight|lora[._](down|up)\.weight|(alpha))")
_SIDES = {"A": "a", "B": "b", "down": "a", "up": "b", "alpha": "alpha"}
_UNDERSCORED = "lora_unet_"  # some tools write dots as underscores, after this
_FLOATS = ("float32", "float16", "bfloat16", "float64")
_NUMBERS = (*_FLOATS, "int64", "int32")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA file and how much of it."""

    path: Path
    scale: float = 1.0


def parse_choice(text: str) -> LoraChoice:
    """`file.safetensors` or `file.safetensors:0.8`. Raises `InputError` where the scale is no number."""
    head, colon, tail = text.rpartition(":")
    if not colon or os.path.isfile(text):
        return LoraChoice(Path(text))
    try:
        scale = float(tail)
    except ValueError:
        if not os.path.isfile(head):
            return LoraChoice(Path(text))
        scale = math.nan
    if not math.isfinite(scale):
        raise InputError(f"--lora {text}: expected FILE or FILE:SCALE with a number such as 0.8, got '{tail}'")
    return LoraChoice(Path(head), scale)


def terms_of(
    choices: Iterable[LoraChoice], weights: Mapping[str, tuple[int | str, ...]]
) -> dict[str, tuple[Term, ...]]:
    """What some LoRA files change, by checkpoint key. `weights` are the shapes of all that may be changed.

    A file of scale 0 is read and checked, and changes nothing. The order of the files makes no difference.
    Raises `CheckpointError` for a file that is no LoRA of these weights: the first keys without a match are named.
    """
    changed: dict[str, tuple[Term, ...]] = {}
    for choice in sorted(choices, key=lambda c: (str(c.path.absolute()), c.scale)):
        for key, term in _read(choice, weights).items():
            if term.factor != 0:
                changed[key] = (*changed.get(key, ()), term)
    return changed


def _read(choice: LoraChoice, weights: Mapping[str, tuple[int | str, ...]]) -> dict[str, Term]:
    path = choice.path
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: a LoRA is read from a .safetensors file; convert it (safetensors.torch.save_file)"
        )
    file = SafetensorsFile.open(path)
    layers: dict[str, dict[str, str]] = {}
    odd, adapters = [], set()
    targets = _targets(weights)
    for key in file.tensors:
        match = _KEY.fullmatch(key)
        target = None if match is None else _target(match[1], targets)
        if match is None or target is None:
            odd.append(key)
        elif layers.setdefault(target, {}).setdefault(_SIDES[match[2] or match[4] or match[5]], key) != key:
            raise CheckpointError(f"{path}: two tensors for one part of '{target}': it holds more than one LoRA")
        elif match[2]:
            adapters.add(match[3] or "")
    if len(adapters) > 1:
        raise CheckpointError(f"{path}: it holds more than one LoRA: {', '.join(map(repr, sorted(adapters)))}")
    if odd or not layers:
        raise CheckpointError(_unmatched(path, odd, weights))
    alphas = _Alphas(file)
    return {key: _term(file, key, sides, weights[key], alphas, choice.scale) for key, sides in layers.items()}


def _targets(weights: Iterable[str]) -> dict[str, str]:
    """Module names, in both namings and with underscores, to checkpoint keys."""
    named = {name: key for key in weights for name in spellings(plain(key).removesuffix(".weight"))}
    return named | {_UNDERSCORED + name.replace(".", "_"): key for name, key in named.items()}


def _target(module: str, targets: Mapping[str, str]) -> str | None:
    return targets.get(module) or targets.get(plain(module))


def _unmatched(path: Path, odd: Sequence[str], weights: Iterable[str]) -> str:
    if not odd:
        return f"{path}: it holds no tensors; expected a LoRA"
    first = ", ".join(f"'{key}'" for key in odd[:3])
    example = next(iter(weights), "none")
    return (
        f"{path}: {len(odd)} tensors match no weight of this model that a LoRA can change: {first}"
        f"{', ...' if len(odd) > 3 else ''}; expected names such as '{example.removesuffix('.weight')}.lora_A.weight'. "
        "It is a LoRA of another model, of another kind (DoRA, LoKr), or holds whole weights too"
    )


def _term(
    file: SafetensorsFile,
    key: str,
    sides: Mapping[str, str],
    shape: tuple[int | str, ...],
    alphas: _Alphas,
    scale: float,
) -> Term:
    if not {"a", "b"} <= set(sides):
        raise CheckpointError(
            f"{file.path}: of '{key}' only '{next(iter(sides.values()))}' is there, its other half is missing"
        )
    a, b = (_values(file, sides[side]) for side in "ab")
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != tuple(shape) or not len(a):
        raise CheckpointError(
            f"{file.path}: '{sides['a']}' {list(a.shape)} and '{sides['b']}' {list(b.shape)} make no change of "
            f"'{key}', which is {list(shape)}; it is a LoRA of another model"
        )
    own = _values(file, sides["alpha"], _NUMBERS) if "alpha" in sides else None
    if own is not None and own.size != 1:
        raise CheckpointError(f"{file.path}: '{sides['alpha']}': expected one number, got {list(own.shape)}")
    factor = scale * (alphas.factor(len(a)) if own is None else float(own.ravel()[0]) / len(a))
    if not abs(factor) <= _LARGEST:
        raise CheckpointError(f"{file.path}: the factor of '{key}', scale * alpha / rank, is {factor}")
    return Term(a, b, factor)


class _Alphas:
    """alpha / rank of layers that hold no alpha: from the file's metadata or PEFT's `adapter_config.json`, else 1."""

    def __init__(self, file: SafetensorsFile) -> None:
        self._where, facts = str(file.path), {}
        beside = file.path.with_name("adapter_config.json")
        try:
            if "lora_adapter_metadata" in file.metadata:  # of diffusers; its keys begin with the component
                facts = _settings(file.metadata["lora_adapter_metadata"])
                facts = {key.rpartition(".")[2]: value for key, value in facts.items()}
            elif file.path.name == "adapter_model.safetensors" and beside.is_file():
                self._where, facts = str(beside), _settings(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self._where}: the settings of the LoRA cannot be read: {error}") from error
        for name in ("use_dora", "alpha_pattern", "lora_bias"):
            if facts.get(name):
                raise CheckpointError(f"{self._where}: a LoRA with {name} cannot be merged here")
        self._alpha, self._square_root = facts.get("lora_alpha"), bool(facts.get("use_rslora"))
        number = isinstance(self._alpha, (int, float)) and abs(self._alpha) <= _LARGEST
        if self._alpha is not None and not number:
            raise CheckpointError(f"{self._where}: lora_alpha: expected a number, got {json.dumps(self._alpha)[:80]}")

    def factor(self, rank: int) -> float:
        if self._alpha is None:
            return 1.0
        return float(self._alpha) / (math.sqrt(rank) if self._square_root else rank)


def _settings(text: str) -> dict[str, Any]:
    """Raises `ValueError`."""
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, got {text[:80]!r}")
    return found


def _values(file: SafetensorsFile, key: str, dtypes: Sequence[str] = _FLOATS) -> Float32:
    buffer = file[key]
    if buffer.dtype not in dtypes:
        raise CheckpointError(f"{file.path}: '{key}' is {buffer.dtype}; expected one of {', '.join(dtypes)}")
    with np.errstate(over="ignore"):  # of float64; said here
        values = widened(buffer.numpy(), buffer.dtype)
    if not np.isfinite(values).all():
        raise CheckpointError(f"{file.path}: '{key}' holds values that are no numbers (NaN or infinity): it is damaged")
    return values
