"""`trt-run serve` as a process: its address, its errors in one line, and its end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import av
import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime import serve_cli, serve_flags
from worldrt.runtime.serve.run import bind

HERE = Path(__file__).parent
SERVE = """
import sys
sys.path.insert(0, {here!r})
import toy
from worldrt.engine.cli import Parser, run
from worldrt.engine.errors import InputError
from worldrt.runtime import serve_cli, serve_flags

class World(toy.ToyWorld):
    def start(self, prompt):
        if prompt == "none":
            raise InputError("the model\\nis not there")
        super().start(prompt)
    def step(self):
        return super().step()

def main(argv):
    parser = Parser()
    serve_flags.add(parser)
    parser.add_argument("--prompt", default="")
    args = parser.parse_args(argv)
    return serve_cli.serve(args, World, args.prompt)

sys.exit(run(main))
"""


@contextlib.contextmanager
def process(*flags):
    code = SERVE.format(here=str(HERE))
    made = subprocess.Popen(
        [sys.executable, "-c", code, "--port", "0", *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


def address(made):
    line = made.stdout.readline()
    found = re.search(r"https?://127\.0\.0\.1:\d+/", line)
    assert found, line + made.stderr.read()
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_finishes_what_is_written(tmp_path, number):
    film = tmp_path / "world.mp4"
    with process("--to", film, "--to", "null:") as made:
        url = address(made)
        frames = 0
        while frames < 12:
            with urllib.request.urlopen(f"{url}metrics") as answer:
                frames = float(re.search(r"^worldrt_frames_total (\S+)", answer.read().decode(), re.MULTILINE)[1])
        with urllib.request.urlopen(f"{url}api/state") as answer:
            assert [place.partition(":")[2] for place in json.load(answer)["places"]] == [" sending", ": sending"]
        made.send_signal(number)
        out, error = made.communicate(timeout=30)
    assert made.returncode == 0 and out == "stopped\n" and "Traceback" not in error
    with av.open(str(film)) as file:
        assert file.streams.video[0].frames > 5


def test_a_world_that_cannot_be_loaded_is_one_line_and_2():
    with process("--prompt", "none") as made:
        _, error = made.communicate(timeout=30)
    assert made.returncode == 2 and error == "error: the model is not there\n"


def test_a_port_that_is_taken_is_one_line_and_2():
    with bind("127.0.0.1", 0) as taken, process("--port", taken.getsockname()[1]) as made:
        out, error = made.communicate(timeout=30)
    assert made.returncode == 2 and out == ""
    assert error.startswith("error: --port") and "another program uses it" in error and error.count("\n") == 1


def test_beyond_this_machine_it_wants_a_token_which_it_does_not_print():
    with process("--host", "0.0.0.0") as made:
        _, error = made.communicate(timeout=30)
    assert made.returncode == 2 and "--auth_token" in error
    with process("--host", "0.0.0.0", "--auth-token", "a-secret-of-ours") as made:
        shown = made.stdout.readline()
        made.send_signal(signal.SIGTERM)
        out, error = made.communicate(timeout=30)
    assert made.returncode == 0 and "a-secret" not in shown + out + error


def certificate(folder, name):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*command, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


def test_it_speaks_https_with_a_certificate_and_refuses_the_key_of_another(tmp_path):
    cert, key = certificate(tmp_path, "ours")
    with process("--tls_cert", cert, "--tls_key", key) as made:
        url = address(made)
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(cert))
        trusted.check_hostname = False
        with urllib.request.urlopen(f"{url}healthz", context=trusted) as answer:
            assert json.load(answer) == {"alive": True}
        made.send_signal(signal.SIGTERM)
        assert made.wait(30) == 0
    with pytest.raises(InputError, match="cannot be used with its key"):
        serve_flags.tls(parsed("--tls_cert", str(cert), "--tls_key", str(certificate(tmp_path, "theirs")[1])))


def parsed(*flags):
    from worldrt.engine.cli import Parser

    parser = Parser()
    serve_flags.add(parser)
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "65536"], "0 to 65535"),
        (["--max_viewers", "0"], "1 to 1000"),
        (["--tls_key", "key.pem"], "--tls_cert"),
        (["--tls_cert", "absent.pem"], "absent.pem"),
    ],
)
def test_flags_that_cannot_be_used_are_refused_before_the_world_is_opened(flags, said):
    with pytest.raises(InputError, match=said):
        serve_cli.serve(parsed(*flags), lambda: pytest.fail("it was opened"))


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(serve_cli, "LIBRARIES", ("aiohttp_of_another_world",))
    with pytest.raises(BackendError, match=r"pip install 'worldrt\[serve\]'"):
        serve_cli.serve(parsed(), lambda: pytest.fail("it was opened"))


def test_the_token_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("WORLDRT_AUTH_TOKEN", "of the environment")
    assert serve_flags.token(parsed()) == "of the environment"
    assert serve_flags.token(parsed("--auth_token", "of the flag")) == "of the flag"
    monkeypatch.delenv("WORLDRT_AUTH_TOKEN")
    assert serve_flags.token(parsed()) is None
