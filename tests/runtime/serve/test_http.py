"""The HTTP side of a server: who may come in, what may be asked, and the page of the interface that says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from importlib import resources

import aiohttp
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.serve.access import make_access
from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.routes import FILES, make_app
from worldrt.runtime.serve.run import bind

from .client import served
from .toy import ToyWorld

OPENAPI = json.loads(resources.files("worldrt.runtime.serve").joinpath("page/openapi.json").read_text())


def run(test):
    return asyncio.run(asyncio.wait_for(test, 240))


@contextlib.asynccontextmanager
async def client(tmp_path, world=None, **options):
    """A session with the server as its base, and the hub."""
    async with served(tmp_path, world, **options) as (url, hub), aiohttp.ClientSession(url) as session:
        yield session, hub


def resolved(part):
    return OPENAPI["components"]["responses"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def described(method, path, status):
    """Checks that an answer is described; gives the schema of its body."""
    answers = OPENAPI["paths"][path][method.lower()]["responses"]
    assert str(status) in answers, f"{method} {path} answered {status}, which is not described"
    return next(iter(resolved(answers[str(status)])["content"].values()))["schema"]


async def ask(session, method, path, expected, **options):
    """An answer that fits what is described."""
    async with session.request(method, path, **options) as answer:
        data = await answer.json()
        assert answer.status == expected, data
        schema = described(method, path, answer.status) | {"components": OPENAPI["components"]}
        jsonschema.Draft202012Validator(schema).validate(data)
        return data


def test_the_described_routes_are_the_routes():
    async def test():
        app = make_app(Hub(ToyWorld))
        return {(route.method, route.resource.canonical) for route in app.router.routes() if route.method != "HEAD"}

    routes = {(method, path) for method, path in run(test()) if path not in FILES}
    assert routes == {(method.upper(), path) for path, item in OPENAPI["paths"].items() for method in item}


def test_the_description_is_openapi_and_each_reference_leads_somewhere():
    text = json.dumps(OPENAPI)
    for reference in re.findall(r'"\$ref": "([^"]+)"', text):
        part = OPENAPI
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for item in OPENAPI["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            for body in operation.get("requestBody", {}).get("content", {}).values():
                examples = [e["value"] for e in body.get("examples", {}).values()] + (
                    [body["example"]] if "example" in body else []
                )
                assert examples
                for example in examples:
                    jsonschema.Draft202012Validator(body["schema"]).validate(example)


def test_who_takes_the_wheel_may_do_what_the_page_does(tmp_path):
    world = ToyWorld()

    async def test():
        async with client(tmp_path, world) as (session, _):
            await ask(session, "POST", "/api/control", 403, json={"keys": "W"})
            wheel = (await ask(session, "POST", "/api/wheel", 200))["wheel"]
            await ask(session, "POST", "/api/wheel", 409)
            mine = {"headers": {"X-Wheel": wheel}}
            assert (await ask(session, "POST", "/api/control", 200, json={"keys": "WA"}, **mine))["control"] == "DL"
            assert (await ask(session, "POST", "/api/control", 200, json={"control": "B"}, **mine))["control"] == "B"
            assert (await ask(session, "POST", "/api/control", 200, json={"control": None}, **mine))["control"] is None
            assert world.asked == ["DL", "B", None]
            for body in ({"keys": "X"}, {"keys": 3}, {"control": "fly"}, {"control": 1}, {}, [], "text"):
                await ask(session, "POST", "/api/control", 400, json=body, **mine)
            await ask(session, "POST", "/api/prompt", 200, json={"text": "rain"}, **mine)
            await ask(session, "POST", "/api/prompt", 400, json={"text": "x" * 2001}, **mine)
            await ask(session, "POST", "/api/prompt", 422, json={"text": "refuse"}, **mine)
            await ask(session, "POST", "/api/run", 200, json={"running": False}, **mine)
            await ask(session, "POST", "/api/run", 400, json={"running": 1}, **mine)
            number = (await ask(session, "POST", "/api/snapshot", 200, **mine))["snapshot"]
            await ask(session, "POST", "/api/restore", 200, json={"snapshot": number}, **mine)
            await ask(session, "POST", "/api/restore", 404, json={"snapshot": True}, **mine)
            await ask(session, "POST", "/api/reset", 200, **mine)
            async with session.get("/api/replay") as answer:
                assert answer.status == 200 and described("GET", "/api/replay", 200)
                assert (
                    answer.content_type == "application/jsonl"
                    and "world.jsonl" in answer.headers["Content-Disposition"]
                )
                assert json.loads(await answer.text())["worldrt_world"] == 1
            await ask(session, "POST", "/api/record", 400, json={}, **mine)
            name = (await ask(session, "POST", "/api/record", 200, json={"on": True}, **mine))["recording"]
            state = await ask(session, "GET", "/api/state", 200)
            assert state["prompt"] == "rain" and state["state"] == "paused" and state["recording"] == name
            assert (await ask(session, "POST", "/api/record", 200, json={"on": False}, **mine))["recording"] == name
            await ask(session, "DELETE", "/api/wheel", 200, **mine)
            await ask(session, "DELETE", "/api/wheel", 403, **mine)
            await ask(session, "POST", "/api/reset", 403, **mine)

    run(test())


def test_only_the_newest_snapshots_are_kept(tmp_path):
    async def test():
        async with client(tmp_path) as (session, _):
            mine = {"headers": {"X-Wheel": (await ask(session, "POST", "/api/wheel", 200))["wheel"]}}
            numbers = [(await ask(session, "POST", "/api/snapshot", 200, **mine))["snapshot"] for _ in range(6)]
            for number in numbers[:2]:
                await ask(session, "POST", "/api/restore", 404, json={"snapshot": number}, **mine)
            for number in numbers[2:]:
                await ask(session, "POST", "/api/restore", 200, json={"snapshot": number}, **mine)

    run(test())


@pytest.mark.parametrize("body", [b"{", b"[" * 8000, b"\xff\xfe", b'{"text": "' + b"x" * 20000 + b'"}'])
def test_bodies_that_are_no_json_or_too_large_are_refused(tmp_path, body):
    async def test():
        async with client(tmp_path) as (session, hub):
            wheel = hub.wheel.lease()
            async with session.post("/api/prompt", data=body, headers={"X-Wheel": wheel}) as answer:
                assert answer.status in (400, 413)
            assert hub.host.state == "running"

    run(test())


def test_a_token_is_asked_for_everywhere_but_on_the_page(tmp_path):
    access = make_access("0.0.0.0", "a token of ours", ())

    async def test():
        async with client(tmp_path, access=access) as (session, _):
            for path in ("/", "/page.js", "/page.css", "/openapi.json", "/healthz", "/readyz"):
                async with session.get(path) as answer:
                    assert answer.status == 200, path
            good, bad = {"Authorization": "Bearer a token of ours"}, {"Authorization": "Bearer a token of yours"}
            for path in ("/api/state", "/metrics"):
                for headers, expected in (
                    (good, 200),
                    (bad, 401),
                    ({}, 401),
                    ({"Authorization": "a token of ours"}, 401),
                ):
                    async with session.get(path, headers=headers) as answer:
                        assert answer.status == expected, (path, headers)
            async with session.get("/api/state?token=a+token+of+ours") as answer:
                assert answer.status == 401, "an address is kept in logs and histories"
            await ask(session, "POST", "/api/wheel", 401)

    run(test())


def test_pages_of_other_places_may_ask_nothing_unless_they_are_named(tmp_path):
    named = make_access("127.0.0.1", None, ["https://world.example.org"])

    async def asked(access, **headers):
        async with (
            client(tmp_path, access=access) as (session, _),
            session.post("/api/wheel", headers=headers) as answer,
        ):
            return answer.status

    assert run(asked(None, Origin="https://world.example.org")) == 403
    assert run(asked(named, Origin="https://world.example.org")) == 200
    assert run(asked(None, Origin="http://[bad")) == 403
    assert run(asked(None, Host="rebound.example.org")) == 421
    assert run(asked(named, Host="world.example.org")) == 200
    assert run(asked(None, Host="localhost:9000")) == 200
    assert run(asked(make_access("0.0.0.0", "a token of ours", ()), Host="car.example.org")) == 401


def test_every_answer_tells_the_browser_what_it_may_do(tmp_path):
    async def test():
        async with client(tmp_path) as (session, _):
            for path in ("/", "/page.js", "/api/state", "/no such page"):
                async with session.get(path) as answer:
                    assert "default-src 'none'" in answer.headers.get("Content-Security-Policy", ""), path
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"

    run(test())


def test_it_is_ready_once_the_world_is_loaded(tmp_path):
    import threading

    loaded = threading.Event()

    class Slow(ToyWorld):
        def start(self, prompt):
            loaded.wait(20)
            super().start(prompt)

    async def test():
        hub = Hub(Slow)
        from aiohttp.test_utils import TestClient, TestServer

        async with TestClient(TestServer(make_app(hub))) as session:
            hub.begin()
            assert (await session.get("/healthz")).status == 200
            assert (await session.get("/readyz")).status == 503
            wheel = {"X-Wheel": hub.wheel.lease()}
            assert (await session.post("/api/reset", headers=wheel)).status == 503
            assert (await session.post("/api/record", headers=wheel, json={"on": True})).status == 409
            loaded.set()
            await asyncio.wait_for(hub.ready.wait(), 20)
            await asyncio.wrap_future(hub.host.loaded)
            assert (await session.get("/readyz")).status == 200
            await hub.end()
            assert (await session.get("/readyz")).status == 503

    run(test())


def test_metrics_are_read_by_prometheus_own_parser(tmp_path):
    async def test():
        async with client(tmp_path) as (session, hub):
            wheel = {"X-Wheel": hub.wheel.lease()}
            await session.post("/api/control", headers=wheel, json={"keys": "W"})
            await session.post("/api/no such thing", headers=wheel)
            await session.post("/api/prompt", headers=wheel, json={})
            await asyncio.sleep(0.3)
            async with session.get("/metrics") as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                return await answer.text()

    families = {family.name: family for family in text_string_to_metric_families(run(test()))}
    values = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert values["worldrt_frames_total",] > 2 and values["worldrt_fps",] > 5
    assert values["worldrt_state", "running"] == 1 and values["worldrt_state", "failed"] == 0
    assert values["worldrt_commands_total", "control", "200"] == 1
    assert values["worldrt_commands_total", "prompt", "400"] == 1
    assert values["worldrt_control_seconds_count", "decoded"] == 1, "one control, however many frames answer it"


def test_a_token_is_needed_beyond_this_machine():
    for host in ("0.0.0.0", "192.0.2.1", "::", "world.example.org", "localhost.example.org"):
        with pytest.raises(InputError, match="--auth_token"):
            make_access(host, None, ())
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert make_access(host, None, ()).token_is(None)
    for token in ("", "short", "ä" * 20, "twelve\nlines "):
        with pytest.raises(InputError, match="12 printable"):
            make_access("0.0.0.0", token, ())
    for origin in ("world.example.org", "https://world.example.org/", "ftp://world.example.org", "*"):
        with pytest.raises(InputError, match="--allow_origin"):
            make_access("127.0.0.1", None, [origin])


def test_a_port_or_host_that_cannot_be_had_is_told_before_anything_is_loaded():
    taken = bind("127.0.0.1", 0)
    with pytest.raises(OutputError, match="another program uses it"):
        bind("127.0.0.1", taken.getsockname()[1])
    taken.close()
    with pytest.raises(InputError, match="no address of this machine"):
        bind("192.0.2.1", 0)
    with pytest.raises(InputError, match="no such address"):
        bind("no.such.host.invalid", 0)
