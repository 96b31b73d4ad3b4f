"""The processes of this container as /proc/<pid>/stat shows them (proc(5))."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_DEAD: Final = frozenset("ZX")


@dataclass(frozen=True, slots=True)
class Entry:
    """One process: its parent, its process group, and whether it has ended and waits to be reaped."""

    pid: int
    parent: int
    group: int
    dead: bool


def read_process_table() -> Iterator[Entry]:
    """Every process that can be seen now."""
    for folder in _PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between the listing and the read, or is another user's (hidepid of proc(5))
        # The name in brackets may itself hold spaces and brackets.
        state, parent, group = stat.rpartition(")")[2].split()[:3]
        yield Entry(int(folder.name), int(parent), int(group), state in _DEAD)


def lives(group: int) -> bool:
    """Whether any process of this process group still runs."""
    return any(entry.group == group and not entry.dead for entry in read_process_table())
