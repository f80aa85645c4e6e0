"""Basic and Digest (RFC 7617, RFC 7616)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error


def authorization(challenge: str, user: str, password: str, method: str, url: str) -> str:
    """The Authorization header that answers a WWW-Authenticate header."""
    if not challenge.lower().startswith("digest"):
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    asked = {name.lower(): plain or quoted for name, quoted, plain in _PAIR.findall(challenge)}
    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    algorithm = asked.get("algorithm", "")
    digest = _sha256 if algorithm.upper() == "SHA-256" else _md5
    secret, request = digest(f"{user}:{realm}:{password}"), digest(f"{method}:{url}")
    told = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
    extra = f", algorithm={algorithm}" if algorithm else ""
    if "auth" in asked.get("qop", "").replace(" ", "").split(","):
        own = secrets.token_hex(8)
        told |= {"cnonce": own}
        extra += ", qop=auth, nc=00000001"
        told["response"] = digest(f"{secret}:{nonce}:00000001:{own}:auth:{request}")
    else:
        told["response"] = digest(f"{secret}:{nonce}:{request}")
    if "opaque" in asked:
        told["opaque"] = asked["opaque"]
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in told.items()) + extra


def is_allowed(header: str, credentials: str) -> bool:
    """Whether a Basic Authorization header is that of `user:password`."""
    scheme, _, text = header.partition(" ")
    try:
        given = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, credentials.encode())


_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))')


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
