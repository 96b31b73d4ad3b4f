"""Sets of byte ranges: arithmetic, no input or output."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """Disjoint ranges in order; those that touch are one, so that it stays small however long a file is."""

    def __init__(self, ranges: Iterable[range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for each in ranges:
            self.add(each)

    def add(self, added: range) -> None:
        """Adds a range, which may overlap what is there."""
        if not added:
            return
        low = bisect_left(self._stops, added.start)
        high = bisect_right(self._starts, added.stop)
        start, stop = added.start, added.stop
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def __iter__(self) -> Iterator[range]:
        return map(range, self._starts, self._stops)

    @property
    def front(self) -> int:
        """How many bytes there are from 0 on without a gap."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def size_bytes(self) -> int:
        """How many bytes there are in all."""
        return sum(self._stops) - sum(self._starts)

    def gaps(self, stop: int) -> list[range]:
        """What is missing below ``stop``."""
        starts = [0, *self._stops]
        stops = [*self._starts, stop]
        return [
            range(a, min(b, stop)) for a, b in zip(starts, stops, strict=True) if a < min(b, stop)
        ]
