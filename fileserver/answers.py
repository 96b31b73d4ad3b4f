"""What the server answers: errors of ours as ``{"detail": ...}`` with their status."""

import logging
from typing import Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fileserver.form import BadField, BadForm, FormTooLarge
from fileserver.jobs import NoComfyUI, StillRunning
from fileserver.threads import VolumeHangs
from fileserver.tus_headers import BadHeader, WrongType
from morpheus_boot.errors import Exit, MorpheusError, VolumeFull
from morpheus_boot.jobs.files import NoSuchFile
from morpheus_boot.jobs.names import InvalidName
from morpheus_boot.jobs.part import NameTaken
from morpheus_boot.jobs.request import NoJob, WrongField
from morpheus_boot.jobs.resumable import NoSuchUpload, UploadExpired, UploadLocked
from morpheus_boot.jobs.store import JobTaken, JobTooLarge
from morpheus_boot.jobs.workflows import WrongParameter
from morpheus_boot.volume.presence import VolumeGone

_LOG: Final = logging.getLogger("morpheus.fileserver")
_FAILING: Final = 500
_NO_ROUTE: Final = {
    404: "there is no such route; see docs/fileserver.md",
    405: "this route takes another method; see the header Allow",
}


class NoVolume(MorpheusError):
    """The server runs without a volume: the boot gave up before it found one."""

    exit_code = Exit.SETUP

    def __init__(self) -> None:
        super().__init__("volume", "there is none", "see /status for what stopped the boot")


class UploadTooLarge(MorpheusError):
    """The upload is larger than the limit."""

    exit_code = Exit.USAGE


class BodyTooLarge(MorpheusError):
    """A job's body is larger than the limit."""

    exit_code = Exit.USAGE


class TooManyFiles(MorpheusError):
    """The job's input holds as many files as one may."""

    exit_code = Exit.USAGE


class TooSlow(MorpheusError):
    """The client sends less than the floor."""

    exit_code = Exit.USAGE


class WrongOffset(MorpheusError):
    """Another number of bytes of the upload is here."""

    exit_code = Exit.USAGE


class WrongVersion(MorpheusError):
    """The client does not speak the version of tus that we do."""

    exit_code = Exit.USAGE


STATUS: Final[dict[type[MorpheusError], int]] = {
    BadForm: 400,
    BadHeader: 400,
    NoJob: 400,
    NoSuchFile: 404,
    NoSuchUpload: 404,
    TooSlow: 408,
    JobTaken: 409,
    NameTaken: 409,
    StillRunning: 409,
    TooManyFiles: 409,
    WrongOffset: 409,
    UploadExpired: 410,
    WrongVersion: 412,
    BodyTooLarge: 413,
    FormTooLarge: 413,
    JobTooLarge: 413,
    UploadTooLarge: 413,
    WrongType: 415,
    BadField: 422,
    InvalidName: 422,
    WrongField: 422,
    WrongParameter: 422,
    UploadLocked: 423,
    NoComfyUI: 503,
    NoVolume: 503,
    VolumeGone: 503,
    VolumeHangs: 503,
    VolumeFull: 507,
}


def status_of(error: MorpheusError) -> int:
    """The HTTP status for an error of ours; 500 where the volume fails."""
    return STATUS.get(type(error), 500)


async def error_answer(_request: Request, error: Exception) -> JSONResponse:
    """The answer for an error of ours."""
    if not isinstance(error, MorpheusError):
        raise error
    if status_of(error) >= _FAILING:
        _LOG.warning("%s", error)
    return JSONResponse({"detail": str(error)}, status_of(error))


async def no_route_answer(request: Request, error: Exception) -> JSONResponse:
    """The answer where the application has no such route, or none with this method, in the same form."""
    if not isinstance(error, HTTPException):
        raise error
    told = f"{request.method} {request.url.path}: {_NO_ROUTE.get(error.status_code, error.detail)}"
    return JSONResponse({"detail": told}, error.status_code, error.headers)


async def invalid_answer(_request: Request, error: Exception) -> JSONResponse:
    """The answer for a request that FastAPI itself found wrong, in the same form."""
    if not isinstance(error, RequestValidationError):
        raise error
    told = "; ".join(
        f"{'.'.join(str(place) for place in e['loc'])}: {e['msg']}" for e in error.errors()
    )
    return JSONResponse({"detail": told}, 422)
