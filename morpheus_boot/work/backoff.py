"""Trying again: how long to wait after each failure, and until when."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from morpheus_boot.work.stopping import Stopped

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits from ``first_s`` on, each twice as long as the one before, up to ``most_s``.

    ``deadline_s`` after the first attempt no other one begins. ``jitter``: the share of a wait that is left to
    chance, so that those who failed together do not come back together.
    """

    first_s: float = 0.5
    most_s: float = 20.0
    deadline_s: float = 60.0
    jitter: float = 0.5

    def wait_s(
        self,
        nth: int,
        wished_s: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> float:
        """Seconds to wait after the ``nth`` failure in a row, from 0; what the other side wished for wins."""
        share = 1 - self.jitter * chance()
        if wished_s is not None:
            # "Retry-After: 0" is not a leave to ask without a pause.
            return max(wished_s, self.first_s * share)
        return min(self.most_s, self.first_s * 2.0 ** min(nth, 60)) * share


def try_again(
    attempt: Callable[[], _T],
    on: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff,
    *,
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """What ``attempt`` returns, which is made again where it raises one of ``on``, until the backoff's deadline.

    ``pause`` waits for so many seconds and says whether to stop, as an event's wait() does. A failure with a
    ``retry_after_s`` says how long to wait. Raises Stopped, and the last failure where the deadline would pass.
    """
    until = clock() + backoff.deadline_s
    for nth in count():
        try:
            return attempt()
        except on as failure:
            wait_s = backoff.wait_s(nth, getattr(failure, "retry_after_s", None))
            if clock() + wait_s > until:
                raise
        if pause(wait_s):
            raise Stopped
    raise AssertionError("count() does not end")
