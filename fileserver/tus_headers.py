"""What a tus client says in its headers (https://tus.io/protocols/resumable-upload, 1.0.0), parsed."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from fileserver.form import BadField
from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.jobs.journal import UploadPlan
from morpheus_boot.jobs.names import FileName, JobId, SubDir

_CONTENT_TYPE: Final = "application/offset+octet-stream"
# No file is so long; more digits are an attack on int().
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
# A key is anything printable but a space and a comma, so that what is sent back can't be another header.
_PAIR: Final = re.compile(r"([!-+\--~]+)(?: ([A-Za-z0-9+/]*={0,2}))?")


class BadHeader(MorpheusError):
    """A header of the protocol is missing, or is not what it must be."""

    exit_code = Exit.USAGE


class WrongType(MorpheusError):
    """A PATCH whose body is of another type than the protocol's."""

    exit_code = Exit.USAGE


def parse_plan(headers: Mapping[str, str]) -> UploadPlan:
    """What a new upload is to be. Raises BadHeader; BadField and InvalidName as an upload's form."""
    if "upload-defer-length" in headers:
        raise BadHeader(
            "Upload-Defer-Length", "a length can't be told later here", "send Upload-Length"
        )
    size_bytes = _number(headers, "upload-length")
    metadata = headers.get("upload-metadata", "").strip()
    given = _parse_metadata(metadata)
    if not given.get("filename"):
        raise BadField("filename", "Upload-Metadata has none", "send it there, in Base64")
    job = given.get("worker_job_id")
    return UploadPlan(
        size_bytes,
        JobId(job) if job else JobId.new(),
        SubDir.parse(given.get("sub_dir", "")),
        FileName.from_client(given["filename"]),
        metadata,
    )


def parse_offset(headers: Mapping[str, str]) -> int:
    """Where a PATCH begins. Raises WrongType, BadHeader."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _CONTENT_TYPE:
        raise WrongType("upload", "the body's type is another one", f"send {_CONTENT_TYPE}")
    return _number(headers, "upload-offset")


def _number(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name, "").strip()
    if not _NUMBER.fullmatch(value):
        raise BadHeader(name.title(), "it is missing, or no number of bytes", "send one")
    return int(value)


def _parse_metadata(metadata: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in metadata.split(",") if metadata else ():
        match = _PAIR.fullmatch(pair.strip())
        if match is None or match[1] in given:
            raise _bad_metadata()
        try:
            value = base64.b64decode(match[2] or "", validate=True)
        except binascii.Error:
            raise _bad_metadata() from None
        # As in a form: some clients still send Latin-1.
        try:
            given[match[1]] = value.decode()
        except UnicodeDecodeError:
            given[match[1]] = value.decode("latin-1")
    return given


def _bad_metadata() -> BadHeader:
    return BadHeader(
        "Upload-Metadata",
        "it is malformed, or has a key twice",
        "send pairs of a key and its value in Base64, with commas between them",
    )
