"""What the server answers where something is wrong: ``{"detail": ...}`` with its status, always JSON."""

import logging
from typing import Annotated, Final

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from fileserver.jobs import NoComfyUI, StillRunning
from fileserver.threads import VolumeHangs
from morpheus_boot.errors import Exit, MorpheusError, VolumeFull
from morpheus_boot.jobs.files import NoSuchFile
from morpheus_boot.jobs.names import InvalidName
from morpheus_boot.jobs.request import NoJob, WrongField
from morpheus_boot.jobs.resumable import NoSuchUpload, UploadExpired, UploadLocked
from morpheus_boot.jobs.store import JobTaken, JobTooLarge
from morpheus_boot.jobs.uploads import NameTaken
from morpheus_boot.jobs.workflows import WrongParameter
from morpheus_boot.volume.presence import VolumeGone

_LOG: Final = logging.getLogger("morpheus.fileserver")
_FAILING: Final = 500
_NO_ROUTE: Final = {
    404: "there is no such route; see docs/fileserver.md",
    405: "this route takes another method; see the header Allow",
}
_OPEN: Final = frozenset({"/health", "/ping"})

# None of ComfyUI's folder names either, which a pattern says badly.
JobPath = Annotated[str, Path(json_schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"})]


class ErrorAnswer(BaseModel):
    """What is wrong: the thing, the cause, the mend."""

    detail: str


class StreamCut(Exception):
    """An answer that has begun can't be kept: its connection is cut, so that the client sees it is not whole."""


class Refused(MorpheusError):
    """What a client sends is not taken, and the status that says so."""

    exit_code = Exit.USAGE

    def __init__(
        self,
        status: int,
        subject: str,
        cause: str,
        mend: str,
        *,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(subject, cause, mend)
        self.status = status
        self.headers = headers


class TooSlow(Refused):
    """The client has stopped sending."""

    def __init__(self, idle_s: float) -> None:
        super().__init__(408, "request", f"nothing has come for {idle_s:.0f} s", "try again")


_STATUS: Final[dict[type[MorpheusError], int]] = {
    NoJob: 400,
    NoSuchFile: 404,
    NoSuchUpload: 404,
    JobTaken: 409,
    NameTaken: 409,
    StillRunning: 409,
    UploadExpired: 410,
    JobTooLarge: 413,
    InvalidName: 422,
    WrongField: 422,
    WrongParameter: 422,
    UploadLocked: 423,
    NoComfyUI: 503,
    VolumeGone: 503,
    VolumeHangs: 503,
    VolumeFull: 507,
}


def json_error(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer for what is wrong; a name in ``detail`` need not be UTF-8."""
    text = detail.encode(errors="backslashreplace").decode()
    return JSONResponse({"detail": text}, status, headers)


def answer_errors(app: FastAPI) -> None:
    """Makes ``app`` answer every error in the one form."""

    @app.exception_handler(MorpheusError)
    async def ours(_request: Request, error: MorpheusError) -> Response:
        if isinstance(error, Refused):
            status, headers = error.status, error.headers
        else:
            status, headers = _STATUS.get(type(error), 500), None
        if status >= _FAILING:
            _LOG.warning("%s", error)
        return json_error(status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        told = "; ".join(
            f"{'.'.join(str(place) for place in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        return json_error(422, told)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        told = (
            f"{request.method} {request.url.path}: {_NO_ROUTE.get(error.status_code, error.detail)}"
        )
        return json_error(error.status_code, told, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        """Nobody reads it; it is an answer only so that a client's leaving is not taken for a bug."""
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def bug(_request: Request, _error: Exception) -> Response:
        return json_error(500, "server: a bug of ours; its log says more")


class LastResort:
    """Wraps an application: what it raises is logged once, and one request too many is turned away."""

    def __init__(self, app: ASGIApp, most_requests: int) -> None:
        self._app = app
        self._most_requests = most_requests
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._under_way >= self._most_requests and scope["path"] not in _OPEN:
            await json_error(503, "server: too many requests are under way; try again")(
                scope, receive, send
            )
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        except StreamCut:
            pass  # uvicorn closes what is not complete
        except Exception:  # noqa: BLE001 - whatever it is, one request has failed and no other
            _LOG.exception("%s %s: a bug of ours", scope["method"], scope["path"])
        finally:
            self._under_way -= 1
