"""What all transfers of one fill share: connections, and with them memory, since each has one buffer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Divides a number of connections among the transfers that run; each has one at least."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._transfers = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Counts one more transfer for as long as it lasts."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, transfers: int) -> None:
        with self._lock:
            self._transfers += transfers

    @property
    def share(self) -> int:
        """The connections that one of the running transfers may have now."""
        with self._lock:
            return max(1, self._connections // max(1, self._transfers))
