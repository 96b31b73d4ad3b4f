"""The token at the door: everything but the open routes asks for it, and ``/`` is where a browser gives it."""

import asyncio
import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs, quote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from morpheus_boot.config.redact import Secret

_COOKIE: Final = b"morpheus_token"
_OPEN: Final = frozenset({"/health", "/ping"})
_LONGEST_FORM_BYTES: Final = 16_000
_FORM_TIMEOUT_S: Final = 10.0
_FORM: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Token</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<form method="post" action="/"><label>Token <input type="password" name="token" autofocus></label>
<button>Enter</button></form>
"""
_FORM_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class TokenGate:
    """Wraps an application: without the token nothing of it is reached but /health and /ping."""

    def __init__(self, app: ASGIApp, token: Secret) -> None:
        self._app = app
        # Clients send what is not ASCII as UTF-8 or, by HTTP's old rule, as Latin-1.
        text = token.reveal()
        self._rights = {text.encode(), text.encode("latin-1", errors="replace")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers 401; at ``/`` with the form."""
        if scope["type"] != "http" or scope["path"] in _OPEN or self._given_by(scope):
            await self._app(scope, receive, send)
            return
        response: Response
        if scope["path"] == "/":
            response = await self._at_the_door(Request(scope, receive))
        else:
            response = JSONResponse(
                {
                    "detail": "token: it is missing or wrong; send Authorization: Bearer <token>,"
                    " or X-Morpheus-Token: <token>"
                },
                401,
                {"www-authenticate": "Bearer"},
            )
        await response(scope, receive, send)

    def _given_by(self, scope: Scope) -> bool:
        return any(self._is_right(given) for given in _given(scope["headers"]))

    def _is_right(self, given: bytes) -> bool:
        return sum(hmac.compare_digest(given, right) for right in self._rights) > 0

    async def _at_the_door(self, request: Request) -> Response:
        given = request.query_params.get("token")
        if request.method == "POST":
            given = await _posted(request)
        if given is None:
            return HTMLResponse(_FORM, headers=_FORM_HEADERS)
        if not self._is_right(given.encode(errors="replace")):
            wrong = "<p>That was another token.</p>\n" if given else ""
            return HTMLResponse(_FORM + wrong, 401, _FORM_HEADERS)
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        response.set_cookie(
            _COOKIE.decode(),
            quote(given, safe=""),
            httponly=True,
            samesite="strict",
            # RunPod's proxy ends TLS before us, and says so.
            secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
        )
        return response


def _given(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name == b"authorization":
            kind, _, given = value.partition(b" ")
            if kind.lower() == b"bearer":
                yield given.strip()
        elif name == b"x-morpheus-token":
            yield value.strip()
        elif name == b"cookie":
            for pair in value.split(b";"):
                key, _, given = pair.strip().partition(b"=")
                if key == _COOKIE:
                    yield unquote_to_bytes(given)


async def _posted(request: Request) -> str:
    body = b""
    try:
        async with asyncio.timeout(_FORM_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > _LONGEST_FORM_BYTES:
                    return ""
    except TimeoutError:
        return ""
    return parse_qs(body.decode(errors="replace")).get("token", [""])[0]
