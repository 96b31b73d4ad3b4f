"""What an origin was asked and what it sent, readable while it runs."""

import threading
from collections import Counter
from dataclasses import dataclass, fields

from tests.testbed.exchange import Reply, Request


@dataclass(frozen=True, slots=True)
class Seen(Request):
    """One request, and the status that it got."""

    status: int


@dataclass(frozen=True, slots=True)
class Count:
    """Requests, and bytes of bodies sent: never fewer than arrived, at most 1 MiB a connection more."""

    requests: int = 0
    body_bytes: int = 0


class Ledger:
    """Counts by path; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._body_bytes: Counter[str] = Counter()
        self._running = 0
        self._peak = 0

    def begin(self, request: Request, reply: Reply) -> None:
        """A reply is about to go out."""
        asked = {each.name: getattr(request, each.name) for each in fields(Request)}
        seen = Seen(**asked, status=reply.status)
        with self._lock:
            self._seen.append(seen)
            self._running += 1
            self._peak = max(self._peak, self._running)

    def sent(self, path: str, sent_bytes: int) -> None:
        """So many bytes of a body went out."""
        with self._lock:
            self._body_bytes[path] += sent_bytes

    def end(self) -> None:
        """A reply has ended, in whichever way."""
        with self._lock:
            self._running -= 1

    def seen(self, path: str | None, method: str | None) -> tuple[Seen, ...]:
        """The requests so far, in order."""
        with self._lock:
            return tuple(
                s for s in self._seen if path in (None, s.path) and method in (None, s.method)
            )

    def count(self, path: str | None) -> Count:
        """Requests and bytes of one path, or of all."""
        with self._lock:
            if path is None:
                return Count(len(self._seen), self._body_bytes.total())
            return Count(sum(s.path == path for s in self._seen), self._body_bytes[path])

    @property
    def running(self) -> int:
        """Replies that are going out now."""
        with self._lock:
            return self._running

    @property
    def peak(self) -> int:
        """The most replies that went out at the same time."""
        with self._lock:
            return self._peak
