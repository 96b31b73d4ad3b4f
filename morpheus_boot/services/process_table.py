"""The processes of this container as /proc/<pid>/stat shows them (proc(5)), and PID 1's duty among them."""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_DEAD: Final = frozenset("ZX")
# A child that other code of ours started (subprocess.run in the story) looks like an orphan, and if we
# reaped it, subprocess would take its exit code for 0. Its own waiter takes it within milliseconds.
_ORPHAN_AFTER_S: Final = 1.0


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


class Reaper:
    """Reaps what nobody else waits for: where we are PID 1, a process whose parent died becomes our child."""

    def __init__(self) -> None:
        self._dead_since: dict[int, float] = {}

    def reap(self, ours: Collection[int]) -> None:
        """Reaps each zombie below us, not among ``ours``, that has been one for a second; never waits."""
        now = time.monotonic()
        zombies = _our_zombies() - set(ours)
        self._dead_since = {pid: self._dead_since.get(pid, now) for pid in zombies}
        for pid, since in self._dead_since.items():
            if now - since >= _ORPHAN_AFTER_S:
                with suppress(ChildProcessError):  # its own waiter took it meanwhile
                    os.waitpid(pid, os.WNOHANG)


def _our_zombies() -> set[int]:
    try:
        # One system call where there is none; the first of them may be a service, so then look at all.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return set()
    except ChildProcessError:
        return set()
    me = os.getpid()
    return {entry.pid for entry in read_process_table() if entry.parent == me and entry.dead}
