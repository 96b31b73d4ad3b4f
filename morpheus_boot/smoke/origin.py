"""An origin inside this program: serves named bytes over HTTP on loopback, and counts."""

import hashlib
import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

# The one form in which our transfer engine asks (RFC 9110, 14.1.2).
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


class Origin:
    """Serves from a free port from its start to ``stop``, with ETag, Content-Length and Range."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = {f"/{name}": content for name, content in files.items()}
        self.sent_bytes = 0
        self._counted = threading.Lock()
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

    def url(self, name: str) -> str:
        """Where ``name`` is served."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def count(self, sent_bytes: int) -> None:
        """Adds to ``sent_bytes``, what bodies have had in all."""
        with self._counted:
            self.sent_bytes += sent_bytes

    def stop(self) -> None:
        """Closes the port; connections under way end first. Safe to call again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


def _handler_of(origin: Origin) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request; the connection closes after it, so that ``stop`` leaves none behind."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = origin.files.get(self.path)
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted else 0
            end = int(wanted[2]) + 1 if wanted and wanted[2] else len(content)
            body = content[first:end]
            # Counted first: who has read the last byte may look at once.
            origin.count(len(body))
            self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
            if wanted:
                span = f"bytes {first}-{first + len(body) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keeps http.server from writing to stderr."""

    return Handler
