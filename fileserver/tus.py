"""``/uploads``: tus 1.0 (https://tus.io/protocols/resumable-upload), core, creation, termination and expiration."""

from email.utils import formatdate
from typing import Annotated, Final

from fastapi import FastAPI, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fileserver.answers import NoVolume, WrongVersion, status_of
from fileserver.intake import Uploaded
from fileserver.metrics import Metrics
from fileserver.openapi import TUS_CREATION, TUS_PATCH, TUS_REQUEST, UPLOAD_SCHEMA, errors
from fileserver.tus_headers import BadHeader, parse_offset, parse_plan
from fileserver.tus_uploads import TusUploads
from fileserver.uploads import upload_answer
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.resumable import ResumableUpload, UploadId
from morpheus_boot.volume.layout import Layout

_VERSION: Final = "1.0.0"
_ROUTE: Final = "/uploads"
_ONE: Final = "/uploads/{upload}"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})
# The methods that are tus' own; discovery comes before a client knows the version.
_VERSIONED: Final = frozenset({"HEAD", "POST", "PATCH", "DELETE"})
_EMPTY: Final = 204
_UPLOAD: Final = Path(json_schema_extra=dict(UPLOAD_SCHEMA))


class ResumableAnswer(BaseModel):
    """How an upload stands; the paths are those of its file, once that lies there."""

    message: str
    worker_job_id: str
    received_bytes: int
    size_bytes: int
    pod_path: str | None = None
    comfy_path: str | None = None


class TusProtocol:
    """Wraps an application: what holds for every request and answer below /uploads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{_ROUTE}/"):
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["tus-resumable"] = _VERSION
                if scope["method"] == "HEAD":
                    # It may have come as a POST, whose client would wait for a body.
                    headers["content-length"] = "0"
            await send(message)

        try:
            _prepare(scope)
        except MorpheusError as error:
            scope["state"]["route"] = _ROUTE
            answer = JSONResponse(
                {"detail": str(error)}, status_of(error), {"tus-version": _VERSION}
            )
            await answer(scope, receive, told)
            return
        await self._app(scope, receive, told)


def _prepare(scope: Scope) -> None:
    """Sets the method that is meant. Raises BadHeader, WrongVersion."""
    headers = Headers(scope=scope)
    meant = headers.get("x-http-method-override")
    if scope["method"] == "POST" and meant is not None:
        if meant not in _METHODS:
            raise BadHeader("X-HTTP-Method-Override", "it is no method of /uploads", "send another")
        scope["method"] = meant
    version = headers.get("tus-resumable")
    # As tusd: a browser may look at an upload without it.
    if scope["method"] == "HEAD" and version is None:
        return
    if scope["method"] in _VERSIONED and version != _VERSION:
        raise WrongVersion("Tus-Resumable", f"it is not {_VERSION}", "send this one")


def add_tus_routes(
    app: FastAPI, uploads: TusUploads | None, metrics: Metrics, most_bytes: int
) -> None:
    """Adds the routes; without a volume (``uploads`` None) each but OPTIONS says so."""
    _add_discovery(app, most_bytes)
    _add_reading(app, uploads)
    _add_writing(app, uploads, metrics)


def _add_discovery(app: FastAPI, most_bytes: int) -> None:
    able = {
        "tus-version": _VERSION,
        "tus-extension": "creation,termination,expiration",
        "tus-max-size": str(most_bytes),
    }

    @app.options(_ROUTE, status_code=_EMPTY, response_class=Response)
    async def discover() -> Response:
        return Response(status_code=_EMPTY, headers=able)

    @app.options(_ONE, status_code=_EMPTY, response_class=Response)
    async def discover_from(upload: Annotated[str, _UPLOAD]) -> Response:  # noqa: ARG001 - in the path
        return Response(status_code=_EMPTY, headers=able)


def _add_reading(app: FastAPI, uploads: TusUploads | None) -> None:
    @app.head(
        _ONE,
        response_class=Response,
        openapi_extra=TUS_REQUEST,
        responses=errors(404, 410, 412, 500, 503),
    )
    async def offset(upload: Annotated[str, _UPLOAD]) -> Response:
        return Response(headers=_told(await _at_hand(uploads).find(UploadId(upload))))

    @app.get(_ONE, response_model=ResumableAnswer, responses=errors(404, 410, 500, 503))
    async def get(upload: Annotated[str, _UPLOAD]) -> Response:
        known = _at_hand(uploads)
        found = await known.find(UploadId(upload))
        return JSONResponse(_answer(known.layout, found).model_dump(), headers=_told(found))


def _add_writing(app: FastAPI, uploads: TusUploads | None, metrics: Metrics) -> None:
    @app.post(
        _ROUTE,
        status_code=201,
        response_model=ResumableAnswer,
        openapi_extra=TUS_CREATION,
        responses=errors(400, 409, 412, 413, 422, 500, 503, 507),
    )
    async def create(request: Request) -> Response:
        known = _at_hand(uploads)
        made = await known.create(parse_plan(request.headers))
        # Relative: whatever proxy stands before us, this leads through it.
        told = {**_progress(made), "location": f"uploads/{made.id}"}
        return JSONResponse(_answer(known.layout, made).model_dump(), 201, told)

    @app.patch(
        _ONE,
        status_code=_EMPTY,
        response_class=Response,
        openapi_extra=TUS_PATCH,
        responses=errors(400, 404, 408, 409, 410, 412, 413, 415, 423, 500, 503, 507),
    )
    async def append(request: Request, upload: Annotated[str, _UPLOAD]) -> Response:
        known = _at_hand(uploads)
        offset_bytes = parse_offset(request.headers)
        now = await known.append(UploadId(upload), offset_bytes, request)
        if now.is_complete and offset_bytes < now.plan.size_bytes:
            metrics.uploaded.inc(now.plan.size_bytes)
        return Response(status_code=_EMPTY, headers=_progress(now))

    @app.delete(
        _ONE,
        status_code=_EMPTY,
        response_class=Response,
        openapi_extra=TUS_REQUEST,
        responses=errors(404, 410, 412, 423, 500, 503),
    )
    async def end(upload: Annotated[str, _UPLOAD]) -> Response:
        await _at_hand(uploads).remove(UploadId(upload))
        return Response(status_code=_EMPTY)


def _at_hand(uploads: TusUploads | None) -> TusUploads:
    if uploads is None:
        raise NoVolume
    return uploads


def _progress(upload: ResumableUpload) -> dict[str, str]:
    return {
        "upload-offset": str(upload.offset_bytes),
        "upload-expires": formatdate(upload.expires_at, usegmt=True),
    }


def _told(upload: ResumableUpload) -> dict[str, str]:
    return {
        **_progress(upload),
        "upload-length": str(upload.plan.size_bytes),
        "upload-metadata": upload.plan.metadata,
        "cache-control": "no-store",
    }


def _answer(layout: Layout, upload: ResumableUpload) -> ResumableAnswer:
    plan = upload.plan
    sizes = {"received_bytes": upload.offset_bytes, "size_bytes": plan.size_bytes}
    if upload.is_complete:
        stored = upload_answer(layout, Uploaded(plan.job, plan.sub_dir, plan.name, plan.size_bytes))
        return ResumableAnswer(**stored.model_dump(), **sizes)
    return ResumableAnswer(
        message=f"{plan.name}: {upload.offset_bytes} of {plan.size_bytes} bytes are here",
        worker_job_id=plan.job.text,
        **sizes,
    )
