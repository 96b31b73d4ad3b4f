"""A stream of bytes from an origin, a span of a version: over http, https, or from a file."""

import errno
import http.client
import os
import socket
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import requests
import urllib3

from morpheus_boot.cache.origins.file import file_path
from morpheus_boot.cache.origins.http import Client, content_length, content_range
from morpheus_boot.cache.origins.origin import Resolved, TransientFailure, Validator
from morpheus_boot.config.redact import without_secrets
from morpheus_boot.errors import OriginUnavailable, storage_error

_MOVED_AWAY: Final = frozenset({errno.ENOENT, errno.ESTALE})


class VersionChanged(Exception):
    """The origin has other bytes now than those a part was begun with."""

    def __str__(self) -> str:
        return "its origin has other bytes now"


class CannotContinue(Exception):
    """What is there must be begun anew: the whole file comes, or nothing would tell two versions apart."""


class Span(NamedTuple):
    """The bytes of a file from ``start`` up to ``stop`` (None: its end, wherever that is)."""

    start: int
    stop: int | None


class Stream(Protocol):
    """Bytes in order. ``end``: the offset behind the last, None: not said."""

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
    """Opens the stream of a span; ``validator`` is that of the streams before at the same address.

    Raises:
        VersionChanged: the answer's validator or length is another version's.
        CannotContinue: the span is not the whole file, and the whole file comes.
        TransientFailure, OriginDenied, OriginUnavailable.
    """
    if resolved.address.url.reveal().startswith("file:"):
        return _FileStream(resolved, span, subject)
    version = resolved.version
    headers: dict[str, str] = {}
    is_whole = span.start == 0 and span.stop in (None, version.size_bytes)
    if not is_whole:
        last = "" if span.stop is None else str(span.stop - 1)
        headers["Range"] = f"bytes={span.start}-{last}"
        # A digest decides by itself at the end, and nodes of one storage may differ in their ETags.
        if validator.etag and version.sha256 is None:
            headers["If-Range"] = validator.etag
    answer = client.get(resolved.address, headers, subject)
    try:
        if version.sha256 is None and answer.validator.contradicts(validator):
            raise VersionChanged
        end = _end(answer.response, span, version.size_bytes, subject)
        if answer.response.status_code == 200 and not is_whole:
            raise CannotContinue
    except BaseException:
        answer.response.close()
        raise
    return _WebStream(answer.response, end, answer.validator)


def _end(
    response: requests.Response, span: Span, size_bytes: int | None, subject: str
) -> int | None:
    """The offset behind the last byte of an answer that is what was asked for."""
    length = content_length(response)
    if response.status_code == 200:
        if None not in (size_bytes, length) and length != size_bytes:
            raise VersionChanged
        return length
    begin, last, total = content_range(response) or (-1, -1, None)
    if begin == span.start <= last and None not in (size_bytes, total) and total != size_bytes:
        raise VersionChanged
    limit = total if span.stop is None else span.stop
    is_within = limit is None or last < limit
    if begin == span.start <= last and is_within and length in (None, last + 1 - begin):
        return last + 1
    said = response.headers.get("Content-Range", "none")
    said_bytes = response.headers.get("Content-Length", "no")
    until = "on" if span.stop is None else f"to {span.stop - 1}"
    raise OriginUnavailable(
        subject,
        f"{without_secrets(response.url)} was asked for the bytes from {span.start} {until}"
        f" and answered another range ({said}, {said_bytes} bytes)",
        "use another origin",
    )


class _WebStream:
    def __init__(self, response: requests.Response, end: int | None, validator: Validator) -> None:
        self.end, self.validator = end, validator
        self._response = response
        inner = getattr(response.raw, "_fp", None)
        self._inner = inner if isinstance(inner, http.client.HTTPResponse) else None
        raw = getattr(getattr(self._inner, "fp", None), "raw", None)
        self._socket = getattr(raw, "_sock", None)

    def read_into(self, buffer: memoryview) -> int:
        try:
            # urllib3's own readinto reads into bytes of its own first: 0.5 CPU s a GB and 30 MB more.
            count: int = (self._inner or self._response.raw).readinto(buffer)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise TransientFailure(
                f"{without_secrets(self._response.url)} broke off ({type(error).__name__})"
            ) from error
        return count

    def abort(self) -> None:
        if isinstance(self._socket, socket.socket):
            with suppress(OSError):
                # Not SSLSocket's own: that one takes away the encryption under a thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        inner = self._inner
        # http.client closes a response at its last byte, but at an early end of the connection, too.
        if inner is not None and inner.isclosed() and not inner.length and not inner.will_close:
            self._response.raw.release_conn()
        else:
            self._response.close()


class _FileStream:
    def __init__(self, resolved: Resolved, span: Span, subject: str) -> None:
        self._path = file_path(resolved.address.url.reveal())
        self._subject = subject
        self.validator = Validator()
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.end: int | None = os.lseek(self._fd, 0, os.SEEK_END)
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
