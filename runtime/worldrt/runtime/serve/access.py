"""Who may connect: the token, and the pages that may speak for a user."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from worldrt.engine.errors import InputError

LEAST_TOKEN = 12
LOOPBACK_NAMES = ("localhost",)


@dataclass(frozen=True)
class Access:
    """What a request needs. `token`: None where anyone who reaches the port may come in, which is for loopback only.
    `origins`: pages of other places that may connect, such as `https://world.example.org`."""

    token: str | None = None
    origins: tuple[str, ...] = ()

    def token_is(self, given: str | None) -> bool:
        """Compares in constant time."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(self.token.encode(), given.encode("utf-8", "replace"))

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Whether `Authorization: Bearer TOKEN` is there, or none is needed."""
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        return self.token_is(given.strip() if scheme.lower() == "bearer" else None)

    def host_allowed(self, host: str) -> bool:
        """Without a token, only names of this machine: the name of another place that resolves to it is an attack from
        a page of that place (DNS rebinding)."""
        if self.token is not None or any(urlsplit(origin).netloc == host for origin in self.origins):
            return True
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and is_loopback(name)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """A page may speak to the server that it came from. Whoever sends no origin is no page."""
        if origin is None or origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in LOOPBACK_NAMES


def make_access(host: str, token: str | None, origins: Sequence[str]) -> Access:
    """The access of a server on `host`. Raises `InputError` where a token is needed or too short, or an origin is
    none."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host}: it can be reached from other machines, so a token is needed: --auth_token, or "
            "$WORLDRT_AUTH_TOKEN, which the list of processes does not show"
        )
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise InputError(f"--auth_token: expected at least {LEAST_TOKEN} printable ASCII characters")
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise InputError(f"--allow_origin: expected something like https://world.example.org, got {origin!r}")
    return Access(token, tuple(origins))
