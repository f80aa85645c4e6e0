"""The pages, the HTTP interface and the socket. `openapi.json` describes them."""

from __future__ import annotations

import asyncio
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from worldrt.runtime.serve.commands import NAMES, Refused
from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.limits import Bucket
from worldrt.runtime.serve.messages import MOST_BYTES
from worldrt.runtime.serve.viewer import Viewer, make_socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/keys.js": ("keys.js", "text/javascript"),
    "/link.js": ("link.js", "text/javascript"),
    "/video.js": ("video.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/openapi.json": ("openapi.json", "application/json"),
}
OPEN = (*FILES, "/healthz", "/readyz", "/ws")  # the socket asks for the token itself
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
GUESS_S = 0.5
ASKED_PER_S, ASKED_BURST = 50.0, 100.0


def make_app(hub: Hub) -> web.Application:
    """The application over a hub, which the caller begins and ends."""
    from aiohttp import web

    routes = Routes(hub)
    app = web.Application(middlewares=[routes.middleware()], client_max_size=MOST_BYTES)
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, _file(name, kind))
    app.router.add_get("/healthz", routes.healthz)
    app.router.add_get("/readyz", routes.readyz)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/ws", routes.socket)
    app.router.add_get("/api/state", routes.state)
    app.router.add_get("/api/replay", routes.replay)
    app.router.add_post("/api/wheel", routes.take_wheel)
    app.router.add_delete("/api/wheel", routes.leave_wheel)
    for name in NAMES:
        app.router.add_post(f"/api/{name}", routes.command(name))
    return app


class Routes:
    """The handlers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._asked, self._driven = Bucket(ASKED_PER_S, ASKED_BURST), Bucket(ASKED_PER_S, ASKED_BURST)

    def middleware(self) -> Any:
        """Who may come in, what they may send, and what their browser may do with the answer."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                await self._admit(request)
                response = await handler(request)
            except Refused as refused:
                response = web.json_response({"error": str(refused)}, status=refused.status)
                if refused.status == 401:
                    response.headers["WWW-Authenticate"] = "Bearer"
            except web.HTTPException as error:
                error.headers.update(HEADERS)
                raise
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guard

    async def _admit(self, request: web.Request) -> None:
        """Raises `Refused`."""
        access, refused = self._hub.access, self._hub.metrics.refused
        if not access.host_allowed(request.host):
            refused.labels("host").inc()
            raise Refused(421, "this name is not of this server; use 127.0.0.1, or start it with --auth_token")
        if not access.origin_allowed(request.headers.get("Origin"), request.host):
            refused.labels("origin").inc()
            raise Refused(403, "a page of another place may not connect; --allow_origin lets it")
        if request.path not in OPEN and not access.authorized(request.headers):
            refused.labels("token").inc()
            await asyncio.sleep(GUESS_S)
            raise Refused(401, "expected a header Authorization: Bearer TOKEN")
        asked = self._driven if self._hub.wheel.holds(_driver(request)) else self._asked  # nobody stops the driver
        if (request.method != "GET" or request.path == "/api/replay") and not asked.take():
            raise Refused(429, "too many requests; wait a moment")

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Pictures out, messages in."""
        socket = make_socket()
        if not socket.can_prepare(request):
            raise Refused(426, "expected a WebSocket")
        await socket.prepare(request)
        lean(request.transport)
        await Viewer(self._hub, socket, authorized=self._hub.access.authorized(request.headers)).serve()
        return socket

    async def healthz(self, request: web.Request) -> web.Response:
        """The process answers."""
        return _json({"alive": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 once the world can be looked at."""
        state = self._hub.host.state
        return _json({"state": state}, 200 if state in ("running", "paused") else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        from aiohttp import web

        self._hub.changed()
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._hub.metrics.text(), headers=kind)

    async def state(self, request: web.Request) -> web.Response:
        """What everyone may know."""
        return _json(self._hub.state())

    async def replay(self, request: web.Request) -> web.Response:
        """The recording of the world so far."""
        from aiohttp import web

        kind = {"Content-Type": "application/jsonl", "Content-Disposition": 'attachment; filename="world.jsonl"'}
        return web.Response(body=await self._hub.commands.replay(), headers=kind)

    async def take_wheel(self, request: web.Request) -> web.Response:
        """A token that drives, for half a minute after each use."""
        token = self._hub.wheel.lease()
        if token is None:
            raise Refused(409, "somebody else drives")
        self._hub.changed()
        return _json({"wheel": token})

    async def leave_wheel(self, request: web.Request) -> web.Response:
        """Let go."""
        name = _driver(request)
        if not self._hub.wheel.holds(name):
            raise Refused(403, "you are not the driver")
        self._hub.leave_wheel(name)
        return _json({})

    def command(self, name: str) -> Handler:
        """The handler of one command."""

        async def handler(request: web.Request) -> web.Response:
            try:
                body = await request.json() if request.can_read_body else {}
            except (ValueError, RecursionError):
                raise Refused(400, "expected JSON") from None
            if not isinstance(body, dict):
                raise Refused(400, "expected a JSON object")
            return _json(await self._hub.commands.perform(name, body, _driver(request)))

        return handler


def lean(transport: Any) -> None:
    """Let nothing wait in the kernel that a slow viewer would get too late: pictures wait here, where they can be
    dropped."""
    import socket

    transport.set_write_buffer_limits(high=65536)
    raw = transport.get_extra_info("socket")
    if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 16384)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)  # nor what a flood brings: it is parsed at once


def _driver(request: web.Request) -> str:
    return request.headers.get("X-Wheel", "")[:64]


def _json(data: dict[str, Any], status: int = 200) -> web.Response:
    from aiohttp import web

    return web.json_response(data, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=True))


def _file(name: str, kind: str) -> Handler:
    from aiohttp import web

    data = resources.files(__package__).joinpath("page").joinpath(name).read_bytes()

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=data, content_type=kind, charset="utf-8")

    return handler
