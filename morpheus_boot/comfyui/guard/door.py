"""Who may come in, by ComfyUI's port and by the file server's: one rule for both, from a request's headers alone.

It lies here since ComfyUI's Python can't import the program; the file server can import this.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes, urlsplit

COOKIE = "morpheus_token"
UNAUTHORIZED, FORBIDDEN = 401, 403
DETAILS = {
    UNAUTHORIZED: "token: it is missing or wrong; send Authorization: Bearer <token>, or X-Morpheus-Token: <token>",
    FORBIDDEN: "Origin: a page of another site may change nothing here; send the token in a header instead",
}
FORM_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FORM = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Token</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<p>MORPHEUS_TOKEN is asked for here{wrong}.</p>
<form method="{method}" action="/"><label>Token <input type="password" name="token" autofocus></label>
<button>Enter</button></form>
"""
_COOKIE_BYTES = COOKIE.encode()
_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
# "none": the visitor himself, by the address bar or a bookmark.
_OWN_SITES = frozenset({b"same-origin", b"none"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def form(method: str, *, wrong: bool) -> str:
    """The page on which a browser's user gives the token; ``wrong``: after another one."""
    return _FORM.format(method=method, wrong=", and that was another" if wrong else "")


class Door:
    """Opens for whoever has the token, and for no page of another site by its visitor's browser."""

    def __init__(self, digest: bytes | None, origins: Iterable[str] = ()) -> None:
        """``digest``: the SHA-256 of the token; None: there is no token. The pages of ``origins`` are no strangers."""
        self._digest = digest
        self._origins = frozenset(origin.encode() for origin in origins)

    def refusal(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> int | None:
        """401, 403 or None, which is to come in.

        A browser sends its cookie along, and reaches a port without a token, whichever page has asked it to: all Pods
        of RunPod's proxy are one site to it. So where no header gave the token, what changes something, or opens a
        WebSocket, must come from a page of this very host (Origin, Sec-Fetch-Site: no page can forge either).
        """
        fields = [(name.lower(), value.strip()) for name, value in headers]
        if self._digest is not None:
            if any(self.is_right(given) for given in _in_headers(fields)):
                return None
            if not any(self.is_right(given) for given in _in_cookies(fields)):
                return UNAUTHORIZED
        if not _is_risky(method, fields) or self._origins.intersection(_values(fields, b"origin")):
            return None
        return FORBIDDEN if _is_foreign(fields) else None

    def cors_headers(self, origin: str) -> dict[str, str]:
        """What lets a page of ``origin`` read an answer; empty for a stranger's."""
        if origin.encode(errors="replace") not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "DELETE, GET, OPTIONS, PATCH, POST, PUT",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Morpheus-Token",
            "Vary": "Origin",
        }

    def is_right(self, given: bytes) -> bool:
        """Whether ``given`` is the token, in constant time."""
        digest = hashlib.sha256(given).digest()
        return self._digest is not None and hmac.compare_digest(digest, self._digest)


_Fields = list[tuple[bytes, bytes]]


def _in_headers(fields: _Fields) -> Iterator[bytes]:
    for value in _values(fields, b"authorization"):
        scheme, _, given = value.partition(b" ")
        if scheme.lower() == b"bearer":
            yield given.strip()
    yield from _values(fields, b"x-morpheus-token")


def _in_cookies(fields: _Fields) -> Iterator[bytes]:
    for value in _values(fields, b"cookie"):
        for pair in value.split(b";"):
            key, _, given = pair.strip().partition(b"=")
            if key == _COOKIE_BYTES:
                # A host's ports share their cookies, so both of ours hold the token, quoted.
                yield unquote_to_bytes(given)


def _is_risky(method: str, fields: _Fields) -> bool:
    opens_socket = any(b"websocket" in value.lower() for value in _values(fields, b"upgrade"))
    return opens_socket or method.upper() not in _CHANGES_NOTHING


def _is_foreign(fields: _Fields) -> bool:
    if any(site.lower() not in _OWN_SITES for site in _values(fields, b"sec-fetch-site")):
        return True
    # A proxy may give its own name for the host; a page can't set that header without a preflight.
    names = [*_values(fields, b"host"), *_values(fields, b"x-forwarded-host")]
    hosts = [host.decode("latin-1").strip() for name in names for host in name.split(b",")]
    origins = [origin.decode("latin-1") for origin in _values(fields, b"origin")]
    return any(not any(_is_at(origin, host) for host in hosts) for origin in origins)


def _is_at(origin: str, host: str) -> bool:
    """Whether an Origin names ``host``, and its port where that is said (proxies drop it)."""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        ports = (None, theirs.port or _DEFAULT_PORTS.get(theirs.scheme))
        return bool(theirs.hostname) and theirs.hostname == ours.hostname and ours.port in ports
    except ValueError:  # brackets without an end, a port that is no number
        return False


def _values(fields: _Fields, name: bytes) -> Iterator[bytes]:
    return (value for key, value in fields if key == name)
