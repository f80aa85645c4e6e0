"""A server on this machine that replays recorded answers of chat completion servers, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(*texts: str | None) -> dict[str, Any]:
    """The body of an answer, as vLLM 0.11 gives it."""
    return {
        "id": "chatcmpl-3f1c", "object": "chat.completion", "created": 1763700000, "model": "cosmos-reason1",
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text, "tool_calls": []}, "logprobs": None,
             "finish_reason": "stop", "stop_reason": None}
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 2210, "total_tokens": 2318, "completion_tokens": 108}, "prompt_logprobs": None,
    }  # fmt: skip


@dataclass
class Reply:
    """One answer: JSON data or text, after `delay_s`; `drip_s` is waited before each of its bytes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0
    hang_up: bool = False


@dataclass
class Fake:
    """`replies` are given in turn, the last one again and again; `asked` are the bodies, `headers` those of each."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Fake]:
    """Start the server; it is stopped at the end of the block."""
    fake = Fake("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            fake.asked.append(json.loads(self.rfile.read(length)))
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            fake.paths.append(self.path)
            reply = fake.replies.pop(0) if len(fake.replies) > 1 else fake.replies[0]
            time.sleep(reply.delay_s)
            if reply.hang_up:
                self.close_connection = True
                return
            data = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for byte in [data] if not reply.drip_s else [data[i : i + 1] for i in range(len(data))]:
                    time.sleep(reply.drip_s)
                    self.wfile.write(byte)
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
