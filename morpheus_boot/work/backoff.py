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

    def wait_s(self, nth: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the ``nth`` failure in a row, from 0."""
        longest_s = min(self.most_s, self.first_s * 2.0 ** min(nth, 60))
        return longest_s * (1 - self.jitter * chance())


def try_again(
    attempt: Callable[[], _T],
    on: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff,
    *,
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _T:
    """What ``attempt`` returns, which is made again where it raises one of ``on``, until the backoff's deadline.

    ``pause`` waits for so many seconds and says whether to stop, as an event's wait() does. Raises Stopped then, and
    the last failure once the deadline would pass.
    """
    until = clock() + backoff.deadline_s
    for nth in count():
        try:
            return attempt()
        except on:
            wait_s = backoff.wait_s(nth)
            if clock() + wait_s > until:
                raise
        if pause(wait_s):
            raise Stopped
    raise AssertionError("count() does not end")
