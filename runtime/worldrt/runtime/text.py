"""Prompts to embeddings: a `tokenizer.json`, and the exported text encoder run at the prompt's true length."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from worldrt.engine.bundle import Text
from worldrt.engine.device import Buffer
from worldrt.engine.errors import BundleError, InputError
from worldrt.engine.session import Session
from worldrt.runtime.components import Opener

Float32 = np.ndarray[Any, np.dtype[np.float32]]
CACHED_PROMPTS = 16
MOST_PROMPTS = 512  # of the 2B and 14B models: 1 GB


class _Encoded(NamedTuple):
    text: Float32
    pooled: Float32 | None


class TextEncoder:
    """`encode(prompt)` gives float32 (max_tokens, width): the prompt's rows, then zeros; `pooled(prompt)` what an
    encoder that has one embedding of the whole gives. The last prompts are kept.

    T5 without padding gives the same rows as T5 with masked padding, so no padding is computed.
    """

    def __init__(self, opener: Opener, text: Text) -> None:
        self.spec = text
        self._opener = opener
        self._tokenizer_file = opener.bundle.path(text.tokenizer)
        self._loaded: tuple[Session, dict[str, Buffer]] | None = None
        self._kept: OrderedDict[str, _Encoded] = OrderedDict()
        self._room = CACHED_PROMPTS

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = importlib.import_module("tokenizers")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(self._tokenizer_file))
        except Exception as error:  # the package raises plain Exception
            raise BundleError(f"{self._tokenizer_file}: not a tokenizer file: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def tokens(self, prompt: str) -> list[int]:
        """Token ids with the end token. Raises `InputError` where there are more than `max_tokens`, or cuts what is too
        long, as the bundle has it."""
        ids: list[int] = self._tokenizer.encode(prompt).ids
        if not ids:
            raise InputError("prompt: it holds no token that this model reads; say it in other words")
        if len(ids) > self.spec.max_tokens and self.spec.too_long == "cut":
            return [*ids[: self.spec.max_tokens - 1], ids[-1]]
        if len(ids) > self.spec.max_tokens:
            raise InputError(
                f"prompt: {len(ids)} tokens ({len(prompt.split())} words); this model reads {self.spec.max_tokens}. "
                "Shorten it"
            )
        return ids

    def keep(self, prompts: int) -> None:
        """Have room for so many prompts, each of which takes `max_tokens` rows of memory."""
        self._room = max(CACHED_PROMPTS, min(prompts, MOST_PROMPTS))

    def fits(self, text: str) -> bool:
        """Whether all of a text is read."""
        try:
            return bool(self.tokens(text))
        except InputError:
            return False

    def forget(self) -> None:
        """Let kept prompts go, so that they are encoded again."""
        self._kept.clear()

    def knows(self, prompt: str) -> bool:
        """Whether a prompt's rows are kept, so that no graph is needed."""
        return prompt in self._kept

    def encode(self, prompt: str) -> Float32:
        """A read-only array. Raises `InputError` for an over-long prompt."""
        return self._known(prompt).text

    def pooled(self, prompt: str) -> Float32 | None:
        """float32 (pooled,), read-only, or None where the encoder has no such output. Raises as `encode`."""
        return self._known(prompt).pooled

    def _known(self, prompt: str) -> _Encoded:
        if prompt not in self._kept:
            self._kept[prompt] = self._run(self.tokens(prompt))
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]

    @property
    def loaded(self) -> bool:
        return self._loaded is not None

    def unload(self) -> None:
        """Free the graph and its weights; encoded prompts are kept, and a new prompt loads it again."""
        self._loaded = None

    def nothing(self) -> Float32:
        """The unconditional text of a model that was trained with all-zero embeddings."""
        return np.zeros((self.spec.max_tokens, self.spec.width), np.float32)

    def _run(self, ids: list[int]) -> _Encoded:
        device = self._opener.device
        self._loaded = self._loaded or self._opener.graph(self.spec, "encode")
        session, weights = self._loaded
        call = session.bind({"batch": 1, "text": len(ids)}, weights)
        device.upload(call["ids"], np.array([ids], np.int64))
        device.upload(call["mask"], np.ones((1, len(ids)), np.float32))
        call.run()
        rows = self.nothing()
        found = device.download(call["text"])[0]
        rows[: len(found)] = found  # some encoders give rows for the padding too
        rows.flags.writeable = False
        pooled = None
        if any(spec.name == "pooled" for spec in session.graph.outputs):
            pooled = np.array(device.download(call["pooled"])[0])
            pooled.flags.writeable = False
        return _Encoded(rows, pooled)
