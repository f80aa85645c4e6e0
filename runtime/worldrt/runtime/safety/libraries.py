"""Torch and transformers for the models of the guardrail: imported when they are needed, and only then."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldrt.engine.errors import BackendError, CheckpointError, WorldrtError

Weights = Mapping[str, Any]  # torch tensors by name


def library(name: str) -> Any:
    """An optional library. Raises `BackendError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(
            f"guardrail: {name} cannot be imported ({error}): pip install 'worldrt[guardrail]'"
        ) from error


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Make of every failure of a `with` block that reads `path` a `CheckpointError`."""
    try:
        yield
    except WorldrtError:
        raise
    except Exception as error:
        kind, text = type(error).__name__, " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: cannot be read as a model of the guardrail; fetch it again: {kind}: {text}"
        ) from error


def pretrained(kind: str, folder: Path, **options: Any) -> Any:
    """A transformers model of a local folder, every weight of it present, for inference. Nothing is fetched, no code
    of the folder is run and no pickle is read. Raises `CheckpointError`."""
    transformers = library("transformers")
    with loading(folder), quiet(transformers.utils.logging):
        model, found = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
        lacking = [*found["missing_keys"], *found.get("mismatched_keys", ())]
        if lacking:  # they would be random, and the model would let anything pass
            raise CheckpointError(f"{folder}: weights are missing, {lacking[0]} and {len(lacking) - 1} more")
    return model.eval()


@contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Keep the bars and warnings of transformers out of a `with` block; `logging` is its module of that name."""
    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def pickled(file: Path) -> Weights:
    """The tensors of a .pt or .pth file, by names without the prefix that data parallelism gave them. Nothing but
    tensors is unpickled. Raises `CheckpointError`."""
    torch = library("torch")
    with loading(file):
        held = torch.load(file, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict"):
            held = held.get(key, held)
        return {name.removeprefix("module."): tensor.float() for name, tensor in held.items()}


def torch_device(device: str) -> str:
    """Where torch can compute for a device of worldrt: the CPU where this torch knows no GPU."""
    return device if device.startswith("cuda") and library("torch").cuda.is_available() else "cpu"


def free_cuda() -> None:
    """Give memory that torch holds but does not use back to the GPU."""
    torch = library("torch")
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
