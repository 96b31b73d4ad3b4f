"""A stream of bytes from an origin, a span of a version: over http, https, or from a file."""

import errno
import http.client
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import requests
import urllib3

from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.origins.web import file_path
from morpheus_boot.cache.transfer.http import (
    Client,
    Request,
    content_length,
    content_range,
    strong_etag,
)
from morpheus_boot.cache.transfer.ranges import Span
from morpheus_boot.cache.transfer.retry import TransientFailure
from morpheus_boot.config.redact import without_secrets
from morpheus_boot.errors import OriginUnavailable, storage_error

_MOVED_AWAY: Final = frozenset({errno.ENOENT, errno.ESTALE})


class VersionChanged(Exception):
    """The origin has other bytes now than those a part was begun with."""

    def __str__(self) -> str:
        return "its origin has other bytes now"


class CannotContinue(Exception):
    """What is there must be begun anew: the whole file comes, or nothing would tell two versions apart."""


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells two versions apart at one place: a strong ETag, else Last-Modified; both may be missing."""

    etag: str | None
    last_modified: str | None

    def contradicts(self, other: "Validator") -> bool:
        """Whether the two can't be of the same bytes."""
        if self.etag and other.etag:
            return self.etag != other.etag
        pair = (self.last_modified, other.last_modified)
        return None not in pair and pair[0] != pair[1]


class Stream(Protocol):
    """Bytes in order from offset ``at`` on. ``end``: the offset behind the last, None: not said."""

    at: int
    end: int | None
    validator: Validator

    def read_into(self, buffer: memoryview) -> int:
        """Reads at most the buffer's length; 0 at the end. Raises TransientFailure."""

    def abort(self) -> None:
        """Ends a read that is under way in another thread."""

    def close(self) -> None:
        """Keeps the connection for the next request where the answer was read to its end, else drops it."""


def open_stream(
    client: Client, resolved: Resolved, span: Span, validator: Validator, subject: str
) -> Stream:
    """Opens the stream of a span; ``validator`` is that of the streams before at the same place.

    Raises:
        VersionChanged: the answer's validator or length is another version's.
        CannotContinue: the span is not the whole file, and the whole file comes.
        TransientFailure, OriginDenied, OriginUnavailable.
    """
    if resolved.url.reveal().startswith("file:"):
        return _FileStream(resolved, span, subject)
    version = resolved.version
    whole = span.start == 0 and span.stop in (None, version.size_bytes)
    request = Request(
        resolved.direct or resolved.url,
        {} if whole else _range_headers(span, validator, digest_known=version.sha256 is not None),
        resolved.token,
        resolved.token_hosts,
        signed=resolved.direct is not None,
    )
    response = client.get(request, subject).response
    try:
        found = Validator(
            strong_etag(response.headers.get("ETag")), response.headers.get("Last-Modified")
        )
        # A digest decides by itself at the end, and nodes of one storage may differ in their ETags.
        if version.sha256 is None and found.contradicts(validator):
            raise VersionChanged
        end = _end(response, span, version.size_bytes, subject)
        if response.status_code == 200 and not whole:
            raise CannotContinue
    except BaseException:
        response.close()
        raise
    return _WebStream(response, span.start, end, found)


def _range_headers(span: Span, validator: Validator, *, digest_known: bool) -> dict[str, str]:
    last = "" if span.stop is None else str(span.stop - 1)
    headers = {"Range": f"bytes={span.start}-{last}"}
    if validator.etag and not digest_known:
        headers["If-Range"] = validator.etag
    return headers


def _end(
    response: requests.Response, span: Span, size_bytes: int | None, subject: str
) -> int | None:
    """The offset behind the last byte of an answer that is what was asked for."""
    length = content_length(response)
    if response.status_code == 200:
        if None not in (size_bytes, length) and length != size_bytes:
            raise VersionChanged
        return length
    found = content_range(response)
    if found is None or found[0] != span.start or found[1] < found[0]:
        raise _another_range(response, span, subject)
    _, last, total = found
    if None not in (size_bytes, total) and total != size_bytes:
        raise VersionChanged
    limit = span.stop if span.stop is not None else total
    if (limit is not None and last >= limit) or length not in (None, last + 1 - span.start):
        raise _another_range(response, span, subject)
    return last + 1


def _another_range(response: requests.Response, span: Span, subject: str) -> OriginUnavailable:
    headers = response.headers
    said = f"{headers.get('Content-Range', 'none')}, {headers.get('Content-Length', 'no')} bytes"
    until = "on" if span.stop is None else f"to {span.stop - 1}"
    return OriginUnavailable(
        subject,
        f"{without_secrets(response.url)} was asked for the bytes from {span.start} {until}"
        f" and answered another range ({said})",
        "use another origin",
    )


class _WebStream:
    def __init__(
        self, response: requests.Response, at: int, end: int | None, validator: Validator
    ) -> None:
        self.at, self.end, self.validator = at, end, validator
        self._response = response
        self._read_into = _reader(response)
        self._socket = _socket(response)

    def read_into(self, buffer: memoryview) -> int:
        try:
            return self._read_into(buffer)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise TransientFailure(
                f"{without_secrets(self._response.url)} broke off ({type(error).__name__})"
            ) from error

    def abort(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Not SSLSocket's own: that one takes away the encryption under a thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        inner = _inner(self._response)
        # http.client closes a response at its last byte, but at an early end of the connection, too.
        if inner is not None and inner.isclosed() and not inner.length and not inner.will_close:
            self._response.raw.release_conn()
        else:
            self._response.close()


def _inner(response: requests.Response) -> http.client.HTTPResponse | None:
    inner = getattr(response.raw, "_fp", None)
    return inner if isinstance(inner, http.client.HTTPResponse) else None


def _reader(response: requests.Response) -> Callable[[memoryview], int]:
    # urllib3's own readinto reads into bytes of its own first: 0.5 CPU s a GB and 30 MB more.
    read_into: Callable[[memoryview], int] = (_inner(response) or response.raw).readinto
    return read_into


def _socket(response: requests.Response) -> socket.socket | None:
    file = getattr(_inner(response), "fp", None)
    found = getattr(getattr(file, "raw", None), "_sock", None)
    return found if isinstance(found, socket.socket) else None


class _FileStream:
    def __init__(self, resolved: Resolved, span: Span, subject: str) -> None:
        self._path = file_path(resolved.url.reveal())
        self._subject = subject
        self.at = span.start
        self.validator = Validator(None, None)
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.end: int | None = os.fstat(self._fd).st_size
            os.lseek(self._fd, span.start, os.SEEK_SET)
        except OSError as error:
            raise self._failure(error) from error

    def read_into(self, buffer: memoryview) -> int:
        try:
            return os.readv(self._fd, [buffer])
        except OSError as error:
            raise self._failure(error) from error

    def abort(self) -> None:
        """A read from a file ends by itself."""

    def close(self) -> None:
        os.close(self._fd)

    def _failure(self, error: OSError) -> Exception:
        if error.errno in _MOVED_AWAY:
            return TransientFailure(f"{self._path} is not there ({error.strerror})")
        return storage_error(self._subject, self._path, error)
