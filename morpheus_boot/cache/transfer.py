"""Moves one version's bytes from an origin into a part, hashing as they pass; knows nothing of models."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import requests

from morpheus_boot.cache.http import as_morpheus_error
from morpheus_boot.cache.options import RetryPolicy, TransferTimes
from morpheus_boot.cache.origins.origin import Origin, Resolved
from morpheus_boot.cache.part import Part
from morpheus_boot.cache.retry import Retries, TransientFailure
from morpheus_boot.cache.stream import Stream, VersionChanged, open_stream
from morpheus_boot.errors import MorpheusError, OriginUnavailable

_BUFFER_BYTES: Final = 256 * 1024


class Stopped(Exception):
    """The boot was told to stop; what was synced stays for the next worker."""


class Transfer:
    """One transfer: call run() once."""

    def __init__(
        self,
        subject: str,
        origin: Origin,
        session: requests.Session,
        times: TransferTimes,
        *,
        stopping: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._subject = subject
        self._origin = origin
        self._session = session
        self._times = times
        self._stopping = stopping
        self._on_bytes = on_bytes
        self._retries = Retries(times.retry)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def run(self, resolved: Resolved, part: Part) -> str:
        """Fills ``part``, continuing where it stands; returns the SHA-256 of the whole in hex.

        The part is left open, synced up to the last byte that counts, also where this raises.

        Raises:
            VersionChanged: the origin has other bytes now; resolve again and begin another part.
            Stopped: ``stopping`` was set.
            OriginDenied, OriginUnavailable: the origin refuses, or did not get on within the deadline.
            OSError: the volume fails.
        """
        hasher = _Hasher(part, self._buffer)
        while part.version.size_bytes is None or part.front < part.version.size_bytes:
            try:
                if self._receive(resolved, part, hasher):
                    break
                # A whole answer that is too short: the rest is asked for, like after a broken connection.
                raise TransientFailure(
                    f"it ended after {part.front} of {part.version.size_bytes} bytes"
                )
            except TransientFailure as failure:
                self._wait(failure)
            resolved = self._resolve_again(resolved, part)
        return hasher.hexdigest()

    def _receive(self, resolved: Resolved, part: Part, hasher: "_Hasher") -> bool:
        """Reads one stream to its end; whether the part is whole then."""
        # Before the origin is asked: a large part takes longer to read back than a connection stays open.
        if hasher.catch_up(part.front):
            self._retries.progressed()
        stream = open_stream(self._session, resolved, part.front, self._subject)
        try:
            if stream.at != part.front:
                part.restart()
                hasher.catch_up(part.front)
            self._pump(stream, part, hasher)
        finally:
            stream.close()
            part.sync()
        size_bytes = part.version.size_bytes
        return part.front == (stream.end if size_bytes is None else size_bytes) or (
            size_bytes is None and stream.end is None
        )

    def _pump(self, stream: Stream, part: Part, hasher: "_Hasher") -> None:
        at, synced = stream.at, stream.at
        size_bytes = part.version.size_bytes
        while count := stream.read_into(self._buffer):
            if size_bytes is not None and at + count > size_bytes:
                raise OriginUnavailable(
                    self._subject,
                    f"its origin sends more than the {size_bytes} bytes it named",
                    "use another origin",
                )
            chunk = self._buffer[:count]
            part.write(at, chunk)
            hasher.update(chunk)
            at += count
            self._retries.progressed()
            self._on_bytes(at)
            if at - synced >= self._times.sync_bytes:
                part.sync()
                synced = at
            if self._stopping.is_set():
                raise Stopped

    def _wait(self, failure: TransientFailure) -> None:
        wait_s = self._retries.wait_s(failure)
        if wait_s is None:
            raise as_morpheus_error(self._subject, failure) from failure
        if self._stopping.wait(wait_s):
            raise Stopped

    def _resolve_again(self, before: Resolved, part: Part) -> Resolved:
        # Always anew: a signed URL may have expired, and the origin may have other bytes by now.
        while True:
            try:
                resolved = self._origin.resolve()
            except TransientFailure as failure:
                self._wait(failure)
                continue
            # What models.yaml adds to the origin's own words holds for all that it says.
            said = resolved.version
            version = replace(
                said,
                size_bytes=part.version.size_bytes if said.size_bytes is None else said.size_bytes,
                sha256=said.sha256 or part.version.sha256,
            )
            if version != before.version and not version.continues(part.version):
                raise VersionChanged
            return replace(resolved, version=version)


class _Hasher:
    """SHA-256 of a part's contiguous front; what it has not seen pass by it reads back."""

    def __init__(self, part: Part, buffer: memoryview) -> None:
        self._part = part
        self._buffer = buffer
        self._sha256 = hashlib.sha256()
        self._at = 0

    def update(self, chunk: memoryview) -> None:
        self._sha256.update(chunk)
        self._at += len(chunk)

    def catch_up(self, front: int) -> bool:
        """Reads back what it lacks up to ``front``; whether that was anything."""
        if front < self._at:
            self._sha256, self._at = hashlib.sha256(), 0
        behind = self._at < front
        while self._at < front:
            want = self._buffer[: min(len(self._buffer), front - self._at)]
            count = self._part.read_into(self._at, want)
            if count == 0:
                raise OSError(5, "the part is shorter than its journal says")
            self.update(want[:count])
        return behind

    def hexdigest(self) -> str:
        self.catch_up(self._part.front)
        return self._sha256.hexdigest()


def resolve_patiently(
    subject: str, origin: Origin, policy: RetryPolicy, stopping: threading.Event
) -> Resolved:
    """Resolves an origin, with retries. Raises Stopped, OriginDenied, OriginUnavailable."""
    retries = Retries(policy)
    while True:
        try:
            return origin.resolve()
        except TransientFailure as failure:
            wait_s = retries.wait_s(failure)
            if wait_s is None:
                error: MorpheusError = as_morpheus_error(subject, failure)
                raise error from failure
            if stopping.wait(wait_s):
                raise Stopped from None
