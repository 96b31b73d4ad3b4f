"""What uvicorn's HTTP protocol leaves open: time and size of a request's head, stalled readers, connections at once.

The time that a body takes is the business of whoever reads it.
"""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from morpheus_boot.config.variables import Limits

# Beyond this, who writes waits for the socket: a whole head fits, so that small answers never wait.
_UNSENT_BYTES: Final = 16 * 2**10


class GuardedProtocol(HttpToolsProtocol):
    """One connection. ``limits`` are those of the server that it belongs to."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._begun = False
        self._head_bytes = 0
        # One too many: it is told so when it has asked, as an answer before that would be lost.
        self._surplus = False
        self._refused = False
        self._waiting_since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether it is between requests, or in the head of one: then it may be closed for another's sake."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return self._refused or (self._in_head and (cycle is None or cycle.response_complete))

    async def ready_to_write(self) -> None:
        """Waits until the socket has taken most of what was sent: before that, nothing more need be read."""
        if self.flow.write_paused:
            await self.flow.drain()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it just so
        """A client has connected: there may be too many."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        if len(self.connections) > self.limits.connections and not self._make_room():
            if len(self.connections) > 2 * self.limits.connections:
                transport.abort()
                return
            self._surplus = True
        self._time(self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; its head may take only so many of them, and so long."""
        if self._refused or self.transport.is_closing():
            return
        if not self._in_head:
            super().data_received(data)
            return
        self._head_bytes += len(data)
        super().data_received(data)
        self._check_head()

    def pause_writing(self) -> None:
        """The client reads more slowly than we send; if it stops altogether, it is cut off."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begun = True
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        """Its head is here."""
        self._in_head = self._begun = False
        self._head_bytes = 0
        self._stop_timer()
        if self._surplus:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        size_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size_bytes > self.limits.header_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is here."""
        if self._refused:
            return
        if not self.cycle.body:
            # uvicorn gathers in a bytearray and makes bytes of it: two copies of all that is uploaded. To no bytes it
            # adds these as they are.
            cast("Any", self.cycle).body = b""
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._in_head = True
        self._stop_timer()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Its answer is sent, perhaps before all of it was here."""
        super().on_response_complete()
        self._waiting_since = self.loop.time()
        if self._refused or self.transport.is_closing():
            return
        if not self._in_head:
            self._time(self.limits.linger_s)
        elif self._begun or self._head_bytes:
            self._time(self.limits.head_s)

    def _check_head(self) -> None:
        """After bytes that may have ended the head, and begun another."""
        if not self._in_head or self._refused or self.transport.is_closing():
            return
        if self._head_bytes > self.limits.header_bytes:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._timer is None and self.waits:
            self._time(self.limits.head_s)

    def _make_room(self) -> bool:
        """Closes the connection that has waited longest without a request; False where all have one."""
        waiting = [
            other
            for other in self.connections
            if isinstance(other, GuardedProtocol) and other is not self and other.waits
        ]
        if not waiting:
            return False
        longest = min(waiting, key=lambda other: other._waiting_since)  # noqa: SLF001 - our own class
        longest.transport.abort()
        # It is told so only in the loop's next round, and there may be more newcomers before.
        self.connections.discard(longest)
        return True

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers, and reads over what still comes: to close at once would take the answer from its reader."""
        self._refused = True
        self._time(self.limits.linger_s)
        detail = b'{"detail":"%s"}' % status.phrase.lower().encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%s" % (status, status.phrase.encode(), len(detail), detail)
        )
        self.transport.close()

    def _time(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """The protocol with these limits, as uvicorn wants it: a class."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits})
