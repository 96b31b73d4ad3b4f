"""The spans of a file that connections take."""

from collections.abc import Iterable
from dataclasses import dataclass


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
