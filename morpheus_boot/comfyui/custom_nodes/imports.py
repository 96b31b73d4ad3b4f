"""Which custom nodes ComfyUI could not import, from its own log."""

import re
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

# nodes.py, init_external_custom_nodes and load_custom_node; the same from 0.3.64 to 0.38.1.
_FAILED: Final = re.compile(r"\d+\.\d seconds \(IMPORT FAILED\): (/.*\S)")
_CAUSE: Final = re.compile(r"Cannot import (/.*?) module for custom nodes: (.*\S)")
_SKIPPED: Final = re.compile(r"Skip (/.*?) module for custom nodes (due to .*\S)")
_KEPT_LINES: Final = 5000


class Printed:
    """What one ComfyUI has printed, its last 5000 lines: the thread that reads its output adds, any other reads."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        # A deque that is added to can't be walked through.
        self._lock = threading.Lock()

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines so far, oldest first."""
        with self._lock:
            return tuple(self._lines)

    def add(self, line: str) -> None:
        """Takes a line."""
        with self._lock:
            self._lines.append(line)

    def clear(self) -> None:
        """Forgets all: another ComfyUI is to come."""
        with self._lock:
            self._lines.clear()


@dataclass(frozen=True, slots=True)
class FailedImport:
    """A custom node by its folder's name, and ComfyUI's reason; empty where it gave none."""

    name: str
    reason: str


def failed_imports(lines: Iterable[str]) -> tuple[FailedImport, ...]:
    """The nodes that a whole start of ComfyUI reports as failed, in its order."""
    reasons: dict[str, str] = {}
    failed: dict[str, None] = {}
    for line in lines:
        if found := _CAUSE.search(line) or _SKIPPED.search(line):
            reasons[found[1]] = found[2]
        elif found := _FAILED.search(line):
            failed[found[1]] = None
    return tuple(FailedImport(PurePosixPath(p).name, reasons.get(p, "")) for p in failed)
