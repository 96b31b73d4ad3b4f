"""The boot as this process sees it, by its state document on local disk: so never behind a volume that hangs."""

import base64
import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response

from morpheus_boot import __version__
from morpheus_boot.report.state import BootState, Readiness, read_state, state_file

_PAGE: Final = Path(__file__).with_name("page.html")
# What RunPod's load balancer takes for initializing, healthy, and anything else for unhealthy.
_PING: Final = {Readiness.STARTING: 204, Readiness.READY: 200}


class BootStatus:
    """The state document, parsed again only when it changed."""

    def __init__(self, local_dir: Path) -> None:
        self._path = state_file(local_dir)
        self._seen: tuple[int, int] | None = None
        self._state: BootState | None = None

    @property
    def state(self) -> BootState | None:
        """The boot's state; None while there is no document."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                self._state = read_state(self._path)
                self._seen = seen
        except OSError:
            return None
        return self._state

    @property
    def ping(self) -> int:
        """204 while the boot runs, 200 when it is ready, 503 when it failed or stopped."""
        state = self.state
        return 204 if state is None else _PING.get(state.readiness, 503)

    def document(self) -> dict[str, Any]:
        """The state as ``/status`` shows it."""
        state = self.state
        return {"readiness": Readiness.STARTING} if state is None else asdict(state)


def add_boot_routes(app: FastAPI, boot: BootStatus) -> None:
    """Adds ``/health``, ``/ping``, ``/status``, and the page at ``/`` that asks for that again and again."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/ping",
        responses={204: {"description": "The boot runs"}, 503: {"description": "The boot failed"}},
        response_class=Response,
    )
    async def ping() -> Response:
        return Response(status_code=boot.ping)

    @app.get("/status")
    async def status() -> JSONResponse:
        return JSONResponse(boot.document())

    shown = _make_page()

    @app.get("/", response_class=HTMLResponse)
    async def page() -> Response:
        return shown


def _make_page() -> HTMLResponse:
    """The page, whose policy lets nothing run but its own script: the state's texts come from outside."""
    text = _PAGE.read_text("utf-8")
    policy = (
        "default-src 'none'",
        "connect-src 'self'",
        f"script-src {_hash_of('script', text)}",
        f"style-src {_hash_of('style', text)}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return HTMLResponse(
        text,
        headers={
            "content-security-policy": "; ".join(policy),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        },
    )


def _hash_of(element: str, text: str) -> str:
    """The source expression for the one inline ``element`` (CSP Level 3, hash-source)."""
    content = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digest = hashlib.sha256(content[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
