"""Servers that do not mean well: every question ends in time, and in one clear error."""

import socket
import sys
import threading
import time
import zlib
from contextlib import contextmanager, suppress

import pytest

from worldrt.engine.errors import BackendError
from worldrt.runtime.reason.chat import Question, Sampling
from worldrt.runtime.reason.endpoint import EndpointChat, Server

from ..fakes.endpoint import Reply, completion, serve

SAMPLING = Sampling(100, 0.6, 0.95, 50, 1.05, seed=7)
HEAD = b"HTTP/1.1 200 OK\r\n"
PROXIES = [f"{name}_PROXY" for name in ("HTTP", "HTTPS", "ALL", "http", "https", "all")]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def answering(*pieces, pause_s=0.0):
    """A server that sends these bytes to whoever asks, with a pause before each piece; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(asking):
            with asking, suppress(OSError):
                asked = b""
                while b'"stream":false' not in asked:
                    asked += asking.recv(1 << 16)
                for piece in pieces:
                    time.sleep(pause_s)
                    asking.sendall(piece)
                asking.shutdown(socket.SHUT_WR)  # to close with bytes unread would reset the answer
                while asking.recv(1 << 16):
                    pass

        def listen():
            with suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)


def ask(url, count=1, **options):
    return EndpointChat(Server(url, "m", **options), [].append).ask(Question("s", "u"), SAMPLING, count)


def refused(url, match, **options):
    with pytest.raises(BackendError, match=match) as stop:
        ask(url, **options)
    assert len(str(stop.value)) < 500
    return str(stop.value)


@pytest.mark.parametrize(
    ("pieces", "after"),
    [
        ([b"HTTP/1.1 200 OK\r\nX-A: ", *[b"a"] * 60], "a header without an end"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 60, "continue for ever"),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", *[b"a"] * 60], "a chunk whose size is never said"),
    ],
)
def test_bytes_that_keep_coming_give_no_more_time(pieces, after):
    with answering(*pieces, pause_s=0.1) as url:
        start = time.monotonic()
        refused(url, r"does not answer within 0\.5 s", timeout_s=0.5)
        assert time.monotonic() - start < 3, after


def test_a_packed_answer_is_not_unpacked():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(bytes(1 << 24)) + packer.flush()
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with answering(head + bomb) as url:
        refused(url, "packs its answer")


def test_an_answer_without_end_is_given_up():
    with answering(HEAD + b"Content-Length: 999999999\r\n\r\n", *[bytes(1 << 20)] * 34) as url:
        refused(url, "longer than 32 MiB", timeout_s=30.0)


@pytest.mark.parametrize("value", ["²", "9" * 400, "-1", "soon"])
def test_a_strange_pause_is_no_failure_of_ours(value):
    pause = f"HTTP/1.1 503 busy\r\nRetry-After: {value}\r\nContent-Length: 4\r\n\r\nbusy".encode("latin-1")
    with answering(pause) as url:
        refused(url, "status 503: busy")


@pytest.mark.parametrize(
    "name", ["a..b", "xn--a", f"x{'a' * 300}", "\u202ehost", "a\0b"], ids=["empty", "idna", "long", "bidi", "null"]
)
def test_hosts_that_are_no_names_are_one_clear_error(name):
    refused(f"http://{name}/v1", "cannot be asked")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTP_PROXY", "foo://bar"), ("ALL_PROXY", "socks5h://127.0.0.1:1"), ("HTTP_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/nowhere.pem"), ("SSL_CERT_FILE", __file__),
    ],
)  # fmt: skip
def test_what_the_environment_names_wrongly_is_one_clear_error(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "socksio", None)
    refused("http://localhost:1/v1", "that the environment names cannot be used")


def test_a_proxy_that_refuses_is_one_clear_error(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse():
            asking, _ = proxy.accept()
            with asking:
                asking.recv(1 << 16)
                asking.sendall(b"HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        refused("https://host.invalid/v1", "cannot be asked: 407")


@pytest.mark.parametrize("status", [400, 422, 500, 501])
def test_a_server_that_gives_one_answer_only_is_asked_for_one_at_a_time(status):
    with serve() as fake:
        tries = 1 if status == 501 else 2 if status < 500 else 4
        no = Reply({"error": {"message": "Only one completion choice is allowed"}}, status)
        fake.replies = [*[no] * tries, Reply(completion("a")), Reply(completion("b"))]
        assert ask(fake.url, 2) == ["a", "b"]
        assert [asked["n"] for asked in fake.asked] == [2] * tries + [1, 1]
        assert [asked["seed"] for asked in fake.asked[tries:]] == [7, 8]


def test_a_key_that_a_server_repeats_is_in_no_answer():
    with serve() as fake:
        fake.replies = [Reply(completion("your key is sk-0123456789!"))]
        assert ask(fake.url, key="sk-0123456789") == ["your key is ***!"]
        fake.replies = [Reply(completion("<answer>No</answer>"))]
        assert ask(fake.url, key="n") == ["<answer>No</answer>"]  # no secret, and in every text
