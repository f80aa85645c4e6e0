"""Asking a server: what is sent, and what becomes of every kind of answer."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.observer import Cancelled
from worldrt.runtime.reason.chat import Question, Sampling
from worldrt.runtime.reason.endpoint import EndpointChat, Server

from ..fakes.endpoint import Reply, completion, serve

QUESTION = Question("system words", "user words")
SAMPLING = Sampling(100, 0.6, 0.95, 50, 1.05, seed=7)
KEY = "sk-very-secret-0123"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as server:
        yield server


def chat(fake, sleeps=None, **options):
    return EndpointChat(Server(fake.url, "cosmos-reason1", **options), (sleeps if sleeps is not None else []).append)


def frames(count):
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([np.stack([x * 4, y * 5, np.full_like(x, i * 2)], -1) for i in range(count)]).astype(np.uint8)


def test_a_question_is_sent_as_the_protocol_has_it(fake):
    fake.replies = [Reply(completion("one", "two"))]
    assert chat(fake, key=KEY).ask(QUESTION, SAMPLING, 2) == ["one", "two"]
    (asked,) = fake.asked
    assert fake.paths == ["/v1/chat/completions"] and fake.headers[0]["authorization"] == f"Bearer {KEY}"
    assert asked["messages"] == [
        {"role": "system", "content": "system words"},
        {"role": "user", "content": [{"type": "text", "text": "user words"}]},
    ]
    numbers = {"max_tokens": 100, "temperature": 0.6, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.05}
    assert numbers.items() <= asked.items()
    assert (asked["model"], asked["n"], asked["seed"], asked["stream"]) == ("cosmos-reason1", 2, 7, False)


def test_frames_are_sent_as_jpeg_pictures_each_after_its_time(fake):
    fake.replies = [Reply(completion("seen"))]
    clip = frames(31)
    chat(fake, most_frames=4).ask(Question("s", "u", clip, fps=10.0), SAMPLING)
    content = fake.asked[0]["messages"][1]["content"]
    assert [part["text"] for part in content if part["type"] == "text"] == [
        *(f"The frame at {seconds:.2f} s:" for seconds in (0, 1, 2, 3)), "u",
    ]  # fmt: skip
    for part, number in zip([part for part in content if part["type"] == "image_url"], (0, 10, 20, 30), strict=True):
        head, _, data = part["image_url"]["url"].partition(",")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (head, picture.format, picture.size) == ("data:image/jpeg;base64", "JPEG", (64, 48))
        assert np.abs(np.asarray(picture.convert("RGB"), int) - clip[number]).mean() < 4


def test_a_clip_is_sent_as_its_own_file_where_that_is_asked_for(fake, tmp_path):
    fake.replies = [Reply(completion("seen"))]
    (tmp_path / "clip.mp4").write_bytes(b"any bytes")
    chat(fake, shown="video").ask(Question("s", "u", frames(3), video=tmp_path / "clip.mp4"), SAMPLING)
    part = fake.asked[0]["messages"][1]["content"][0]
    assert part == {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,YW55IGJ5dGVz"}}


def test_a_server_that_gives_one_answer_at_a_time_is_asked_again_with_other_seeds(fake):
    fake.replies = [Reply(completion(text)) for text in "abc"]
    assert chat(fake).ask(QUESTION, SAMPLING, 3) == ["a", "b", "c"]
    assert [(asked["n"], asked["seed"]) for asked in fake.asked] == [(3, 7), (2, 8), (1, 9)]


def test_options_that_a_server_does_not_know_are_left_out(fake):
    fake.replies = [Reply({"error": {"message": "Unrecognized request argument: top_k"}}, 400), Reply(completion("a"))]
    asking = chat(fake)
    assert asking.ask(QUESTION, SAMPLING) == ["a"] and "top_k" in fake.asked[0]
    assert not {"top_k", "repetition_penalty"} & set(fake.asked[1])
    asking.ask(QUESTION, SAMPLING)
    assert len(fake.asked) == 3 and "top_k" not in fake.asked[2]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_after_a_while(fake, status):
    fake.replies = [Reply("busy", status), Reply("busy", status, {"retry-after": "9"}), Reply(completion("a"))]
    sleeps = []
    assert chat(fake, sleeps).ask(QUESTION, SAMPLING) == ["a"] and sleeps == [1.0, 9.0]


def test_a_server_that_stays_busy_or_hangs_up_is_given_up(fake):
    fake.replies, sleeps = [Reply({"error": "overloaded"}, 503)], []
    with pytest.raises(BackendError, match="status 503.*overloaded"):
        chat(fake, sleeps).ask(QUESTION, SAMPLING)
    assert sleeps == [1.0, 2.0, 4.0] and len(fake.asked) == 4
    fake.replies = [Reply("", hang_up=True)]
    with pytest.raises(BackendError, match="hangs up"):
        chat(fake).ask(QUESTION, SAMPLING)
    fake.replies = [Reply("", hang_up=True), Reply(completion("a"))]
    assert chat(fake).ask(QUESTION, SAMPLING) == ["a"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply("<html><h1>nginx</h1></html>"), "expected a chat completion, got: <html>"),
        (Reply({"object": "error", "message": "no such thing"}), "expected a chat completion"),
        (Reply([1, 2]), "expected a chat completion"), (Reply("null"), "expected a chat completion"),
        (Reply(""), "got: nothing"), (Reply("[" * 90000), "expected a chat completion"),
        (Reply({"choices": []}), "expected choices"), (Reply({"choices": {"a": 1}}), "expected a chat completion"),
        (Reply({"choices": [{"message": {"content": [{"type": "text"}]}}]}), "expected choices with texts"),
        (Reply({"error": "bad key"}, 401), "set the API key"), (Reply("not found", 404), "ends in /v1"),
        (Reply({"detail": "too many images"}, 422), "too many images"),
        (Reply("", 302, {"location": "http://10.0.0.9:1/v1"}), "sends on to http://10.0.0.9:1/v1"),
        (Reply("x", 200, {"content-encoding": "gzip"}), "reason1 at http"),
    ],
)  # fmt: skip
def test_other_answers_end_in_one_clear_line(fake, reply, text):
    fake.replies = [reply]
    with pytest.raises(BackendError) as stop:
        chat(fake, key=KEY).ask(QUESTION, SAMPLING)
    assert text in str(stop.value) and "\n" not in str(stop.value) and len(str(stop.value)) < 500


def test_a_redirect_takes_the_key_nowhere(fake):
    with serve() as other:
        other.replies, fake.replies = [Reply(completion("a"))], [Reply("", 307, {"location": f"{other.url}/x"})]
        with pytest.raises(BackendError, match="sends on"):
            chat(fake, key=KEY).ask(QUESTION, SAMPLING)
        assert not other.asked


def test_a_slow_server_is_given_up_in_time(fake):
    fake.replies = [Reply(completion("a"), delay_s=1.0)]
    with pytest.raises(BackendError, match=r"does not answer within 0\.2 s"):
        chat(fake, timeout_s=0.2).ask(QUESTION, SAMPLING)


def test_a_server_that_drips_is_given_up_in_time(fake):
    fake.replies = [Reply(completion("a"), drip_s=0.05)]
    with pytest.raises(BackendError, match=r"does not answer within 0\.3 s"):
        chat(fake, timeout_s=0.3).ask(QUESTION, SAMPLING)


def test_a_server_that_is_down():
    with serve() as fake:
        url = fake.url
    with pytest.raises(BackendError, match="cannot be reached"):
        EndpointChat(Server(url, "m"), [].append).ask(QUESTION, SAMPLING)


def test_the_key_is_never_shown(fake):
    server = Server(fake.url + "?token=hidden", "m", KEY)
    fake.replies = [Reply(f"your key {KEY} is wrong", 403)]
    asking = EndpointChat(server, [].append)
    with pytest.raises(BackendError) as stop:
        asking.ask(QUESTION, SAMPLING)
    shown = f"{stop.value} {asking.name} {server!r}"
    assert KEY not in shown and "hidden" not in shown and "***" in shown
    assert fake.paths == ["/v1/chat/completions?token=hidden"]


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://", "http://[::1", "http://x:port/v1", "http://me:pass@x/v1"]
)
def test_other_urls_are_refused_without_showing_a_password(url):
    with pytest.raises(InputError) as stop:
        Server(url, "m")
    assert "pass@" not in str(stop.value)


def test_a_key_that_no_header_may_hold_is_refused():
    with pytest.raises(InputError) as stop:
        Server("http://x/v1", "m", "two\nlines")
    assert "two" not in str(stop.value)


def test_answers_hold_no_control_characters_and_no_halves_of_characters(fake):
    fake.replies = [
        Reply('{"choices": [{"message": {"content": "a\\ud800\\u0000\\u001bb\\nc"}}]}'),
        Reply(completion(None)),
    ]
    asking = chat(fake)
    (answer,) = asking.ask(QUESTION, SAMPLING)
    assert answer == "a   b\nc" and answer.encode()
    assert asking.ask(QUESTION, SAMPLING) == [""]


def test_asking_ends_when_progress_raises(fake):
    def cancel(done, total):
        if done == 1:
            raise Cancelled

    fake.replies = [Reply(completion("a"))]
    with pytest.raises(Cancelled):
        chat(fake).ask(QUESTION, SAMPLING, 3, cancel)
    assert len(fake.asked) == 1
