"""PID 1's duty: a process whose parent died becomes our child, and stays a zombie until we wait for it."""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from morpheus_boot.services.process_table import read_process_table

# A child that other code of ours started (subprocess.run in the story) looks like an orphan, and if we
# reaped it, subprocess would take its exit code for 0. Its own waiter takes it within milliseconds.
_ORPHAN_AFTER_S: Final = 1.0


class Reaper:
    """Reaps what nobody else of this process waits for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._dead_since: dict[int, float] = {}

    def reap(self, ours: Collection[int]) -> None:
        """Reaps each zombie below us, not among ``ours``, that has been one for a second; never waits."""
        now = self._clock()
        zombies = self._zombies() - set(ours)
        self._dead_since = {pid: self._dead_since.get(pid, now) for pid in zombies}
        for pid, since in self._dead_since.items():
            if now - since >= _ORPHAN_AFTER_S:
                with suppress(ChildProcessError):  # its own waiter took it meanwhile
                    os.waitpid(pid, os.WNOHANG)

    @staticmethod
    def _zombies() -> set[int]:
        try:
            # One system call where there is none; the first of them may be one of ours, so then look at all.
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return set()
        except ChildProcessError:
            return set()
        me = os.getpid()
        return {entry.pid for entry in read_process_table() if entry.parent == me and entry.dead}
