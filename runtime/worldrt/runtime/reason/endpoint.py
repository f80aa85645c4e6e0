"""A model behind any server that speaks the chat completions protocol of OpenAI (vLLM, SGLang, llama.cpp, ...)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import numpy as np

from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.schema import parse_json
from worldrt.runtime.reason.chat import Frames, Progress, Question, Sampling, plain
from worldrt.runtime.reason.pictures import data_url, jpeg_bytes

Shown = Literal["images", "video"]
PATIENCE = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth try
LONGEST_WAIT_S = 60.0
BUSY = (429, 500, 502, 503, 504)
MOST_BYTES = 32 << 20  # of an answer
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
        self.server, self._sleep, self._httpx = server, sleep, _httpx()
        self._refused: set[str] = set()

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
        with self._httpx.Client(timeout=min(self.server.timeout_s, 3600), follow_redirects=False) as client:
            while len(answers) < count:
                if progress is not None:
                    progress(len(answers), count)
                options = _options(sampling, len(answers), count - len(answers))
                answers += self._complete(client, {**body, **options})
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

    def _complete(self, client: Any, body: dict[str, Any]) -> list[str]:
        """The texts of one answer. What a server refuses of options that are not of the protocol is left out."""
        body = {name: value for name, value in body.items() if name not in self._refused}
        status, text = self._patiently(client, body)
        if status in (400, 422) and (extra := [name for name in OWN_OPTIONS if name in body]):
            self._refused |= set(extra)
            return self._complete(client, body)
        if status != 200:
            raise self._error(f"it refuses with status {status}: {self._excerpt(text)}{_hint(status)}")
        return self._texts(text)

    def _patiently(self, client: Any, body: Mapping[str, Any]) -> tuple[int, str]:
        """Status and text of an answer, after some tries where the server is busy or hangs up."""
        for pause in (*PATIENCE, None):
            try:
                status, text, wait = self._post(client, body)
            except (self._httpx.RemoteProtocolError, self._httpx.ReadError, self._httpx.WriteError) as error:
                if pause is None:
                    raise self._error(f"it hangs up: {error}; see the server's own log") from error
                status, wait = BUSY[0], None
            if pause is None or status not in BUSY:
                return status, text
            self._sleep(min(max(pause, wait or 0.0), LONGEST_WAIT_S))
        raise AssertionError("the last try returns")

    def _post(self, client: Any, body: Mapping[str, Any]) -> tuple[int, str, float | None]:
        """Status, text and the pause that the server asks for; it has `timeout_s` for all of it."""
        headers = {} if self.server.key is None else {"authorization": f"Bearer {self.server.key}"}
        end, data, limit = time.monotonic() + self.server.timeout_s, bytearray(), self.server.timeout_s
        try:
            with client.stream("POST", self.server.address, json=body, headers=headers) as answer:
                if answer.is_redirect:
                    raise self._error(f"it sends on to {_public(answer.headers.get('location', '?'))}; give that URL")
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MOST_BYTES:
                        raise self._error(f"its answer is longer than {MOST_BYTES >> 20} MiB")
                    if time.monotonic() > end:
                        raise self._error(f"its answer takes longer than {limit:g} s; give it more time")
                wait = _seconds(answer.headers.get("retry-after"))
                return answer.status_code, data.decode("utf-8", "replace"), wait
        except self._httpx.ConnectError as error:
            raise self._error(f"it cannot be reached: {error}; start it, or give another URL") from error
        except self._httpx.TimeoutException as error:
            raise self._error(f"it does not answer within {limit:g} s; give it more time, or see its log") from error
        except (self._httpx.InvalidURL, self._httpx.UnsupportedProtocol, self._httpx.DecodingError) as error:
            raise self._error(str(error)) from error

    def _texts(self, text: str) -> list[str]:
        try:
            found = [choice["message"]["content"] for choice in parse_json(text)["choices"]]
        except (ValueError, KeyError, TypeError, IndexError):
            raise self._error(f"expected a chat completion, got: {self._excerpt(text)}") from None
        if not found or not all(isinstance(answer, str) or answer is None for answer in found):
            raise self._error(f"expected choices with texts, got: {self._excerpt(text)}")
        return [plain(answer or "") for answer in found]

    def _error(self, text: str) -> BackendError:
        return BackendError(f"{self.server.model} at {_public(self.server.url)}: {text}")

    def _excerpt(self, text: str) -> str:
        """The beginning of an answer, in one line, without the key that a server may repeat."""
        shown = " ".join(plain(text[:2000]).split())
        return (shown if self.server.key is None else shown.replace(self.server.key, "***"))[:200] or "nothing"


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


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


def _httpx() -> ModuleType:
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        raise BackendError("asking a server needs httpx: pip install 'worldrt[critic]'") from error
