"""``/download/...``, ahead of FastAPI's router: its work on a request costs more than sending a small file."""

from typing import Final
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fileserver.answers import NoVolume, status_of
from fileserver.downloads import Downloads
from fileserver.zips import Zips
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.names import JobId, OutputPath

_PREFIX: Final = "/download/"


class DownloadRoutes:
    """Answers GET and HEAD below /download/; everything else goes on to ``app``.

    ``openapi.py`` describes these routes, as FastAPI does not see them.
    """

    def __init__(self, app: ASGIApp, downloads: Downloads | None, zips: Zips | None) -> None:
        """Without a volume there are neither ``downloads`` nor ``zips``."""
        self._app = app
        self._downloads = downloads
        self._zips = zips

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if not (
            scope["type"] == "http"
            and scope["path"].startswith(_PREFIX)
            and scope["method"] in {"GET", "HEAD"}
        ):
            await self._app(scope, receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except MorpheusError as error:
            answer = JSONResponse({"detail": str(error)}, status_of(error))
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._downloads is None or self._zips is None:
            raise NoVolume
        job_text, slash, path_text = scope["path"].removeprefix(_PREFIX).partition("/")
        job = JobId(job_text)
        if not slash:
            scope["state"]["route"] = "/download/{job}"
            await self._zips.send(job, scope=scope, receive=receive, send=send)
            return
        scope["state"]["route"] = "/download/{job}/{path}"
        path = OutputPath.parse(path_text)
        inline = _inline(scope["query_string"])
        await self._downloads.send(
            job, path, inline=inline, scope=scope, receive=receive, send=send
        )


def _inline(query: bytes) -> bool:
    if not query:
        return False
    given = parse_qs(query.decode("ascii", errors="replace")).get("inline", ["0"])
    return given[-1].lower() in {"1", "true", "yes"}
