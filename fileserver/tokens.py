"""The door: everything but the open routes asks for the token, and ``/`` is where a browser gives it."""

import asyncio
import hashlib
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from morpheus_boot.comfyui.guard.door import (
    COOKIE,
    DETAILS,
    FORM_HEADERS,
    UNAUTHORIZED,
    Door,
    form,
)
from morpheus_boot.config.redact import Secret

_OPEN: Final = frozenset({"/health", "/ping"})
_LONGEST_FORM_BYTES: Final = 16_000
_FORM_TIMEOUT_S: Final = 10.0


class TokenGate:
    """Wraps an application: what the door refuses reaches nothing of it but /health and /ping."""

    def __init__(self, app: ASGIApp, token: Secret | None, origins: tuple[str, ...]) -> None:
        self._app = app
        digest = None if token is None else hashlib.sha256(token.reveal().encode()).digest()
        self._door = Door(digest, origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers 401, at ``/`` with the form, or 403."""
        refusal = None
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            refusal = self._door.refusal(scope["method"], scope["headers"])
        if refusal is None:
            await self._app(scope, receive, send)
            return
        response: Response
        if refusal == UNAUTHORIZED and scope["path"] == "/":
            response = await self._at_the_door(Request(scope, receive))
        else:
            headers = {"www-authenticate": "Bearer"} if refusal == UNAUTHORIZED else None
            response = JSONResponse({"detail": DETAILS[refusal]}, refusal, headers)
        await response(scope, receive, send)

    async def _at_the_door(self, request: Request) -> Response:
        given = request.query_params.get("token")
        if request.method == "POST":
            given = await _posted(request)
        if given is None:
            return HTMLResponse(form("post", wrong=False), headers=FORM_HEADERS)
        if not self._door.is_right(given.encode(errors="replace")):
            return HTMLResponse(form("post", wrong=bool(given)), 401, FORM_HEADERS)
        response = RedirectResponse("/", 303, {"cache-control": "no-store"})
        response.set_cookie(
            COOKIE,
            quote(given, safe=""),
            httponly=True,
            samesite="strict",
            # RunPod's proxy ends TLS before us, and says so.
            secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
        )
        return response


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
