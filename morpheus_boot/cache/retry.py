"""When to try again: a pure decision over failures and a clock, so that no test of it waits."""

import random
import time
from collections.abc import Callable

from morpheus_boot.cache.options import RetryPolicy


class TransientFailure(Exception):
    """What may pass by itself: a lost connection, a 5xx, a 429. ``retry_after_s`` is the origin's own wish."""

    def __init__(self, cause: str, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after_s = retry_after_s


class Retries:
    """The failures of one transfer since it last got on."""

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self.progressed()

    def progressed(self) -> None:
        """Bytes arrived: the deadline and the backoff begin anew."""
        self._since = self._clock()
        self._failures = 0

    def wait_s(self, failure: TransientFailure) -> float | None:
        """Seconds to wait before the next attempt; None: give up."""
        backoff_s = min(self._policy.most_s, self._policy.first_s * 2**self._failures)
        self._failures += 1
        wait_s = failure.retry_after_s
        if wait_s is None:
            # Half to full: workers that failed together must not come back together.
            wait_s = backoff_s * (0.5 + 0.5 * self._jitter())
        left_s = self._since + self._policy.deadline_s - self._clock()
        return wait_s if wait_s <= left_s else None
