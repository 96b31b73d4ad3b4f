"""A stream of bytes from an origin, beginning at an offset: over http, https, or from a file."""

import errno
import os
from dataclasses import dataclass
from typing import Final, Protocol

import requests
import urllib3

from morpheus_boot.cache.http import Request, content_length, content_range, get, strong_etag
from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.origins.web import file_path
from morpheus_boot.cache.retry import TransientFailure
from morpheus_boot.errors import OriginUnavailable, storage_error
from morpheus_boot.redact import without_secrets

_MOVED_AWAY: Final = frozenset({errno.ENOENT, errno.ESTALE})


class VersionChanged(Exception):
    """The origin has other bytes now than those a part was begun with."""


class Stream(Protocol):
    """Bytes in order. ``at``: the offset of the first; ``end``: that behind the last, None: not said."""

    at: int
    end: int | None

    def read_into(self, buffer: memoryview) -> int:
        """Reads at most the buffer's length; 0 at the end. Raises TransientFailure."""

    def close(self) -> None:
        """Drops the connection."""


def open_stream(session: requests.Session, resolved: Resolved, at: int, subject: str) -> Stream:
    """Opens the stream at offset ``at``, or at 0 where the origin ignores ranges.

    Raises:
        VersionChanged: the answer's validator or length is another version's.
        TransientFailure, OriginDenied, OriginUnavailable.
    """
    if resolved.url.reveal().startswith("file:"):
        return _FileStream(resolved, at, subject)
    return _open_web(session, resolved, at, subject)


def _open_web(session: requests.Session, resolved: Resolved, at: int, subject: str) -> "_WebStream":
    headers = {"Range": f"bytes={at}-"} if at else {}
    if at and resolved.if_range:
        headers["If-Range"] = resolved.if_range
    answer = get(
        session,
        Request(resolved.url, headers, resolved.token, resolved.token_hosts),
        subject,
    )
    version, response = resolved.version, answer.response
    try:
        etag = strong_etag(answer.first_etag)
        # A digest decides by itself at the end; without one the validator is all there is.
        if not version.sha256 and version.etag and etag and etag != version.etag:
            raise VersionChanged
        begin, end = _span(response, at, subject)
        if None not in (version.size_bytes, end) and end != version.size_bytes:
            raise VersionChanged
    except BaseException:
        response.close()
        raise
    return _WebStream(response, begin, end)


def _span(response: requests.Response, at: int, subject: str) -> tuple[int, int | None]:
    if response.status_code == 200:
        return 0, content_length(response)
    span = content_range(response)
    if span is None or span[0] != at or (span[2] is not None and span[1] + 1 != span[2]):
        where = without_secrets(response.url)
        said = response.headers.get("Content-Range", "none")
        raise OriginUnavailable(
            subject,
            f"{where} was asked for the bytes from {at} on and answered another range ({said})",
            "use another origin",
        )
    return at, span[1] + 1


@dataclass
class _WebStream:
    _response: requests.Response
    at: int
    end: int | None

    def read_into(self, buffer: memoryview) -> int:
        try:
            count = self._response.raw.readinto(buffer)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientFailure(
                f"{without_secrets(self._response.url)} broke off ({type(error).__name__})"
            ) from error
        return int(count)

    def close(self) -> None:
        self._response.close()


class _FileStream:
    def __init__(self, resolved: Resolved, at: int, subject: str) -> None:
        self._path = file_path(resolved.url.reveal())
        self._subject = subject
        self.at = at
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.end: int | None = os.fstat(self._fd).st_size
            os.lseek(self._fd, at, os.SEEK_SET)
        except OSError as error:
            raise self._failure(error) from error

    def read_into(self, buffer: memoryview) -> int:
        try:
            return os.readv(self._fd, [buffer])
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        os.close(self._fd)

    def _failure(self, error: OSError) -> Exception:
        if error.errno in _MOVED_AWAY:
            return TransientFailure(f"{self._path} is not there ({error.strerror})")
        return storage_error(self._subject, self._path, error)
