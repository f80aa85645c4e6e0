"""The controls of The Matrix: nine symbols, and the embedding of each.

An embedding is the CLIP text feature of an English sentence that the official repository has for the symbol. These
sentences are not part of this project: they are read from a user's copy of that repository, as text that is parsed and
never executed, and told by their hashes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.engine.safetensors import SafetensorsFile
from worldrt.engine.tensors import Shape

SYMBOLS = ("D", "DL", "DR", "B", "BL", "BR", "N", "NL", "NR")
"""Straight ahead, reverse, neutral; and turning left or right."""
EMBEDDINGS = "embeddings"
"""The tensor of the table, float32 (symbols, width)."""
TABLE = "CONTROL_SIGNAL_TO_PROMPT"
PLACES = tuple(f"stage{n}/cogvideox/control_adapter.py" for n in (4, 3, 2))
CLIP = "clip-vit-large-patch14"
_MAX_BYTES = 1_000_000
_KNOWN = {  # length and SHA-256 of the UTF-8 bytes
    "D": (33, "1fe8c95782da18a7aa5b200e0eebcfcba2b0f998a05318d98bcbd65cada9f873"),
    "DL": (30, "4c753cec861ab9e5235edb980cfce99bfde49d8c3aee72a33e4706e658e0fc92"),
    "DR": (31, "c2a48f953266ce24f8bd8a662884d8ce51c4a893c4a972a0f9a38f2b27ff1ab5"),
    "B": (30, "02e12f4b30f3744f34d026c76f9140599f7a52301a4c32ec45946d16bd96e9fe"),
    "BL": (40, "1bfdf0c83ffe4278bdd7a0f17313bfc0031b22d31aaea6a2f799bdbffcf5fc51"),
    "BR": (41, "ad65b1fdc07920c02834d8b8175cdaabddef7f93a8e9761d0ae47d3144e20274"),
    "N": (27, "9a93720ecf1f6781ac7bbf6dc2138937148ce153cfea719bfc5271cadb7ae125"),
    "NL": (48, "3ff0ed634166c9a3f66a08acf3811475e19959ae6c77138df7fcf362ccb8a948"),
    "NR": (49, "f95773ca2f9d9c9bdc1a59b1e43b1e7f91112fe56c04d3be8a93a11cccd415e6"),
}


def read_sentences(path: Path) -> list[str]:
    """The sentences in the order of `SYMBOLS`, from a copy of the official repository or from its file itself.

    Raises `InputError` where they are not there, or are other ones.
    """
    file = path
    if path.is_dir():
        file = next((path / place for place in PLACES if (path / place).is_file()), path / PLACES[0])
    table = _table(file)
    if set(table) != set(SYMBOLS):
        raise InputError(f"{file}: expected sentences for {', '.join(SYMBOLS)}; is it another version?")
    for symbol, (length, sha256) in _KNOWN.items():
        data = table[symbol].encode()
        if (len(data), hashlib.sha256(data).hexdigest()) != (length, sha256):
            raise InputError(
                f"{file}: the sentence of {symbol} is not that of the official models ({len(data)} bytes, expected "
                f"{length}, or other words); take the file as it is published"
            )
    return [table[symbol] for symbol in SYMBOLS]


def _table(file: Path) -> dict[str, str]:
    """The dictionary that the file assigns, as plain values."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file}: larger than {_MAX_BYTES} bytes; is it the right file?")
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"--control_sentences: {file} cannot be read ({error.strerror}); give a copy of "
            f"https://github.com/MatrixTeam-AI/matrix or its file {PLACES[0]}"
        ) from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{file}: not a Python file that can be parsed: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [TABLE]:
            try:
                table = ast.literal_eval(node.value)
            except (ValueError, TypeError, RecursionError) as error:
                raise InputError(f"{file}: {TABLE} is not a table of plain texts: {error}") from error
            if isinstance(table, dict) and all(isinstance(text, str) for pair in table.items() for text in pair):
                return table
    raise InputError(f"{file}: assigns no table of texts to {TABLE}; give {PLACES[0]} of the official repository")


def embed(sentences: Sequence[str], clip: Path) -> np.ndarray[Any, Any]:
    """CLIP text features float32 (sentences, width) by the model in a folder, computed in float32.

    Raises `CheckpointError` where the folder holds no such model.
    """
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    try:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(clip, local_files_only=True)
        model = transformers.CLIPTextModelWithProjection.from_pretrained(
            clip, local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).eval()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{clip}: not a CLIP model with tokenizer and safetensors ({str(error).splitlines()[0][:200]}); fetch "
            f"https://huggingface.co/openai/{CLIP}"
        ) from error
    with torch.no_grad():
        made = model(**tokenizer(list(sentences), padding=True, return_tensors="pt")).text_embeds
    table: np.ndarray[Any, Any] = made.numpy()
    return table


def read_embeddings(path: Path, shape: Shape) -> np.ndarray[Any, Any]:
    """The one table of a safetensors file, as float32. Raises `CheckpointError` where it holds none of that shape."""
    file = SafetensorsFile.open(path)
    fitting = [key for key, tensor in file.tensors.items() if (tensor.shape, tensor.dtype) == (shape, "float32")]
    if len(fitting) != 1:
        held = ", ".join(f"{key} {t.dtype}{list(t.shape)}" for key, t in list(file.tensors.items())[:5])
        raise CheckpointError(f"{path}: expected one tensor float32{list(shape)}, got {held or 'none'}")
    table: np.ndarray[Any, Any] = file[fitting[0]].numpy()
    if not np.isfinite(table).all():
        raise CheckpointError(f"{path}: '{fitting[0]}': expected finite numbers")
    return table
