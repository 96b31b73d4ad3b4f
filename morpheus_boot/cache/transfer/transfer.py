"""Moves one version's bytes from an origin into a part, hashing beside it; knows nothing of models."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from typing import Final, TypeVar

from morpheus_boot.cache.options import RetryPolicy, TransferTimes
from morpheus_boot.cache.origins.origin import Origin, Resolved
from morpheus_boot.cache.parts import ModelPart
from morpheus_boot.cache.transfer.budget import Budget
from morpheus_boot.cache.transfer.connections import Connections
from morpheus_boot.cache.transfer.front import FrontHash
from morpheus_boot.cache.transfer.growth import Growth
from morpheus_boot.cache.transfer.http import Client, as_morpheus_error
from morpheus_boot.cache.transfer.location import Location
from morpheus_boot.cache.transfer.meter import Meter, Reading
from morpheus_boot.cache.transfer.ranges import Span, Spans
from morpheus_boot.cache.transfer.retry import Retries, TransientFailure
from morpheus_boot.cache.transfer.stream import CannotContinue
from morpheus_boot.cache.transfer.syncer import Syncer
from morpheus_boot.cache.transfer.watchdog import Watchdog
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.cache")
_TICK_S: Final = 0.1

_T = TypeVar("_T")


class Transfer:
    """One transfer: call run() once."""

    def __init__(
        self,
        subject: str,
        origin: Origin,
        client: Client,
        times: TransferTimes,
        budget: Budget,
        *,
        stopping: threading.Event,
        on_progress: Callable[[Reading], None],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """``clock`` and ``wait`` (which waits for an event for so many seconds) are for tests alone."""
        self._subject = subject
        self._origin = origin
        self._client = client
        self._times = times
        self._budget = budget
        self._stopping = stopping
        self._on_progress = on_progress
        self._clock = clock
        self._wait = wait
        self._retries = Retries(times.retry, clock)

    def run(self, resolved: Resolved, part: ModelPart) -> str:
        """Fills ``part``, continuing where it stands; returns the SHA-256 of the whole in hex.

        The part is left open, and synced if the volume lets it, also where this raises.

        Raises:
            VersionChanged: the origin has other bytes now; resolve again and begin another part.
            Stopped: ``stopping`` was set.
            OriginDenied, OriginUnavailable: the origin refuses, or did not get on within the deadline.
            OSError: the volume fails.
        """
        with self._budget.entered():
            running = _Running(part, self._times, self._retries)
            try:
                self._fill(running, resolved, part)
                # The hash and the last sync go on beside each other.
                running.syncer.finish()
                self._on_progress(Reading(part.written_bytes, part.head.size_bytes))
                return running.front.hexdigest()
            except Stopped:
                # What came since the last report is kept, too.
                self._on_progress(Reading(part.written_bytes, part.head.size_bytes))
                raise
            finally:
                running.end()

    def _fill(self, running: "_Running", resolved: Resolved, part: ModelPart) -> None:
        location = Location(self._origin, resolved, part)
        parallel = resolved.honours_ranges and _is_told_apart(resolved)
        while spans := self._spans(part, parallel=parallel):
            connections = Connections(
                self._subject,
                self._client,
                location,
                spans,
                self._retries,
                write=running.write,
                pause=self._pause,
            )
            try:
                self._watch_to_end(connections, part, parallel=parallel)
            except CannotContinue:
                parallel = False
                running.restart()
            else:
                return

    def _spans(self, part: ModelPart, *, parallel: bool) -> Spans:
        size_bytes = part.head.size_bytes
        if size_bytes is None:
            return Spans([Span(part.written_front, None)], None)
        gaps = [Span(gap.start, gap.stop) for gap in part.gaps(size_bytes)]
        # A file that one connection brings in one go is asked for as a whole.
        small = sum(gap.stop - gap.start for gap in gaps if gap.stop) <= self._times.span_bytes
        return Spans(gaps, self._times.span_bytes if parallel and not small else None)

    def _watch_to_end(self, connections: Connections, part: ModelPart, *, parallel: bool) -> None:
        """As _watch(); and whatever comes, nothing is written any more when this has returned."""
        try:
            self._watch(connections, part, parallel=parallel)
        finally:
            connections.cancel()

    def _watch(self, connections: Connections, part: ModelPart, *, parallel: bool) -> None:
        """Returns once everything is there. Raises what run() raises, and CannotContinue."""
        growth = Growth(self._clock)
        watchdog = Watchdog(self._times.floor_bytes_per_s, self._times.window_s, self._clock)
        meter = Meter(part.head.size_bytes, self._clock)
        while True:
            if self._stopping.is_set():
                raise Stopped
            share = self._budget.share if parallel else 1
            active = tuple(connections.active)
            endured = connections.take_endured()
            if endured is not None:
                growth.limit(endured)
            growth.look(
                connections.received_bytes, sum(c.received_bytes > 0 for c in active), share
            )
            left = connections.allow(growth.target(share))
            if connections.failure is not None:
                raise connections.failure
            if left == 0:
                return
            for connection in active:
                if not connection.reading:
                    watchdog.forget(connection)
                elif watchdog.trickles(connection, connection.received_bytes):
                    connection.end_trickling()
            self._on_progress(
                meter.read(
                    part.written_bytes,
                    retries=self._retries.count,
                    connections=len(active),
                    trouble=self._retries.last_cause,
                )
            )
            connections.wait(_TICK_S)

    def _pause(self, seconds: float) -> bool:
        return self._wait(self._stopping, seconds)


def _is_told_apart(resolved: Resolved) -> bool:
    """Whether anything would show that two answers are of two versions, which many at once may be."""
    version = resolved.version
    return any((version.sha256, version.etag, resolved.if_range, resolved.last_modified))


class _Running:
    """A part while it is filled: written, synced and hashed at the same time."""

    def __init__(self, part: ModelPart, times: TransferTimes, retries: Retries) -> None:
        self._part = part
        self._retries = retries
        self._seen_front = 0
        self.syncer = Syncer(part, times.sync_bytes)
        self.front = FrontHash(part)

    def write(self, at: int, data: memoryview) -> None:
        self._part.write(at, data)
        self.front.grown()
        # What was there before an origin made us begin anew is no progress.
        self._retries.progressed(max(0, at + len(data) - max(at, self._seen_front)))
        self.syncer.written(len(data))

    def restart(self) -> None:
        self._seen_front = max(self._seen_front, self._part.written_front)
        self.front.restart()
        self.syncer.restart()

    def end(self) -> None:
        """Syncs what came, and returns once nothing reads or writes the part any more."""
        self.front.end()
        # What went wrong before is the cause; where nothing did, all is synced.
        with suppress(OSError):
            self.syncer.finish()


def resolve_patiently(
    subject: str, origin: Origin, policy: RetryPolicy, stopping: threading.Event
) -> Resolved:
    """Resolves an origin, with retries. Raises Stopped, OriginDenied, OriginUnavailable."""
    retries = Retries(policy)
    nth = 0
    while True:
        try:
            return unless_stopped(origin.resolve, stopping)
        except TransientFailure as failure:
            wait_s = retries.wait_s(failure, nth)
            if wait_s is None:
                raise as_morpheus_error(subject, failure) from failure
            if nth == 0:
                _LOG.info("%s: %s, trying for %.0f s", subject, failure.cause, policy.deadline_s)
            nth += 1
            if stopping.wait(wait_s):
                raise Stopped from None


def unless_stopped(work: Callable[[], _T], stopping: threading.Event) -> _T:
    """What ``work`` returns or raises; it is left to its own time-outs where ``stopping`` is set before.

    Raises Stopped.
    """
    outcome = begin(work, "resolve")
    while not stopping.is_set():
        if wait((outcome,), _TICK_S).done:
            return outcome.result()
    raise Stopped
