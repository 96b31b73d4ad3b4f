"""Moves one version's bytes from an origin into a part, hashing beside it; knows nothing of models.

``Engine.fetch`` begins a transfer; each of its connections is a thread that takes a span, writes what arrives into the
part, and takes the next.
"""

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.cache.origins.http import Client
from morpheus_boot.cache.origins.origin import Origin, Resolved, TransientFailure
from morpheus_boot.cache.parts import ModelPart
from morpheus_boot.cache.transfer.followers import Followers
from morpheus_boot.cache.transfer.location import Location, Place
from morpheus_boot.cache.transfer.progress import Meter, Reading, Retries
from morpheus_boot.cache.transfer.stream import CannotContinue, Span, Stream, open_stream
from morpheus_boot.config.redact import without_secrets
from morpheus_boot.errors import OriginUnavailable
from morpheus_boot.work.stopping import Stopped

_TICK_S: Final = 0.1
_BUFFER_BYTES: Final = 256 * 1024


class Engine:
    """Fetches for all models of one fill, over one budget of connections."""

    def __init__(
        self,
        times: TransferTimes,
        stopping: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """``clock`` and ``pause`` (which waits for an event for so many seconds) are for tests alone."""
        self.times = times
        self.stopping = stopping
        self.clock = clock
        self.pause = pause
        self.client = Client(times.connections, connect_s=times.connect_s, read_s=times.read_s)
        self._lock = threading.Lock()
        self._running = 0

    @property
    def share(self) -> int:
        """The connections that one of the running transfers may have now."""
        with self._lock:
            budget = self.times.connections // max(1, self._running)
        return max(1, min(self.times.connections_a_model, budget))

    def fetch(
        self,
        origin: Origin,
        resolved: Resolved,
        part: ModelPart,
        on_progress: Callable[[Reading], None],
    ) -> str:
        """Fills ``part``, continuing where it stands; returns the SHA-256 of the whole in hex.

        The part is left open, and synced if the volume lets it, also where this raises.

        Raises:
            VersionChanged: the origin has other bytes now; resolve again and begin another part.
            Stopped: ``stopping`` was set.
            OriginDenied, OriginUnavailable: the origin refuses, or did not get on within the deadline.
            OSError: the volume fails.
        """
        location = Location(origin, resolved, part)
        retries = Retries(self.times, self.clock, part.written_bytes)
        in_parallel = resolved.in_parallel
        with self._lock:
            self._running += 1
        try:
            while True:
                transfer = _Transfer(
                    self, origin.subject, location, part, retries, in_parallel=in_parallel
                )
                try:
                    return transfer.run(on_progress)
                except CannotContinue:
                    in_parallel = False
                    part.restart()
        finally:
            with self._lock:
                self._running -= 1


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection as its transfer sees it: where it asks, and how often in a row that has failed.

    ``lock`` is held while it writes; ``is_reading``: it waits for its origin, and not for the volume. ``window``: since
    when, and from which number of received bytes on, its origin is watched for trickling.
    """

    place: Place
    failures: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stream: Stream | None = None
    received_bytes: int = 0
    is_reading: bool = False
    has_trickled: bool = False
    window: tuple[float, int] | None = None

    def trickles(self, now: float, times: TransferTimes) -> bool:
        """Whether it has brought less than the floor over a window, as a time-out of its socket would not notice."""
        if not self.is_reading or self.window is None:
            self.window = (now, self.received_bytes)
        began_at, began_bytes = self.window
        if now - began_at < times.window_s:
            return False
        self.window = None
        return self.received_bytes - began_bytes < times.floor_bytes_per_s * times.window_s


class _Transfer:
    """One attempt to fill a part without beginning it anew: call run() once."""

    def __init__(
        self,
        engine: Engine,
        subject: str,
        location: Location,
        part: ModelPart,
        retries: Retries,
        *,
        in_parallel: bool,
    ) -> None:
        self._engine = engine
        self._subject = subject
        self._location = location
        self._part = part
        self._retries = retries
        self._in_parallel = in_parallel
        span_bytes = engine.times.span_bytes if in_parallel else None
        self._spans = _spans(part, span_bytes)
        self._followers = Followers(part, engine.times.sync_bytes)
        self._changed = threading.Condition()
        self._active: list[_Connection] = []
        self._allowed = 1
        # What the origin endures, and when it is asked for more again.
        self._limit = engine.times.connections_a_model
        self._limited_until = 0.0
        self._failure: BaseException | None = None
        self._cancelled = False

    def run(self, on_progress: Callable[[Reading], None]) -> str:
        """As Engine.fetch(); raises CannotContinue, too. When it ends nothing reads or writes the part any more."""
        part, stopping = self._part, self._engine.stopping
        meter = Meter(part.head.size_bytes, self._engine.clock)
        try:
            while not stopping.is_set() and self._connect():
                self._end_trickling()
                on_progress(
                    meter.read(
                        part.written_bytes,
                        retries=self._retries.count,
                        connections=len(self._active),
                        trouble=self._retries.last_cause,
                    )
                )
                with self._changed:
                    if self._active and self._failure is None:
                        self._changed.wait(_TICK_S)
            self._cancel()
            # What came since the last report is kept, too.
            on_progress(Reading(part.written_bytes, part.head.size_bytes))
            if stopping.is_set():
                raise Stopped
            return self._followers.finish(stopping)
        finally:
            self._cancel()
            self._followers.end()

    def _connect(self) -> bool:
        """Opens the connections that it may have; False: none is needed any more. Raises what ended one of them."""
        engine, now = self._engine, self._engine.clock()
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._limit < engine.times.connections_a_model and now >= self._limited_until:
                self._limit, self._limited_until = 2 * self._limit, now + engine.times.limited_s
            self._allowed = min(engine.share, self._limit) if self._in_parallel else 1
            for _ in range(min(self._allowed - len(self._active), len(self._spans))):
                connection = _Connection(self._location.place)
                self._active.append(connection)
                threading.Thread(
                    target=self._run, args=(connection,), name="transfer", daemon=True
                ).start()
            return bool(self._active)

    def _end_trickling(self) -> None:
        now = self._engine.clock()
        for connection in tuple(self._active):
            stream = connection.stream
            if connection.trickles(now, self._engine.times) and stream is not None:
                connection.has_trickled = True
                stream.abort()

    def _cancel(self) -> None:
        """Ends all connections; nothing is written after this has returned.

        One that still waits for an answer is left to its time-out: it writes nothing any more.
        """
        with self._changed:
            self._cancelled = True
            active = tuple(self._active)
            for connection in active:
                if connection.stream is not None:
                    connection.stream.abort()
        for connection in active:
            with connection.lock:
                pass

    def _run(self, connection: _Connection) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        try:
            while (span := self._take()) is not None:
                begun_bytes = connection.received_bytes
                try:
                    self._receive(connection, span, buffer)
                    connection.failures = 0
                except TransientFailure as failure:
                    if connection.received_bytes > begun_bytes:
                        connection.failures = 0
                    if self._is_one_too_many(connection, failure):
                        return
                    self._wait(failure, connection.failures)
                    connection.failures += 1
        except BaseException as error:  # noqa: BLE001 - the transfer's own thread raises it again
            with self._changed:
                self._failure = self._failure or error
        finally:
            with self._changed:
                if connection in self._active:
                    self._active.remove(connection)
                self._changed.notify_all()

    def _take(self) -> Span | None:
        """The next span, the lowest first, since the hash follows the front; None: the connection is to end."""
        with self._changed:
            is_over = self._cancelled or self._failure is not None
            if is_over or len(self._active) > self._allowed or not self._spans:
                return None
            return heapq.heappop(self._spans)

    def _receive(self, connection: _Connection, span: Span, buffer: memoryview) -> None:
        """Writes what an origin sends of a span, and gives back what it does not."""
        at, stop = span
        stream: Stream | None = None
        try:
            if connection.failures:
                self._location.renew(connection.place)
            place = connection.place = self._location.place
            stream = open_stream(
                self._engine.client, place.resolved, span, place.validator, self._subject
            )
            connection.has_trickled = False
            connection.stream = stream
            self._location.learn(place, stream.validator)
            while at != stop or at != stream.end:
                connection.is_reading = True
                count = stream.read_into(buffer)
                connection.is_reading = False
                if count == 0:
                    break
                if stop is not None and at + count > stop:
                    raise OriginUnavailable(
                        self._subject,
                        f"its origin sends more than the {stop} bytes it named",
                        "use another origin",
                    )
                with connection.lock:
                    if self._cancelled:
                        return
                    self._part.write(at, buffer[:count])
                at += count
                connection.received_bytes += count
                self._followers.written(count)
            # An origin may cut ranges to a length that it likes; but an end that we made is none.
            end = stream.end if stream.end is not None else stop
            if connection.has_trickled or (end is not None and at < end):
                raise _broken_off(connection, at, end)
            stop = at if stop is None else stop
        finally:
            connection.stream, connection.is_reading = None, False
            if stream is not None:
                stream.close()
            if stop is None or at < stop:
                with self._changed:
                    heapq.heappush(self._spans, Span(at, stop))
                    self._changed.notify_all()

    def _is_one_too_many(self, connection: _Connection, failure: TransientFailure) -> bool:
        """Whether an origin refuses this connection while others go on: then half as many are enough for it."""
        with self._changed:
            if self._cancelled:
                return True
            active = len(self._active)
            if not failure.crowded or active == 1:
                return False
            # They all come at once: the next half goes only where those that are left are refused, too.
            if active <= self._limit:
                self._limit = active // 2
            self._limited_until = self._engine.clock() + self._engine.times.limited_s
            self._active.remove(connection)
            return True

    def _wait(self, failure: TransientFailure, nth: int) -> None:
        wait_s = self._retries.wait_s(failure, nth, self._part.written_bytes)
        if wait_s is None:
            raise failure.lasting(self._subject) from failure
        if self._engine.pause(self._engine.stopping, wait_s):
            raise Stopped


def _spans(part: ModelPart, span_bytes: int | None) -> list[Span]:
    """What is missing of a part, as a heap, in spans of ``span_bytes`` (None: as large as they are).

    A file that one connection brings in one go is asked for as a whole.
    """
    size_bytes = part.head.size_bytes
    if size_bytes is None:
        return [Span(part.written_front, None)]
    gaps: Iterable[range] = part.gaps(size_bytes)
    if span_bytes is not None and size_bytes - part.written_bytes > span_bytes:
        gaps = (gap[at : at + span_bytes] for gap in gaps for at in range(0, len(gap), span_bytes))
    return [Span(gap.start, gap.stop) for gap in gaps]


def _broken_off(connection: _Connection, at: int, end: int | None) -> TransientFailure:
    where = without_secrets(connection.place.resolved.address.url.reveal())
    how = "sent next to nothing for a while" if connection.has_trickled else "broke off"
    return TransientFailure(f"{where} {how}, at byte {at}" + ("" if end is None else f" of {end}"))
