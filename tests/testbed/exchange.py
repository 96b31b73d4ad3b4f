"""One exchange over HTTP as values: what was asked, what is served, and the reply, piece by piece."""

import email.utils
import hashlib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from tests.testbed.content import Content, literal

_EPOCH: Final = 1_767_225_600.0  # 2026-01-01: Last-Modified of what has no time of its own
_ONE_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: ``headers`` in lower case, ``address`` the one of ours that it connected to."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    address: str

    def without(self, *names: str) -> "Request":
        """The same request, had it not sent these headers (lower case)."""
        kept = {name: value for name, value in self.headers.items() if name not in names}
        return replace(self, headers=kept)


@dataclass(frozen=True, slots=True)
class Wait:
    """Sends nothing for ``seconds`` or until ``until``; with neither, for ever (the client may leave)."""

    seconds: float | None = None
    until: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """Delivers what was sent so far, then ends the connection by RST."""


Piece = memoryview | Wait | Reset


class Framing(Enum):
    """How a client learns where the body ends."""

    LENGTH = "Content-Length"
    CHUNKED = "Transfer-Encoding: chunked"
    CLOSE = "the end of the connection"


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes out. ``length_bytes`` is what Content-Length says, true or not.

    ``before`` happens ahead of the status line; ``bytes_per_s`` caps this connection.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[Piece] = ()
    length_bytes: int = 0
    framing: Framing = Framing.LENGTH
    before: tuple[Wait | Reset, ...] = ()
    bytes_per_s: float | None = None

    def with_headers(self, **headers: str | None) -> "Reply":
        """The same reply with these headers (``Content_Range=...``) set, or taken away where None."""
        changed = {**self.headers, **{n.replace("_", "-"): v for n, v in headers.items()}}
        return replace(self, headers={n: v for n, v in changed.items() if v is not None})


def plain(
    status: int,
    body: str | bytes = "",
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """A short reply that is no file."""
    raw = body.encode() if isinstance(body, str) else body
    return Reply(
        status,
        {"Content-Type": content_type, **(headers or {})},
        [memoryview(raw)] if raw else [],
        len(raw),
    )


@dataclass(frozen=True, slots=True)
class Resource:
    """A file under a URL, with its validators; ``etag`` quoted, as it is sent (None: none is)."""

    content: Content
    etag: str | None
    last_modified_s: float | None = _EPOCH
    content_type: str = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)

    def reply(self, request: Request) -> Reply:
        """What RFC 9110 wants: 200, 206 or 416; an If-Range that does not match brings the whole."""
        size_bytes = self.content.size_bytes
        base = Reply(200, self._headers(), self.content.pieces(0, size_bytes), size_bytes)
        asked = request.headers.get("range")
        if asked is None or not self._holds(request.headers.get("if-range")):
            return base
        match = _ONE_RANGE.fullmatch(asked.replace(" ", ""))
        if match is None or match[0] == "bytes=-":
            return base
        start, stop = _span(match[1], match[2], size_bytes)
        if start >= stop:
            return replace(
                base.with_headers(Content_Range=f"bytes */{size_bytes}"),
                status=416,
                body=(),
                length_bytes=0,
            )
        return replace(
            base.with_headers(Content_Range=f"bytes {start}-{stop - 1}/{size_bytes}"),
            status=206,
            body=self.content.pieces(start, stop),
            length_bytes=stop - start,
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": self.content_type, "Accept-Ranges": "bytes", **self.headers}
        if self.etag is not None:
            headers["ETag"] = self.etag
        if self.last_modified_s is not None:
            headers["Last-Modified"] = email.utils.formatdate(self.last_modified_s, usegmt=True)
        return headers

    def _holds(self, if_range: str | None) -> bool:
        if if_range is None:
            return True
        if if_range.startswith(('"', "W/")):
            # RFC 9110, 13.1.5: a weak validator never matches.
            return if_range == self.etag and not if_range.startswith("W/")
        return if_range == self._headers().get("Last-Modified")


def resource_of(content: Content | bytes, *, etag: str | None = None) -> Resource:
    """A well-behaved resource; its ETag is strong and follows the content unless given."""
    if isinstance(content, bytes):
        content = literal(content)
    drawn = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
    return Resource(content, etag or f'"{drawn}"')


def _span(first: str, last: str, size_bytes: int) -> tuple[int, int]:
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(int(last) + 1 if last else size_bytes, size_bytes)
