"""Ways in which an origin misbehaves: small frozen values that compose.

``origin.misbehave("/m", WeakEtag(), Truncated(at=1000))`` applies them in that order to each matching request.
"""

import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Final

from tests.testbed.content import Content, literal
from tests.testbed.exchange import (
    Framing,
    Piece,
    Reply,
    Request,
    Reset,
    Resource,
    Wait,
    plain,
    resource_of,
)

LOGIN_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form></form></body></html>\n"
)


class Fault:
    """Changes the request as the origin sees it, the resource that it serves, or the reply. Here: nothing."""

    def request(self, request: Request) -> Request:
        """The request, as an origin with this fault takes it."""
        return request

    def resource(self, resource: Resource) -> Resource:
        """The file, as an origin with this fault has it."""
        return resource

    def reply(self, request: Request, reply: Reply) -> Reply:
        """The reply, as an origin with this fault gives it."""
        return reply


@dataclass(frozen=True, slots=True)
class IgnoresRange(Fault):
    """Answers 200 with the whole file, whatever range was asked for."""

    def request(self, request: Request) -> Request:
        return request.without("range", "if-range")


@dataclass(frozen=True, slots=True)
class IgnoresIfRange(Fault):
    """Answers 206 with a range of another version than the one asked for."""

    def request(self, request: Request) -> Request:
        return request.without("if-range")


@dataclass(frozen=True, slots=True)
class NoEtag(Fault):
    """Sends no ETag; ``last_modified`` False: no validator at all."""

    last_modified: bool = True

    def resource(self, resource: Resource) -> Resource:
        kept_s = resource.last_modified_s if self.last_modified else None
        return replace(resource, etag=None, last_modified_s=kept_s)


@dataclass(frozen=True, slots=True)
class WeakEtag(Fault):
    """Sends its ETag as a weak one, which validates no range."""

    def resource(self, resource: Resource) -> Resource:
        return replace(resource, etag=f"W/{resource.etag}")


@dataclass(frozen=True, slots=True)
class Changed(Fault):
    """Has another file by now, under another ETag."""

    content: Content

    def resource(self, resource: Resource) -> Resource:
        return resource_of(self.content)


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answers this status. ``retry_after_s`` as seconds, or as a date where ``as_date``."""

    status: int
    retry_after_s: int | None = None
    as_date: bool = False
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    def reply(self, request: Request, reply: Reply) -> Reply:
        headers = {}
        if self.retry_after_s is not None:
            date = formatdate(time.time() + self.retry_after_s, usegmt=True)
            headers["Retry-After"] = date if self.as_date else str(self.retry_after_s)
        return plain(
            self.status,
            self.body or f"{self.status}\n",
            content_type=self.content_type,
            headers=headers,
        )


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Redirects to ``location``: a path, a URL, or the very path that was asked for (a loop)."""

    location: str
    status: int = 302

    def reply(self, request: Request, reply: Reply) -> Reply:
        return plain(self.status, headers={"Location": self.location})


@dataclass(frozen=True, slots=True)
class LoginPage(Fault):
    """Answers 200 with an HTML page, also where it calls that a file."""

    content_type: str = "text/html; charset=utf-8"

    def reply(self, request: Request, reply: Reply) -> Reply:
        page = Resource(literal(LOGIN_PAGE), None, None, self.content_type)
        return page.reply(request.without("range"))


@dataclass(frozen=True, slots=True)
class Empty(Fault):
    """Answers 200 with no body."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply.with_headers(Content_Range=None), status=200, body=(), length_bytes=0)


@dataclass(frozen=True, slots=True)
class NoAnswer(Fault):
    """Ends the connection by RST (or, ``silent``, says nothing for ever) before any answer."""

    silent: bool = False

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, before=(Wait() if self.silent else Reset(),))


@dataclass(frozen=True, slots=True)
class WrongRange(Fault):
    """Answers a range with another one, ``shift_bytes`` on; says so unless ``hidden``."""

    shift_bytes: int = 1
    hidden: bool = False

    def request(self, request: Request) -> Request:
        first, dash, last = request.headers.get("range", "").removeprefix("bytes=").partition("-")
        if not first or not dash:
            return request
        shifted = f"bytes={int(first) + self.shift_bytes}-" + (
            str(int(last) + self.shift_bytes) if last else ""
        )
        return replace(request, headers={**request.headers, "range": shifted})

    def reply(self, request: Request, reply: Reply) -> Reply:
        if reply.status != 206 or not self.hidden:
            return reply
        span, _, total = reply.headers["Content-Range"].removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        back = f"{int(first) - self.shift_bytes}-{int(last) - self.shift_bytes}"
        return reply.with_headers(Content_Range=f"bytes {back}/{total}")


@dataclass(frozen=True, slots=True)
class WrongTotal(Fault):
    """Says another length of the whole file in Content-Range."""

    total_bytes: int

    def reply(self, request: Request, reply: Reply) -> Reply:
        span, slash, _ = reply.headers.get("Content-Range", "").partition("/")
        return reply.with_headers(Content_Range=f"{span}/{self.total_bytes}") if slash else reply


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """Flips one byte, ``at`` bytes into each body: only a digest shows it."""

    at: int = 0

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=self._pieces(reply))

    def _pieces(self, reply: Reply) -> Iterator[Piece]:
        head, rest = _split(iter(reply.body), self.at)
        yield from head
        for piece in rest:
            if isinstance(piece, memoryview):
                yield memoryview(bytes([piece[0] ^ 0xFF]))
                yield piece[1:]
                yield from rest
            else:
                yield piece


@dataclass(frozen=True, slots=True)
class TooMuch(Fault):
    """Sends ``extra_bytes`` more than the file has; Content-Length says so where ``declared``."""

    extra_bytes: int = 1
    declared: bool = True

    def reply(self, request: Request, reply: Reply) -> Reply:
        extra = memoryview(bytes(self.extra_bytes))
        length_bytes = reply.length_bytes + (self.extra_bytes if self.declared else 0)
        return replace(reply, body=_chain(reply, [extra]), length_bytes=length_bytes)


@dataclass(frozen=True, slots=True)
class Gzip(Fault):
    """Sends the whole file compressed, unasked."""

    def request(self, request: Request) -> Request:
        return request.without("range")

    def reply(self, request: Request, reply: Reply) -> Reply:
        encoded = reply.with_headers(Content_Encoding="gzip", Accept_Ranges=None)
        return replace(encoded, body=self._pieces(reply), framing=Framing.CHUNKED)

    def _pieces(self, reply: Reply) -> Iterator[Piece]:
        compressor = zlib.compressobj(level=1, wbits=31)
        for piece in reply.body:
            if not isinstance(piece, memoryview):
                yield piece
            elif compressed := compressor.compress(piece):
                yield memoryview(compressed)
        yield memoryview(compressor.flush())


@dataclass(frozen=True, slots=True)
class Chunked(Fault):
    """Sends the body in chunks, and so no length."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CHUNKED)


@dataclass(frozen=True, slots=True)
class NoLength(Fault):
    """Sends no length; the body ends with the connection, cut or not."""

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, framing=Framing.CLOSE)


@dataclass(frozen=True, slots=True)
class Truncated(Fault):
    """Closes in order after ``at`` bytes of the body, whatever Content-Length said."""

    at: int

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=_split(iter(reply.body), self.at)[0])


@dataclass(frozen=True, slots=True)
class ResetAt(Fault):
    """Ends the connection by RST after ``at`` bytes of the body, all delivered."""

    at: int

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=_insert(reply, self.at, Reset()))


@dataclass(frozen=True, slots=True)
class Stalled(Fault):
    """Sends nothing more after ``at`` bytes of the body, for ever."""

    at: int

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=_insert(reply, self.at, Wait()))


@dataclass(frozen=True, slots=True)
class Trickling(Fault):
    """Sends so many bytes a second."""

    bytes_per_s: float

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, bytes_per_s=self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class Gate(Fault):
    """Lets ``at`` bytes through, of all bodies under it together, then holds them until it is opened."""

    at: int
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _passed: list[int] = field(default_factory=lambda: [0])

    def wait_reached(self, timeout_s: float = 10) -> None:
        """Returns once a body is held here."""
        assert self.reached.wait(timeout_s), f"no body reached the gate at {self.at} bytes"

    def open(self) -> None:
        """Lets everything go on."""
        self.opened.set()

    def reply(self, request: Request, reply: Reply) -> Reply:
        return replace(reply, body=self._pieces(reply))

    def _pieces(self, reply: Reply) -> Iterator[Piece]:
        for piece in reply.body:
            if not isinstance(piece, memoryview) or self.opened.is_set():
                yield piece
                continue
            with self._lock:
                let_through = min(len(piece), self.at - self._passed[0])
                self._passed[0] += let_through
            if let_through:
                yield piece[:let_through]
            if let_through < len(piece):
                self.reached.set()
                yield Wait(until=self.opened)
                yield piece[let_through:]


def _split(pieces: Iterator[Piece], at: int) -> tuple[Iterator[Piece], Iterator[Piece]]:
    """The pieces up to byte ``at``, then (once these are used up) the rest; the bytes stay whole."""
    rest: list[memoryview] = []

    def head() -> Iterator[Piece]:
        left = at
        while left > 0 and (piece := next(pieces, None)) is not None:
            if isinstance(piece, memoryview):
                if len(piece) > left:
                    rest.append(piece[left:])
                    piece = piece[:left]
                left -= len(piece)
            yield piece

    def tail() -> Iterator[Piece]:
        yield from rest
        yield from pieces

    return head(), tail()


def _insert(reply: Reply, at: int, event: Wait | Reset) -> Iterator[Piece]:
    head, rest = _split(iter(reply.body), at)
    yield from head
    yield event
    yield from rest


def _chain(reply: Reply, more: list[memoryview]) -> Iterator[Piece]:
    yield from reply.body
    yield from more
