"""Which custom nodes ComfyUI could not import, from its own log."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

# nodes.py, init_external_custom_nodes and load_custom_node; the same from 0.3.64 to 0.38.1.
_FAILED: Final = re.compile(r"\d+\.\d seconds \(IMPORT FAILED\): (/.*\S)")
_CAUSE: Final = re.compile(
    r"(?:Cannot import|Skip) (/.*?) module for custom nodes(?:: | (?=due to ))(.*\S)"
)


@dataclass(frozen=True, slots=True)
class FailedImport:
    """A custom node by its folder's name, and ComfyUI's reason; empty where it gave none."""

    name: str
    reason: str


class Imports:
    """What one ComfyUI says of its imports: the thread that reads its output adds lines, any other asks."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._failed: list[str] = []

    def add(self, line: str) -> None:
        """Takes a line that ComfyUI printed."""
        if found := _CAUSE.search(line):
            self._reasons[found[1]] = found[2]
        elif found := _FAILED.search(line):
            self._failed.append(found[1])

    def clear(self) -> None:
        """Forgets all: another ComfyUI is to come."""
        self._reasons, self._failed = {}, []

    @property
    def failed(self) -> tuple[FailedImport, ...]:
        """The nodes that failed, in ComfyUI's order."""
        failed = dict.fromkeys(self._failed)
        return tuple(FailedImport(PurePosixPath(p).name, self._reasons.get(p, "")) for p in failed)
