"""The connections of one transfer: each takes a span, writes what arrives into the part, and takes the next."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from morpheus_boot.cache.transfer.http import Client, as_morpheus_error
from morpheus_boot.cache.transfer.location import Location, Place
from morpheus_boot.cache.transfer.ranges import Span, Spans
from morpheus_boot.cache.transfer.retry import Retries, TransientFailure
from morpheus_boot.cache.transfer.stream import Stream, open_stream
from morpheus_boot.config.redact import without_secrets
from morpheus_boot.errors import OriginUnavailable

_BUFFER_BYTES: Final = 256 * 1024


class _Cancelled(Exception):
    """The transfer goes on without this connection."""


@dataclass(eq=False, slots=True)
class Connection:
    """One connection as others may see it: what it has received, and whether it is the origin it waits for."""

    stream: Stream | None = None
    received_bytes: int = 0
    reading: bool = False
    trickled: bool = False

    def end_trickling(self) -> None:
        """Ends its stream, whose rest is asked for anew."""
        stream = self.stream
        self.trickled = True
        if stream is not None:
            stream.abort()


@dataclass
class Connections:
    """What the connections of one transfer share; they run in threads of their own until cancel().

    ``write`` takes an offset and bytes. ``pause`` waits for some seconds; True: no longer, all is to stop.
    ``failure`` is what ended one of them, and is to end the transfer.
    """

    subject: str
    client: Client
    location: Location
    spans: Spans
    retries: Retries
    write: Callable[[int, memoryview], None]
    pause: Callable[[float], bool]
    changed: threading.Condition = field(default_factory=threading.Condition)
    active: list[Connection] = field(default_factory=list)
    allowed: int = 1
    received_bytes: int = 0
    failure: BaseException | None = None
    _endured: int | None = None
    _cancelled: bool = False
    _writers: int = 0

    def allow(self, number: int) -> int:
        """Opens connections up to ``number``; above it they end with the span that they have.

        Returns how many there are: none is needed any more where that is 0.
        """
        with self.changed:
            self.allowed = number
            for _ in range(min(number - len(self.active), len(self.spans))):
                connection = Connection()
                self.active.append(connection)
                threading.Thread(
                    target=self._run, args=(connection,), name="transfer", daemon=True
                ).start()
            return len(self.active)

    def take_endured(self) -> int | None:
        """How many connections the origin let go on when it refused another; None: it has not since the last call."""
        with self.changed:
            endured, self._endured = self._endured, None
            return endured

    def wait(self, seconds: float) -> None:
        """Waits until something has happened to one of them, or for ``seconds``."""
        with self.changed:
            if self.active and self.failure is None:
                self.changed.wait(seconds)

    def cancel(self) -> None:
        """Ends all of them; nothing is written after this has returned.

        One that still waits for an answer is left to its time-out: it writes nothing any more.
        """
        with self.changed:
            self._cancelled = True
            for connection in self.active:
                if connection.stream is not None:
                    connection.stream.abort()
            self.changed.wait_for(lambda: self._writers == 0)

    def _run(self, connection: Connection) -> None:
        try:
            self._work(connection, memoryview(bytearray(_BUFFER_BYTES)))
        except _Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - the transfer's own thread raises it again
            with self.changed:
                self.failure = self.failure or error
        finally:
            with self.changed:
                if connection in self.active:
                    self.active.remove(connection)
                self.changed.notify_all()

    def _work(self, connection: Connection, buffer: memoryview) -> None:
        failures = 0
        place = self.location.place
        while (span := self._take()) is not None:
            begun_bytes = connection.received_bytes
            try:
                if failures:
                    self.location.renew(place)
                place = self.location.place
                self._receive(connection, place, span, buffer)
                failures = 0
            except TransientFailure as failure:
                received_bytes = connection.received_bytes - begun_bytes
                self._give_back(Span(span.start + received_bytes, span.stop))
                failures = 1 if received_bytes else failures + 1
                if not self._recover(connection, failure, failures - 1):
                    return

    def _take(self) -> Span | None:
        with self.changed:
            if self._cancelled or self.failure is not None or len(self.active) > self.allowed:
                return None
            return self.spans.take()

    def _give_back(self, span: Span) -> None:
        with self.changed:
            self.spans.give_back(span)
            self.changed.notify_all()

    def _recover(self, connection: Connection, failure: TransientFailure, nth: int) -> bool:
        """Waits as long as it takes to try again; False: this connection is to end."""
        with self.changed:
            if self._cancelled:
                return False
            if failure.crowded and len(self.active) > 1:
                # The others go on, and what it had is theirs.
                self.active.remove(connection)
                self._endured = len(self.active)
                return False
        wait_s = self.retries.wait_s(failure, nth)
        if wait_s is None:
            raise as_morpheus_error(self.subject, failure) from failure
        return not self.pause(wait_s)

    def _receive(
        self, connection: Connection, place: Place, span: Span, buffer: memoryview
    ) -> None:
        stream = open_stream(self.client, place.resolved, span, place.validator, self.subject)
        with self._streaming(connection, stream):
            self.location.learn(place, stream.validator)
            at = self._pump(connection, stream, span, buffer)
        end = span.stop if span.stop is not None else stream.end
        if span.stop is not None and span.start < at == stream.end:
            # All that this answer promised; an origin may cut ranges to a length that it likes.
            self._give_back(Span(at, span.stop))
            return
        # An end that the watchdog made is none, also where no length was said.
        if connection.trickled or (end is not None and at < end):
            where = without_secrets(place.resolved.url.reveal())
            how = "sent next to nothing for a while" if connection.trickled else "broke off"
            raise TransientFailure(
                f"{where} {how}, at byte {at}" + ("" if end is None else f" of {end}")
            )

    def _pump(self, connection: Connection, stream: Stream, span: Span, buffer: memoryview) -> int:
        at = stream.at
        while True:
            connection.reading = True
            count = stream.read_into(buffer)
            connection.reading = False
            if count == 0:
                return at
            if span.stop is not None and at + count > span.stop:
                raise OriginUnavailable(
                    self.subject,
                    f"its origin sends more than the {span.stop} bytes it named",
                    "use another origin",
                )
            with self._writing():
                self.write(at, buffer[:count])
            at += count
            connection.received_bytes += count
            with self.changed:
                self.received_bytes += count
            if at == span.stop and at == stream.end:
                return at

    @contextmanager
    def _streaming(self, connection: Connection, stream: Stream) -> Iterator[None]:
        try:
            with self.changed:
                if self._cancelled:
                    raise _Cancelled
                connection.stream, connection.trickled = stream, False
            yield
        finally:
            with self.changed:
                connection.stream, connection.reading = None, False
            stream.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Counts who writes, so that cancel() can wait for them and let no other begin."""
        with self.changed:
            if self._cancelled:
                raise _Cancelled
            self._writers += 1
        try:
            yield
        finally:
            with self.changed:
                self._writers -= 1
                if self._cancelled:
                    self.changed.notify_all()
