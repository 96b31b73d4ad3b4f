"""Which custom nodes ComfyUI could not import, from its own log."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

# nodes.py, init_external_custom_nodes and load_custom_node; the same from 0.3.64 to 0.38.1.
_FAILED: Final = re.compile(r"\d+\.\d seconds \(IMPORT FAILED\): (/.*\S)")
_CAUSE: Final = re.compile(r"Cannot import (/.*?) module for custom nodes: (.*\S)")
_SKIPPED: Final = re.compile(r"Skip (/.*?) module for custom nodes (due to .*\S)")


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
