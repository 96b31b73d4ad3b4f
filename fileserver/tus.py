"""``/uploads``: tus 1.0 (https://tus.io/protocols/resumable-upload), core, creation, termination and expiration."""

import base64
import binascii
import re
from contextlib import suppress
from email.utils import formatdate
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Header, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fileserver.answers import Refused, TooSlow, json_error
from fileserver.bodies import FileBody, announced_bytes, decode
from fileserver.metrics import Metrics
from fileserver.uploads import Intake, PartFile, too_large, upload_answer
from morpheus_boot.config.variables import Limits
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.resumable import (
    OpenUpload,
    ResumableUpload,
    UploadId,
    UploadPlan,
    UploadStore,
)
from morpheus_boot.jobs.uploads import Target
from morpheus_boot.volume.layout import Layout

_VERSION: Final = "1.0.0"
_ROUTE: Final = "/uploads"
_ONE: Final = "/uploads/{upload}"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})
_EMPTY: Final = 204
_CONTENT_TYPE: Final = "application/offset+octet-stream"
# No file is so long; more digits are an attack on int().
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
# A key is anything printable but a space and a comma, so that what is sent back can't be another header.
_PAIR: Final = re.compile(r"([!-+\--~]+)(?: ([A-Za-z0-9+/]*={0,2}))?")
# A server that dies loses so much at most, and who waits for the end of a request waits for no more.
_SETTLE_BYTES: Final = 16 * 2**20
_MEND: Final = "send what is left of the announced length"
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {_CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}

_Upload = Annotated[str, Path(description="What Location named.")]
_Given = Annotated[str, Header()]


class ResumableAnswer(BaseModel):
    """How an upload stands; the paths are those of its file, once that lies there."""

    message: str
    worker_job_id: str
    received_bytes: int
    size_bytes: int
    pod_path: str | None = None
    comfy_path: str | None = None


class TusUploads:
    """Begins uploads, goes on with them, tells how they stand, and ends them."""

    def __init__(self, intake: Intake) -> None:
        self.layout = intake.layout
        self._store = UploadStore(intake.layout, intake.limits.upload_keeps_s)
        self._intake = intake
        self._threads = intake.threads

    async def create(self, plan: UploadPlan) -> ResumableUpload:
        """Begins an upload; an empty one is complete at once.

        Raises Refused, VolumeHangs, VolumeFull, StorageFailed; for an empty one also NameTaken.
        """
        if plan.size_bytes > self._intake.limits.upload_bytes:
            raise too_large(self._intake.limits.upload_bytes, "send less")
        upload = await self._threads.run(
            lambda: self._store.create(plan), abandoned=lambda made: self._forget(made.id)
        )
        if plan.size_bytes:
            return upload
        opened = await self._open(upload.id)
        if opened.part is not None:
            file = PartFile(opened.part, self._intake)
            try:
                await file.publish([], plan.target)
            except BaseException:
                await file.give_up()
                await self._threads.run(lambda: self._forget(upload.id))
                raise
        return await self.find(upload.id)

    async def find(self, upload: UploadId) -> ResumableUpload:
        """How an upload stands. Raises NoSuchUpload, UploadExpired, VolumeHangs, StorageFailed."""
        return await self._threads.run(lambda: self._store.find(upload))

    async def remove(self, upload: UploadId) -> None:
        """Ends an upload; the file of a complete one stays.

        Raises NoSuchUpload, UploadExpired, UploadLocked, VolumeHangs, StorageFailed.
        """
        await self._threads.run(lambda: self._store.remove(upload))

    async def append(
        self, upload: UploadId, offset_bytes: int, request: Request
    ) -> ResumableUpload:
        """Goes on with an upload at ``offset_bytes``, and publishes its file with the last of it.

        Raises Refused, NoSuchUpload, UploadExpired, UploadLocked, NameTaken, VolumeHangs, VolumeFull, StorageFailed;
        ClientDisconnect. What came and is durable stays.
        """
        opened = await self._open(upload)
        if opened.part is None:
            _check(opened.upload, offset_bytes, request)
            return opened.upload
        file = PartFile(opened.part, self._intake, _SETTLE_BYTES)
        try:
            _check(opened.upload, offset_bytes, request)
            await self._receive(request, opened.upload, file)
        except BaseException:
            await file.give_up()
            raise
        return await self.find(upload)

    async def _receive(self, request: Request, upload: ResumableUpload, file: PartFile) -> None:
        body, plan = FileBody(), upload.plan
        left_bytes = plan.size_bytes - upload.offset_bytes
        try:
            await self._intake.take(request, body, file, left_bytes, _MEND)
        except (ClientDisconnect, TooSlow):
            await file.keep(body.take_chunks())
            raise
        if body.size_bytes == left_bytes:
            await file.publish(body.take_chunks(), plan.target)
        else:
            await file.keep(body.take_chunks())

    async def _open(self, upload: UploadId) -> OpenUpload:
        return await self._threads.run(lambda: self._store.open(upload), abandoned=_let_go)

    def _forget(self, upload: UploadId) -> None:
        """Ends an upload that nobody was told of; what stays of it expires."""
        with suppress(MorpheusError):
            self._store.remove(upload)


def _let_go(opened: OpenUpload) -> None:
    if opened.part is not None:
        with suppress(MorpheusError):
            opened.part.give_up()


def _check(upload: ResumableUpload, offset_bytes: int, request: Request) -> None:
    """Raises Refused where the request goes on elsewhere, or with more than is left."""
    if offset_bytes != upload.offset_bytes:
        raise Refused(
            409,
            "upload",
            f"{upload.offset_bytes} bytes of it are here, not {offset_bytes}",
            "go on from there",
        )
    left_bytes = upload.plan.size_bytes - offset_bytes
    if announced_bytes(request) > left_bytes:
        raise too_large(left_bytes, _MEND)


class TusProtocol:
    """Wraps an application: what holds for every request and answer below /uploads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if not f"{scope['path']}/".startswith(f"{_ROUTE}/"):
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["tus-resumable"] = headers["tus-version"] = _VERSION
                if scope["method"] == "HEAD":
                    # It may have come as a POST, whose client would wait for a body.
                    headers["content-length"] = "0"
            await send(message)

        meant = Headers(scope=scope).get("x-http-method-override")
        if scope["method"] == "POST" and meant is not None:
            if meant not in _METHODS:
                detail = "X-HTTP-Method-Override: it is no method of /uploads; send another"
                await json_error(400, detail)(scope, receive, told)
                return
            scope["method"] = meant
        await self._app(scope, receive, told)


def _require_version(request: Request, tus_resumable: _Given = "") -> None:
    """Raises Refused where the client speaks another version."""
    # As tusd: a browser may look at an upload without it.
    if tus_resumable != _VERSION and (tus_resumable or request.method != "HEAD"):
        raise Refused(412, "Tus-Resumable", f"it is not {_VERSION}", "send this one")


_VERSIONED: Final = [Depends(_require_version)]


def add_tus_routes(app: FastAPI, uploads: TusUploads, metrics: Metrics, limits: Limits) -> None:
    """Adds the routes."""
    _add_reading(app, uploads, limits)
    _add_writing(app, uploads, metrics)


def _add_reading(app: FastAPI, uploads: TusUploads, limits: Limits) -> None:
    able = {
        "tus-version": _VERSION,
        "tus-extension": "creation,termination,expiration",
        "tus-max-size": str(limits.upload_bytes),
    }

    @app.options(_ROUTE, status_code=_EMPTY, response_class=Response)
    async def discover() -> Response:
        return Response(status_code=_EMPTY, headers=able)

    @app.options(_ONE, status_code=_EMPTY, response_class=Response)
    async def discover_from(upload: _Upload) -> Response:  # noqa: ARG001 - in the path
        return Response(status_code=_EMPTY, headers=able)

    @app.head(_ONE, response_class=Response, dependencies=_VERSIONED)
    async def offset(upload: _Upload) -> Response:
        return Response(headers=_told(await uploads.find(UploadId(upload))))

    @app.get(_ONE, response_model=ResumableAnswer)
    async def get(upload: _Upload) -> Response:
        found = await uploads.find(UploadId(upload))
        return JSONResponse(_answer(uploads.layout, found).model_dump(), headers=_told(found))


def _add_writing(app: FastAPI, uploads: TusUploads, metrics: Metrics) -> None:
    @app.post(_ROUTE, status_code=201, response_model=ResumableAnswer, dependencies=_VERSIONED)
    async def create(
        request: Request, upload_length: _Given = "", upload_metadata: _Given = ""
    ) -> Response:
        if "upload-defer-length" in request.headers:
            raise Refused(
                400,
                "Upload-Defer-Length",
                "a length can't be told later here",
                "send Upload-Length",
            )
        size_bytes = _number("Upload-Length", upload_length)
        made = await uploads.create(_plan(size_bytes, upload_metadata.strip()))
        # Relative: whatever proxy stands before us, this leads through it.
        told = {**_progress(made), "location": f"uploads/{made.id}"}
        return JSONResponse(_answer(uploads.layout, made).model_dump(), 201, told)

    @app.patch(
        _ONE,
        status_code=_EMPTY,
        response_class=Response,
        openapi_extra=_BODY,
        dependencies=_VERSIONED,
    )
    async def append(request: Request, upload: _Upload, upload_offset: _Given = "") -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _CONTENT_TYPE:
            raise Refused(415, "upload", "the body's type is another one", f"send {_CONTENT_TYPE}")
        offset_bytes = _number("Upload-Offset", upload_offset)
        now = await uploads.append(UploadId(upload), offset_bytes, request)
        if now.is_complete and offset_bytes < now.plan.size_bytes:
            metrics.uploaded.inc(now.plan.size_bytes)
        return Response(status_code=_EMPTY, headers=_progress(now))

    @app.delete(_ONE, status_code=_EMPTY, response_class=Response, dependencies=_VERSIONED)
    async def end(upload: _Upload) -> Response:
        await uploads.remove(UploadId(upload))
        return Response(status_code=_EMPTY)


def _number(name: str, value: str) -> int:
    if not _NUMBER.fullmatch(value.strip()):
        raise Refused(400, name, "it is missing, or no number of bytes", "send one")
    return int(value)


def _plan(size_bytes: int, metadata: str) -> UploadPlan:
    """What a new upload is to be. Raises Refused, InvalidName."""
    given: dict[str, str] = {}
    for pair in metadata.split(",") if metadata else ():
        match = _PAIR.fullmatch(pair.strip())
        if match is None or match[1] in given:
            raise _bad_metadata()
        try:
            given[match[1]] = decode(base64.b64decode(match[2] or "", validate=True))
        except binascii.Error:
            raise _bad_metadata() from None
    if not given.get("filename"):
        raise Refused(422, "filename", "Upload-Metadata has none", "send it there, in Base64")
    job = given.get("worker_job_id")
    target = Target(
        JobId(job) if job else JobId.new(),
        SubDir.parse(given.get("sub_dir", "")),
        FileName.from_client(given["filename"]),
    )
    return UploadPlan(size_bytes, target, metadata)


def _bad_metadata() -> Refused:
    return Refused(
        400,
        "Upload-Metadata",
        "it is malformed, or has a key twice",
        "send pairs of a key and its value in Base64, with commas between them",
    )


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
        stored = upload_answer(layout, plan.target, plan.size_bytes)
        return ResumableAnswer(**stored.model_dump(), **sizes)
    return ResumableAnswer(
        message=f"{plan.target.name}: {upload.offset_bytes} of {plan.size_bytes} bytes are here",
        worker_job_id=plan.target.job.text,
        **sizes,
    )
