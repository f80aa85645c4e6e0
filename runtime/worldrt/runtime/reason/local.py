"""A Qwen2.5-VL such as Cosmos-Reason1-7B in a folder of this machine, run by transformers. Nothing is downloaded."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from worldrt.engine.errors import BackendError, CheckpointError, DeviceMemoryError, InputError
from worldrt.runtime.reason.chat import Progress, Question, Sampling, plain
from worldrt.runtime.reason.vision import Vision, patches

KINDS = ("qwen2_vl", "qwen2_5_vl")


class LocalChat:
    """The model of a folder in the Hugging Face layout, on `device` (cuda where there is one).

    `offload` keeps the weights on the host between questions. Raises `InputError` where the folder holds no model,
    and `CheckpointError` where it holds one of another kind.
    """

    def __init__(self, folder: Path, device: str | None = None, *, offload: bool = False) -> None:
        self.folder, self.offload = folder, offload
        self._torch, self._transformers = _imported("torch"), _imported("transformers")
        self.device = device or ("cuda" if self._torch.cuda.is_available() else "cpu")
        kind = _json(folder / "config.json", needed=True).get("model_type")
        if kind not in KINDS:
            raise CheckpointError(f"{folder}: expected a Qwen2.5-VL such as Cosmos-Reason1-7B, got '{kind}'")
        self._loaded: Any = None

    @property
    def name(self) -> str:
        return str(self.folder.absolute())

    def ask(
        self, question: Question, sampling: Sampling, count: int = 1, progress: Progress | None = None
    ) -> list[str]:
        """As of `Chat`. The random numbers of the process are left as they were."""
        model, torch = self._model(), self._torch
        inputs = self._inputs(question, model)
        start, gpu = inputs["input_ids"].shape[1], [model.device] if model.device.type == "cuda" else []
        if progress is not None:
            progress(0, sampling.max_tokens)
        try:
            with torch.inference_mode(), torch.random.fork_rng(gpu):
                torch.manual_seed(sampling.seed)
                tokens = model.generate(
                    **inputs,
                    **self._options(sampling, count),
                    stopping_criteria=[_Watch(torch, start, sampling.max_tokens, progress)],
                )
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(f"{self.name}: {model.device} has too little memory for {count} answers") from error
        finally:
            if self.offload:
                model.to("cpu")
        answers = self._tokenizer.batch_decode(tokens[:, start:], skip_special_tokens=True)
        return [plain(answer) for answer in answers] * (1 if sampling.temperature else count)

    def unload(self) -> None:
        self._loaded = None

    def _model(self) -> Any:
        if self._loaded is None:
            made = self._transformers.AutoModelForImageTextToText
            with _explained(self.folder):
                self._loaded = made.from_pretrained(
                    self.folder, local_files_only=True, use_safetensors=True, dtype="auto"
                ).eval()
        try:
            return self._loaded.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            self._loaded = None
            raise BackendError(f"{self.name}: cannot be put on {self.device}: {error}") from error

    @cached_property
    def _tokenizer(self) -> Any:
        with _explained(self.folder):
            tokenizer = self._transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        if not tokenizer.chat_template:
            tokenizer.chat_template = _json(self.folder / "chat_template.json").get("chat_template")
        if not tokenizer.chat_template:
            raise CheckpointError(f"{self.folder}: it holds no chat template; copy the model's folder again")
        return tokenizer

    def _inputs(self, question: Question, model: Any) -> dict[str, Any]:
        """What `generate` takes. The place of the frames is one token of the template, repeated as often as they have
        tokens; texts cannot hold such tokens of their own."""
        torch, shown = self._torch, dict[str, Any]()
        content: list[dict[str, str]] = [{"type": "text", "text": _harmless(question.text)}]
        vision = Vision.of(model.config.vision_config, _json(self.folder / "preprocessor_config.json"))
        kind, count = "image", 0
        if question.frames is not None:
            kind = "image" if len(question.frames) == 1 else "video"
            values, grid = patches(question.frames, vision)
            count = grid[0] * grid[1] * grid[2] // vision.merge**2
            shown["pixel_values" if kind == "image" else "pixel_values_videos"] = torch.from_numpy(values)
            shown[f"{kind}_grid_thw"] = torch.tensor([grid])
            if kind == "video":
                shown["second_per_grid_ts"] = torch.tensor([vision.temporal / question.fps])
            content.insert(0, {"type": kind})
        dialog = [{"role": "system", "content": _harmless(question.system)}, {"role": "user", "content": content}]
        text = self._tokenizer.apply_chat_template(dialog, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        place = getattr(model.config, f"{kind}_token_id")
        if ids.count(place) != (count > 0):
            raise CheckpointError(f"{self.folder}: its chat template has no place for a {kind}")
        if count:
            at = ids.index(place)
            ids[at : at + 1] = [place] * count
        shown["input_ids"] = torch.tensor([ids])
        shown["attention_mask"] = torch.ones_like(shown["input_ids"])
        if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
            shown["mm_token_type_ids"] = (shown["input_ids"] == place).int() * (1 if kind == "image" else 2)
        return {name: tensor.to(model.device) for name, tensor in shown.items()}

    def _options(self, sampling: Sampling, count: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "repetition_penalty": sampling.repetition_penalty,
            "suppress_tokens": self._not_ascii if sampling.ascii_only else None,
        }
        if not sampling.temperature:
            return options | {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        return options | drawn | {"do_sample": True, "num_return_sequences": count}

    @cached_property
    def _not_ascii(self) -> list[int]:
        """The tokens that hold other characters than ASCII, or parts of such; special ones not."""
        special = set(self._tokenizer.all_special_ids)
        texts = self._tokenizer.batch_decode([[i] for i in range(len(self._tokenizer))])
        return [i for i, text in enumerate(texts) if i not in special and not text.isascii()]


class _Watch:
    """Called after each token: tells how many there are. A stopping criterion that never stops."""

    def __init__(self, torch: ModuleType, start: int, most: int, progress: Progress | None) -> None:
        self._torch, self._start, self._most, self._progress = torch, start, most, progress

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        if self._progress is not None:
            self._progress(tokens.shape[1] - self._start, self._most)
        return self._torch.zeros(len(tokens), dtype=self._torch.bool, device=tokens.device)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns what transformers says of a folder that it cannot load into one line."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error


def _harmless(text: str) -> str:
    """A text that holds none of the model's special tokens, which all begin with `<|`."""
    return text.replace("<|", "< |")


def _json(path: Path, *, needed: bool = False) -> Mapping[str, Any]:
    """An object of a JSON file, empty where it is absent. Raises `InputError` where it is needed, or damaged."""
    if not path.is_file() and not needed:
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path.parent}: expected the folder of a model: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: it is not JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"a local critic or refiner needs {name}: pip install 'worldrt[reason]'") from error
