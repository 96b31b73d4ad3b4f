"""How fast a transfer goes and how long it will take: pure arithmetic over a clock."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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
