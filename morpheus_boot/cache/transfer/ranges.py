"""Sets of byte ranges, and the spans of a file that connections take: arithmetic, no input or output."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file from ``start`` up to ``stop`` (None: its end, wherever that is)."""

    start: int
    stop: int | None


class Spans:
    """What is still to be asked for, handed out from the lowest offset on: the hash follows the front.

    ``gaps`` are whole unless ``span_bytes`` says how long a span may be. Not safe from several threads.
    """

    def __init__(self, gaps: Iterable[Span], span_bytes: int | None) -> None:
        self._span_bytes = span_bytes
        # In reverse: the next one is taken from the end.
        self._left = sorted(gaps, key=lambda span: -span.start)

    def __len__(self) -> int:
        """How many spans can be taken."""
        return sum(self._cuts(span) for span in self._left)

    def _cuts(self, span: Span) -> int:
        if self._span_bytes is None or span.stop is None:
            return 1
        return -(-(span.stop - span.start) // self._span_bytes)

    def take(self) -> Span | None:
        """The next span, or None where all are taken."""
        if not self._left:
            return None
        span = self._left.pop()
        if self._span_bytes is None or span.stop is None:
            return span
        cut = span.start + self._span_bytes
        if cut >= span.stop:
            return span
        self._left.append(Span(cut, span.stop))
        return Span(span.start, cut)

    def give_back(self, span: Span) -> None:
        """Puts back what a connection did not bring."""
        if span.stop is None or span.start < span.stop:
            self._left.append(span)
            self._left.sort(key=lambda each: -each.start)
