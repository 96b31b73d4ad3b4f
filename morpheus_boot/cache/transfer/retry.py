"""When to try again: a pure decision over failures and a clock, so that no test of it waits."""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from morpheus_boot.cache.options import RetryPolicy

TRY_LATER: Final = "try again later, nothing is wrong here: its server is busy or out of order"


class TransientFailure(Exception):
    """What may pass by itself: a lost connection, a 5xx, a 429. ``retry_after_s`` is the origin's own wish.

    ``crowded``: the origin may have had enough of our connections, rather than be at fault itself.
    ``mend``: what to do where it does not pass.
    """

    def __init__(
        self,
        cause: str,
        retry_after_s: float | None = None,
        *,
        crowded: bool = False,
        mend: str = "check the network and its URL, then try again",
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after_s = retry_after_s
        self.crowded = crowded
        self.mend = mend


class Retries:
    """The failures of one transfer, of all its connections, since it last got on; safe from any thread."""

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._since = clock()
        self._progress_bytes = 0
        self.count = 0
        self.last_cause = ""

    def progressed(self, new_bytes: int) -> None:
        """New bytes arrived: with enough of them the deadline begins anew."""
        with self._lock:
            self._progress_bytes += new_bytes
            if self._progress_bytes >= self._policy.progress_bytes:
                self._progress_bytes = 0
                self._since = self._clock()

    def wait_s(self, failure: TransientFailure, nth: int) -> float | None:
        """Seconds to wait before the next attempt after the ``nth`` failure in a row, from 0; None: give up."""
        backoff_s = min(self._policy.most_s, self._policy.first_s * 2 ** min(nth, 30))
        # Half to full: workers that failed together must not come back together.
        part = 0.5 + 0.5 * self._jitter()
        if failure.retry_after_s is None:
            wait_s = backoff_s * part
        else:
            # "Retry-After: 0" is not a leave to ask without a pause.
            wait_s = max(failure.retry_after_s, self._policy.first_s * part)
        with self._lock:
            self.count += 1
            self.last_cause = failure.cause
            left_s = self._since + self._policy.deadline_s - self._clock()
        return wait_s if wait_s <= left_s else None
