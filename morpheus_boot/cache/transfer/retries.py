"""When a transfer tries again, and when it gives up: a decision over its failures, its progress and a clock."""

import threading
from collections.abc import Callable

from morpheus_boot.cache.options import TransferTimes
from morpheus_boot.cache.origins.origin import TransientFailure


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
