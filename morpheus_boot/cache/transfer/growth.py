"""How many connections a transfer should have: more while more is faster. A pure decision over rates and a clock."""

import time
from collections.abc import Callable
from typing import Final

_FIRST: Final = 8
_STEP: Final = 8
_WINDOW_S: Final = 0.2
_SETTLE_S: Final = 1.0
# Less is noise; a connection that is capped by itself brings its whole share.
_HELPS: Final = 1.1
# An origin that was away for a moment refuses like one that has had enough: a limit is tried again, ever more rarely.
_HOLD_S: Final = 5.0
_LONGEST_HOLD_S: Final = 80.0


class Growth:
    """Begins with a few connections; adds more as long as the rate rises with them, else takes the last back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._target = _FIRST
        self._limit = _Limit(clock)
        self._slower_rate = 0.0
        self._grows = True
        self._waits_since = clock()
        self._began: tuple[float, int] | None = None

    def target(self, share: int) -> int:
        """The number of connections to have, at most ``share``."""
        return max(1, min(self._target, share, self._limit.most or share))

    def look(self, received_bytes: int, receiving: int, share: int) -> None:
        """Takes the bytes received so far, and how many of the connections have received any."""
        if self._limit.was_lifted(share):
            self._grow_anew()
        if not self._grows:
            return
        now = self._clock()
        if self._began is None:
            # A connection that is still shaking hands would make the rate look worse than it is.
            if receiving >= self.target(share) or now - self._waits_since >= _SETTLE_S:
                self._began = (now, received_bytes)
            return
        began_at, began_bytes = self._began
        if now - began_at < _WINDOW_S:
            return
        self._decide((received_bytes - began_bytes) / (now - began_at), share, now)

    def limit(self, endured: int) -> None:
        """An origin refused a connection while ``endured`` others went on: it allows no more than those for now."""
        self._limit.set(max(1, endured))
        self._grows = False

    def _grow_anew(self) -> None:
        self._slower_rate, self._grows = 0.0, True
        self._began, self._waits_since = None, self._clock()

    def _decide(self, rate: float, share: int, now: float) -> None:
        if rate < self._slower_rate * _HELPS:
            self._target = max(_FIRST, self._target - _STEP)
            self._grows = False
        elif self._target < share:
            self._slower_rate = rate
            self._target += _STEP
            self._began, self._waits_since = None, now
        else:
            self._grows = False


class _Limit:
    """What an origin endures, doubled each time that it has held for a while; the longer, the oftener it was right."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._hold_s = _HOLD_S
        self._until = 0.0
        self._was_raised = False
        self.most: int | None = None

    def set(self, most: int) -> None:
        """Says that more than ``most`` were refused."""
        if self._was_raised:
            self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S)
        self._was_raised = False
        self.most, self._until = most, self._clock() + self._hold_s

    def was_lifted(self, share: int) -> bool:
        """Raises the limit where it is time; True where it is none any more, once."""
        if self.most is None or self._clock() < self._until:
            return False
        self._was_raised = True
        self.most, self._until = 2 * self.most, self._clock() + self._hold_s
        if self.most < share:
            return False
        self.most = None
        return True
