"""What a service prints, as lines: read in a thread, so that a full pipe never stops the service."""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

_LINE_BYTES: Final = 8192
_KEPT_LINES: Final = 20
_QUOTED_LINES: Final = 5
_BAR_EVERY_S: Final = 10.0
_READ_BYTES: Final = 65536


class LineSplitter:
    """Bytes in, lines out. Undecodable bytes are replaced; blank lines are left out; long lines are cut.

    A carriage return lets the next text take the line's place, as on a terminal: of a progress bar comes
    its last state, and meanwhile one state every ten seconds.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._bar_said_at = math.inf

    def feed(self, content: bytes, now: float) -> list[str]:
        """The lines that ``content`` completes; ``now`` is of the monotonic clock."""
        *whole, rest = (self._rest + content).split(b"\n")
        lines = [text for line in whole if (text := _text(line))]
        if whole:
            self._bar_said_at = math.inf
        shown, replaced, rest = rest.rpartition(b"\r")
        if replaced and not rest:  # what takes its place is still to come, or its end
            shown, rest = b"", shown + replaced
        if shown:
            self._bar_said_at = min(self._bar_said_at, now)
            if now - self._bar_said_at >= _BAR_EVERY_S and (text := _text(shown)):
                lines.append(text)
                self._bar_said_at = now
        self._rest = rest[: _LINE_BYTES + 1]
        return lines

    def end(self) -> list[str]:
        """The line so far, which nothing will complete."""
        return [text for text in [_text(self._rest)] if text]


def _text(line: bytes) -> str:
    """What a terminal shows of a line in the end."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = shown[:_LINE_BYTES].decode(errors="replace").rstrip()
    return f"{text} [cut]" if len(shown) > _LINE_BYTES else text


class Output:
    """Reads a pipe to its end, hands on each line and remembers the last ones."""

    def __init__(self, read_fd: int, name: str, on_line: Callable[[str], None]) -> None:
        """Owns ``read_fd``. ``on_line`` is called from the reading thread: a slow one slows the service."""
        self._read_fd = read_fd
        self._on_line = on_line
        self._lock = threading.Lock()
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._thread.start()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines, oldest first; safe from any thread."""
        with self._lock:
            return tuple(self._last)

    def wait_for_end(self, timeout_s: float) -> None:
        """Waits until all was read, or for ``timeout_s``: a grandchild may hold the pipe open for ever."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        splitter = LineSplitter()
        with os.fdopen(self._read_fd, "rb", buffering=0):
            while content := os.read(self._read_fd, _READ_BYTES):
                self._take(splitter.feed(content, time.monotonic()))
        self._take(splitter.end())

    def _take(self, lines: Iterable[str]) -> None:
        for line in lines:
            with self._lock:
                self._last.append(line)
            self._on_line(line)


def quote_lines(lines: Sequence[str]) -> str:
    """A service's last lines as they stand in an error, which is one line itself."""
    if not lines:
        return "it printed nothing"
    return f"its last lines: {' | '.join(lines[-_QUOTED_LINES:])}"
