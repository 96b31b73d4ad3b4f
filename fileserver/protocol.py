"""What uvicorn's HTTP protocol leaves open: heads without end, trailers that pass for headers, bodies copied twice."""

import json
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_MOST_HEAD_BYTES: Final = 64 * 1024


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; its head may take only so many of them."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("request: its head is too long")

    def on_headers_complete(self) -> None:
        """The head is here: what looks like a header after the body is none of it."""
        self._in_head, self._head_bytes = False, 0
        self.scope["headers"] = list(self.headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body is here."""
        if not self.cycle.body:
            # uvicorn gathers in a bytearray and makes bytes of it: two copies of all that is uploaded. To no bytes it
            # adds these as they are.
            cast("Any", self.cycle).body = b""
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is here, and another head may begin."""
        self._in_head = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Says in JSON, as all else here, what is wrong with the bytes of a request."""
        body = json.dumps({"detail": msg}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head % len(body) + body)
        self.transport.close()
