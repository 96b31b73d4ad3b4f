"""How a transfer gets on: how fast, how long it will take, and when it gives up. Decisions over a clock."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.cache.origins.origin import TransientFailure

_WINDOW_S: Final = 5.0
_SAMPLE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """A transfer's progress: ``rate_bytes_per_s`` over the last seconds, ``left_s`` at that rate (None: not known).

    ``retries`` counts the connections that failed and were tried again; ``trouble`` is what the last one failed of.
    """

    done_bytes: int
    size_bytes: int | None = None
    rate_bytes_per_s: float = 0.0
    left_s: float | None = None
    retries: int = 0
    connections: int = 0
    trouble: str = ""


class Meter:
    """Measures one transfer."""

    def __init__(self, size_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._size_bytes = size_bytes
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def read(
        self, done_bytes: int, *, retries: int, connections: int, trouble: str = ""
    ) -> Reading:
        """The progress now."""
        now = self._clock()
        if self._samples and done_bytes < self._samples[-1][1]:
            self._samples.clear()  # begun anew
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, done_bytes))
        while now - self._samples[0][0] > _WINDOW_S and len(self._samples) > 1:
            self._samples.popleft()
        began_at, began_bytes = self._samples[0]
        elapsed_s = now - began_at
        rate = (done_bytes - began_bytes) / elapsed_s if elapsed_s > 0 else 0.0
        left_s = None
        if self._size_bytes is not None and rate > 0:
            left_s = (self._size_bytes - done_bytes) / rate
        return Reading(done_bytes, self._size_bytes, rate, left_s, retries, connections, trouble)


class Retries:
    """The failures of one transfer, of all its connections, since it last got on; safe from any thread."""

    def __init__(
        self, times: TransferTimes, clock: Callable[[], float], written_bytes: int = 0
    ) -> None:
        """``written_bytes``: what the part has to begin with."""
        self._times = times
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._best_bytes = written_bytes
        self.count = 0
        self.last_cause = ""

    def wait_s(self, failure: TransientFailure, nth: int, written_bytes: int) -> float | None:
        """Seconds to wait before the next attempt after the ``nth`` failure in a row, from 0; None: give up.

        With enough bytes in the part that were not there before, the deadline begins anew: a byte now and then is no
        progress, nor is what comes again where an origin has made the part begin anew.
        """
        backoff = self._times.retry
        with self._lock:
            self.count += 1
            self.last_cause = failure.cause
            if written_bytes >= self._best_bytes + self._times.progress_bytes:
                self._best_bytes, self._since = written_bytes, self._clock()
            left_s = self._since + backoff.deadline_s - self._clock()
        wait_s = backoff.wait_s(nth, failure.retry_after_s)
        return wait_s if wait_s <= left_s else None
