"""Unsafe texts, by a language model that was trained to name what is unsafe: Llama Guard 3, or Qwen3Guard.

The model is asked in its own chat template and answers greedily. An answer in another form than it was trained to give
counts as a failure, so that nobody talks it into something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from worldrt.engine.errors import CheckpointError
from worldrt.engine.schema import parse_json
from worldrt.runtime.safety.libraries import library, loading, pretrained

MAX_NEW_TOKENS = 100
HAZARDS = {  # of MLCommons, as Llama Guard 3 numbers them
    "S1": "violent crimes",
    "S2": "non-violent crimes",
    "S3": "sex crimes",
    "S4": "child exploitation",
    "S5": "defamation",
    "S6": "specialized advice",
    "S7": "privacy",
    "S8": "intellectual property",
    "S9": "indiscriminate weapons",
    "S10": "hate",
    "S11": "self-harm",
    "S12": "sexual content",
    "S13": "elections",
    "S14": "code interpreter abuse",
}
QWEN_HAZARDS = (
    "violent", "non-violent illegal acts", "sexual content or sexual acts", "pii", "suicide & self-harm",
    "unethical acts", "politically sensitive topics", "copyright violation", "jailbreak",
)  # fmt: skip


class TextModel:
    """`folder` is that of a transformers model, with its tokenizer and chat template."""

    name = "text model"

    def __init__(self, folder: Path) -> None:
        self._folder, self._device = folder, "cpu"
        self._read = answer_reader(folder)
        self._loaded: tuple[Any, Any] | None = None

    def to(self, device: str) -> None:
        self._device = device
        tokenizer, model = self._models()
        self._loaded = tokenizer, model.to(device)

    def unload(self) -> None:
        self._loaded = None

    def refuses(self, text: str) -> str | None:
        torch = library("torch")
        tokenizer, model = self._models()
        chat = [{"role": "user", "content": one_line(text)}]
        made_of = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True).to(self._device)
        asked = {name: made_of[name] for name in ("input_ids", "attention_mask")}  # some give token types, too
        length = asked["input_ids"].shape[1]
        if length + MAX_NEW_TOKENS > model.config.max_position_embeddings:
            raise ValueError(f"{length} tokens are more than it reads")
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        with torch.inference_mode():
            made = model.generate(**asked, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=pad)
        refusal: str | None = self._read(tokenizer.decode(made[0, length:], skip_special_tokens=True))
        return refusal

    def _models(self) -> tuple[Any, Any]:
        if self._loaded is None:
            with loading(self._folder):
                tokenizer = library("transformers").AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
                if not tokenizer.chat_template:
                    raise ValueError("its tokenizer has no chat template")
            model = pretrained("AutoModelForCausalLM", self._folder, dtype=library("torch").bfloat16)
            model.generation_config.temperature = model.generation_config.top_p = model.generation_config.top_k = None
            self._loaded = tokenizer, model
        return self._loaded


def one_line(text: str) -> str:
    """A text that can neither hold a token of the chat template nor start a turn of its own."""
    return " ".join(text.replace("<", "(").replace(">", ")").split())


def answer_reader(folder: Path) -> Any:
    """What reads the answers of a model, by its kind. Raises `CheckpointError` for one that is no guard."""
    try:
        kind = parse_json((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no folder of a transformers model: {error}") from error
    readers = {"llama": llama_guard, "qwen3": qwen_guard}
    if kind not in readers:
        raise CheckpointError(f"{folder}: expected Llama Guard 3 (llama) or Qwen3Guard (qwen3), got a model '{kind}'")
    return readers[kind]


def llama_guard(answer: str) -> str | None:
    """`safe`, or `unsafe` and a line of hazards such as `S1,S10`. Raises `ValueError` for anything else."""
    first, *rest = answer.strip().splitlines() or [""]
    if first.strip() == "safe" and not rest:
        return None
    if first.strip() != "unsafe":
        raise ValueError("an answer that is neither safe nor unsafe")
    found = [HAZARDS[code] for code in re.findall(r"S\d+", " ".join(rest)) if code in HAZARDS]
    return ", ".join(found) or "unsafe"


def qwen_guard(answer: str) -> str | None:
    """`Safety: Safe`, `Controversial` (which passes, as in the official guardrail) or `Unsafe`, then categories. Raises
    `ValueError` for anything else."""
    found = re.match(r"Safety: (Safe|Controversial|Unsafe)\b", answer.strip())
    if found is None:
        raise ValueError("an answer that does not begin with its verdict")
    if found[1] != "Unsafe":
        return None
    named = re.search(r"Categories: (.*)", answer)
    lowered = named[1].lower() if named else ""
    return ", ".join(hazard for hazard in QWEN_HAZARDS if re.search(rf"(?<![\w-]){hazard}", lowered)) or "unsafe"
