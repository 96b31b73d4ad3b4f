"""An origin inside this program: serves named bytes over HTTP on loopback, and counts."""

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Served:
    """What an origin has answered so far: requests of any kind, and bytes of bodies."""

    requests: int
    sent_bytes: int


class Origin:
    """Serves from a free port from its start to ``stop``, with ETag, Content-Length and Range."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {f"/{name}": content for name, content in files.items()}
        self._counted = threading.Lock()
        self._served = Served(0, 0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def served(self) -> Served:
        """The counts now."""
        return self._served

    def url(self, name: str) -> str:
        """Where ``name`` is served."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def content(self, path: str) -> bytes | None:
        """What is served at a URL's path."""
        return self._files.get(path)

    def count(self, *, requests: int, sent_bytes: int) -> None:
        """Adds to the counts."""
        with self._counted:
            before = self._served
            self._served = Served(before.requests + requests, before.sent_bytes + sent_bytes)

    def stop(self) -> None:
        """Closes the port; connections under way end first. Safe to call again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request gets."""

    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def _handler_of(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request; the connection closes after it, so that ``stop`` leaves none behind."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: object) -> None:
            """Keeps http.server from writing to stderr."""

        def _answer(self, *, with_body: bool) -> None:
            wanted, if_range = self.headers.get("Range"), self.headers.get("If-Range")
            answer = _decide(origin.content(self.path), wanted, if_range)
            body = answer.body if with_body else b""
            # Counted first: who has read the last byte may look at once.
            origin.count(requests=1, sent_bytes=len(body))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _decide(content: bytes | None, wanted: str | None, if_range: str | None) -> _Answer:
    """The answer to a request for ``content`` with these Range and If-Range headers."""
    if content is None:
        return _Answer(HTTPStatus.NOT_FOUND)
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes"}
    if wanted is None or if_range not in {None, etag}:
        return _Answer(HTTPStatus.OK, content, headers)
    span = _span(wanted, len(content))
    if span is None:
        headers["Content-Range"] = f"bytes */{len(content)}"
        return _Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
    headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{len(content)}"
    return _Answer(HTTPStatus.PARTIAL_CONTENT, content[span.start : span.stop], headers)


def _span(wanted: str, size: int) -> range | None:
    """The bytes that a Range header of one range asks for (RFC 9110, 14.1.2); None: none of them."""
    match = _RANGE.fullmatch(wanted)
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        span = range(max(0, size - int(last)), size)
    else:
        span = range(int(first), min(int(last) + 1 if last else size, size))
    return span or None
