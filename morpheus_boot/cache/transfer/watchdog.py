"""Finds connections that trickle: a pure decision over bytes and a clock.

A socket's own time-out never ends a connection that sends a byte now and then.
"""

import time
from collections.abc import Callable, Hashable


class Watchdog:
    """Watches any number of connections; each must bring ``floor_bytes_per_s`` over every ``window_s``."""

    def __init__(
        self,
        floor_bytes_per_s: float,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._least_bytes = floor_bytes_per_s * window_s
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[Hashable, tuple[float, int]] = {}

    def trickles(self, connection: Hashable, received_bytes: int) -> bool:
        """Whether a connection, which has received so much by now, is too slow; it is forgotten then."""
        now = self._clock()
        began_at, began_bytes = self._windows.setdefault(connection, (now, received_bytes))
        if now - began_at < self._window_s:
            return False
        if received_bytes - began_bytes < self._least_bytes:
            self.forget(connection)
            return True
        self._windows[connection] = (now, received_bytes)
        return False

    def forget(self, connection: Hashable) -> None:
        """Begins anew: the connection has ended, or it waits for the volume and not for its origin."""
        self._windows.pop(connection, None)
