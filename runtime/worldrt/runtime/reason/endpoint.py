"""A model behind any server that speaks the chat completions protocol of OpenAI (vLLM, SGLang, llama.cpp, ...)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import numpy as np

from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.schema import parse_json
from worldrt.runtime.reason.chat import Frames, Progress, Question, Sampling, plain
from worldrt.runtime.reason.pictures import data_url, jpeg_bytes
from worldrt.runtime.reason.transport import Reply, Transport, TransportError, library

Shown = Literal["images", "video"]
PATIENCE = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth try
LONGEST_WAIT_S = 60.0
BUSY = (429, 500, 502, 503, 504)
REFUSED = (400, 422)
ONE_ANSWER = (*REFUSED, 500, 501)  # what servers say that give one answer at a time, and were asked for several
SHORTEST_SECRET = 8  # characters: a shorter key is a stand-in, and found in any text
OWN_OPTIONS = ("top_k", "repetition_penalty")  # not of the protocol: servers of open models know them


@dataclass(frozen=True)
class Server:
    """Where a server is and what it is asked for. `key` is a secret: it goes into one header and nowhere else.

    `shown`: a clip as pictures, at most `most_frames` of them, or as one video file. `timeout_s` is for one answer.
    """

    url: str
    model: str
    key: str | None = None
    shown: Shown = "images"
    most_frames: int = 16
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        parts = _split(self.url)
        if parts is None or parts.scheme not in ("http", "https"):
            raise InputError(f"'{_public(self.url)}': expected the URL of a server, such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise InputError(f"{_public(self.url)}: a URL with a password would be kept in reports; give the key apart")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip()):
            raise InputError("the API key holds characters that no header may; set the variable again")

    def __repr__(self) -> str:
        return f"Server({_public(self.url)}, {self.model})"

    @property
    def address(self) -> str:
        url, question, rest = self.url.partition("?")
        path = url.rstrip("/")
        return (path if path.endswith("/chat/completions") else f"{path}/chat/completions") + question + rest


class EndpointChat:
    """Asks a server. Raises `BackendError` where it is down, slow, or answers something else."""

    def __init__(self, server: Server, sleep: Callable[[float], None] = time.sleep) -> None:
        self.server, self._sleep = server, sleep
        self._refused: set[str] = set()
        self._one_at_a_time = False
        library()  # what is missing is said now

    @property
    def name(self) -> str:
        shown = "the video" if self.server.shown == "video" else f"{self.server.most_frames} images"
        return f"{self.server.model} at {_public(self.server.url)}, shown {shown}"

    def ask(
        self, question: Question, sampling: Sampling, count: int = 1, progress: Progress | None = None
    ) -> list[str]:
        """As of `Chat`. A server that gives fewer answers than it was asked for is asked again, with other seeds."""
        answers: list[str] = []
        body = {"model": self.server.model, "messages": self._messages(question)}
        try:
            with Transport(self.server.timeout_s) as transport:
                while len(answers) < count:
                    if progress is not None:
                        progress(len(answers), count)
                    options = _options(sampling, len(answers), count - len(answers))
                    answers += self._complete(transport, {**body, **options})
        except TransportError as error:
            raise self._error(str(error)) from error
        return answers[:count]

    def unload(self) -> None:
        """A server keeps its model."""

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        if self.server.shown == "video" and question.video is not None:
            content.append(
                {"type": "video_url", "video_url": {"url": data_url(question.video.read_bytes(), "video/mp4")}}
            )
        elif question.frames is not None:
            content += _pictures(question.frames, question.fps, self.server.most_frames)
        content.append({"type": "text", "text": question.text})
        return [{"role": "system", "content": question.system}, {"role": "user", "content": content}]

    def _complete(self, transport: Transport, body: dict[str, Any]) -> list[str]:
        """The texts of one answer. What a server refuses of options that are not of the protocol is left out."""
        body = {name: value for name, value in body.items() if name not in self._refused}
        body |= {"n": 1} if self._one_at_a_time else {}
        reply = self._patiently(transport, body)
        if reply.sends_on_to is not None:
            raise self._error(f"it sends on to {_public(reply.sends_on_to)}; give that URL")
        if reply.status in REFUSED and (extra := [name for name in OWN_OPTIONS if name in body]):
            self._refused |= set(extra)
            return self._complete(transport, body)
        if reply.status in ONE_ANSWER and body["n"] > 1:
            self._one_at_a_time = True
            return self._complete(transport, body)
        if reply.status != 200:
            raise self._error(
                f"it refuses with status {reply.status}: {self._excerpt(reply.text)}{_hint(reply.status)}"
            )
        return self._texts(reply.text)

    def _patiently(self, transport: Transport, body: Mapping[str, Any]) -> Reply:
        """An answer, after some tries where the server is busy or hangs up."""
        headers = {} if self.server.key is None else {"authorization": f"Bearer {self.server.key}"}
        for pause in PATIENCE:
            wait_s = None
            try:
                reply = transport.post(self.server.address, body, headers)
                if reply.status not in BUSY:
                    return reply
                wait_s = reply.wait_s
            except TransportError as error:
                if not error.passing:
                    raise
            self._sleep(min(max(pause, wait_s or 0.0), LONGEST_WAIT_S))
        return transport.post(self.server.address, body, headers)

    def _texts(self, text: str) -> list[str]:
        try:
            found = [choice["message"]["content"] for choice in parse_json(text)["choices"]]
        except (ValueError, KeyError, TypeError, IndexError):
            raise self._error(f"expected a chat completion, got: {self._excerpt(text)}") from None
        if not found or not all(isinstance(answer, str) or answer is None for answer in found):
            raise self._error(f"expected choices with texts, got: {self._excerpt(text)}")
        return [self._without_key(plain(answer or "")) for answer in found]

    def _error(self, text: str) -> BackendError:
        return BackendError(f"{self.server.model} at {_public(self.server.url)}: {text}")

    def _excerpt(self, text: str) -> str:
        """The beginning of an answer, in one line."""
        return " ".join(self._without_key(plain(text[:2000])).split())[:200] or "nothing"

    def _without_key(self, text: str) -> str:
        """A text in which a server may repeat the key that it was given: reports hold it."""
        key = self.server.key
        return text if key is None or len(key) < SHORTEST_SECRET else text.replace(key, "***")


def _options(sampling: Sampling, done: int, wanted: int) -> dict[str, Any]:
    options: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    options |= {"top_p": sampling.top_p, "seed": sampling.seed + done, "n": wanted, "stream": False}
    own = {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
    return options | {name: value for name, value in own.items() if value not in (0, 1.0)}


def _pictures(frames: Frames, fps: float, most: int) -> list[dict[str, Any]]:
    """At most so many frames, evenly over the clip, each after its time."""
    content: list[dict[str, Any]] = []
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int))
    for i in chosen:
        if len(frames) > 1:
            content.append({"type": "text", "text": f"The frame at {i / fps:.2f} s:"})
        url = data_url(jpeg_bytes(frames[i]), "image/jpeg")
        content.append({"type": "image_url", "image_url": {"url": url}})
    return content


def _split(url: str) -> SplitResult | None:
    """The parts of a URL, or None where it is none, has no host, or a port that is no number."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a port that is no number is found here
        return parts if parts.hostname else None
    except ValueError:
        return None


def _public(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    parts = _split(url)
    if parts is None:
        return plain(url.partition("?")[0].rpartition("@")[2][:100])
    return plain(f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"[:200])


def _hint(status: int) -> str:
    if status in (401, 403):
        return "; set the API key"
    return "; is the URL the one that ends in /v1, and the model's name right?" if status == 404 else ""
