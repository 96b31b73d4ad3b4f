"""A part: a file that one writer brings in, in any order, and that any worker can go on with.

What counts of it is what its journal names. Whoever writes it holds an flock on it, so that a part whose lock is free
was left by one who died.
"""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic

from morpheus_boot.volume.flock import try_flock
from morpheus_boot.volume.journal import (
    Head,
    Journal,
    begin_journal,
    journal_of,
    note_ranges,
    read_journal,
)
from morpheus_boot.volume.ranges import RangeSet


class Part(Generic[Head]):
    """An open part. Writes go anywhere in it; sync() makes them count. Every method raises OSError.

    Any number of threads may write, and one may sync meanwhile; nobody writes while it restarts, and nothing
    else goes on while it closes.
    """

    def __init__(
        self,
        path: Path,
        head: Head,
        journal: Journal[Head] | None = None,
        *,
        size_bytes: int | None = None,
    ) -> None:
        """Makes a new part, whose journal begins with ``head``, or goes on with one whose ``journal`` was read.

        ``size_bytes``: the size that it has from the first byte on, which an exhausted quota refuses here already.

        Raises:
            FileNotFoundError: another worker has removed or published the part meanwhile.
            BlockingIOError: another worker writes to it, or has done so since its journal was read.
            OSError: the volume fails; nothing stays of a new part.
        """
        made = 0 if journal else os.O_CREAT | os.O_EXCL
        done = journal.done if journal else ()
        self.path = path
        self.head = head
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._done = RangeSet(done)
        self._written = RangeSet(done)
        self._unsynced = RangeSet()
        self._failure: OSError | None = None
        self._journal_fd = -1
        self._fd = os.open(path, os.O_RDWR | made | os.O_CLOEXEC, 0o644)
        try:
            # One inode, one writer, also where the lock of what it is of has let two in.
            if not try_flock(self._fd):
                raise BlockingIOError(errno.EAGAIN, "another worker writes to it", str(path))
            # Before the flock was ours another may have published or removed it.
            self._require_name()
            self._journal_fd = os.open(
                journal_of(path), os.O_WRONLY | made | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
            if journal is None:
                self.restart()
            else:
                self._go_on(journal)
        except OSError:
            if journal is None:
                self.discard()
            self.close()
            raise

    def _go_on(self, journal: Journal[Head]) -> None:
        now = read_journal(self.path, type(journal.head))
        if now is None or (now.head, now.done) != (journal.head, journal.done):
            raise BlockingIOError(errno.EAGAIN, "another worker has written to it", str(self.path))
        # A line that a kill cut off would swallow the next one.
        os.ftruncate(self._journal_fd, now.whole_bytes)

    @property
    def is_open(self) -> bool:
        """Whether it is not closed yet."""
        return self._fd >= 0

    @property
    def front(self) -> int:
        """The number of bytes that are durable from the beginning on."""
        with self._lock:
            return self._done.front

    @property
    def written_front(self) -> int:
        """The number of bytes that are written from the beginning on, durable or not."""
        with self._lock:
            return self._written.front

    @property
    def written_bytes(self) -> int:
        """The number of bytes that are written, durable or not."""
        with self._lock:
            return self._written.size_bytes

    def gaps(self, stop: int) -> list[range]:
        """What is not written below ``stop``."""
        with self._lock:
            return self._written.gaps(stop)

    def write(self, at: int, data: memoryview) -> None:
        """Writes all of ``data`` at offset ``at``."""
        begin = at
        try:
            while data:
                written = os.pwrite(self._fd, data, at)
                at, data = at + written, data[written:]
        except OSError as error:
            self._failure = self._failure or error
            raise
        with self._lock:
            self._unsynced.add(range(begin, at))
            self._written.add(range(begin, at))

    def read_into(self, at: int, buffer: memoryview) -> int:
        """Reads back what was written at ``at``; returns the number of bytes."""
        return os.preadv(self._fd, [buffer], at)

    def sync(self) -> None:
        """Makes all that was written before this began durable, then says so in the journal.

        Raises FileNotFoundError where another worker took over.
        """
        with self._syncing:
            # Who took over while we were silent took this name away: what we fetch from then on is for nothing.
            self._require_name()
            with self._lock:
                ranges, self._unsynced = tuple(self._unsynced), RangeSet()
            if not ranges and self._failure is None:
                return
            self._flush(os.fdatasync)
            note_ranges(self._journal_fd, ranges)
            with self._lock:
                for each in ranges:
                    self._done.add(each)

    def touch(self) -> None:
        """Makes its journal young."""
        os.utime(self._journal_fd)

    def restart(self) -> None:
        """Forgets all bytes."""
        with self._syncing:
            # The journal first: killed in between, it must not name bytes that are gone.
            os.ftruncate(self._journal_fd, 0)
            os.ftruncate(self._fd, 0)
            with self._lock:
                self._done, self._written, self._unsynced = RangeSet(), RangeSet(), RangeSet()
            if self._size_bytes is not None:
                os.ftruncate(self._fd, self._size_bytes)
            begin_journal(self._journal_fd, self.head)

    def finish(self) -> os.stat_result:
        """Fsyncs the whole part, ready to be published; returns its size and mtime.

        It stays open until it is published: while it is, no other worker can go on with it.
        """
        self._flush(os.fsync)
        # MooseFS shows other hosts an older mtime for up to a second after the last write, unless it is set.
        os.utime(self._fd)
        # A quota may show only at a close, of any descriptor; the flock goes with the last one.
        os.close(os.dup(self._fd))
        return os.fstat(self._fd)

    def close(self) -> None:
        """Closes without syncing; a quota may show only here."""
        fds, self._fd, self._journal_fd = (self._fd, self._journal_fd), -1, -1
        try:
            if fds[1] >= 0:
                os.close(fds[1])
        finally:
            if fds[0] >= 0:
                os.close(fds[0])

    def discard(self) -> None:
        """Closes it and removes part and journal: their room must not be kept from the jobs."""
        with suppress(OSError):
            self.close()
        remove_part(self.path)

    def _flush(self, sync: Callable[[int], None]) -> None:
        try:
            sync(self._fd)
        except OSError as error:
            self._failure = self._failure or error
        # The kernel tells once that bytes are lost: what succeeds after that has saved nothing of these.
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror, str(self.path))

    def _require_name(self) -> None:
        if not os.path.samestat(os.fstat(self._fd), self.path.stat()):
            raise FileNotFoundError(errno.ENOENT, "another one has its name", str(self.path))


def remove_part(path: Path) -> None:
    """Removes the part at ``path`` and its journal, which may be gone already. Raises OSError."""
    # The journal first: alone it may mean that its part was published.
    journal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
