"""A part file: the bytes of one version of a model, which one writer brings in."""

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from morpheus_boot.cache.parts.journal import (
    Journal,
    Version,
    begin_journal,
    journal_of,
    note_ranges,
    read_journal,
)
from morpheus_boot.cache.transfer.ranges import RangeSet


class Part:
    """An open part. Writes go anywhere in it; sync() makes them count. Every method raises OSError.

    Any number of threads may write, and one may sync meanwhile; nobody writes while it restarts, and nothing
    else goes on while it closes.
    """

    def __init__(self, path: Path, version: Version, journal: Journal | None) -> None:
        """``journal``: what the journal of a part that is continued was found to say; None makes a new part.

        Raises:
            FileNotFoundError: another worker has removed or published the part meanwhile.
            BlockingIOError: another worker writes to it, or has done so since its journal was read.
            OSError: the volume fails.
        """
        done = journal.done if journal else ()
        made = 0 if journal else os.O_CREAT | os.O_EXCL
        self.path = path
        self.version = version
        self._journal_path = journal_of(path)
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._done = RangeSet(done)
        self._written = RangeSet(done)
        self._unsynced = RangeSet()
        self._fd = os.open(path, os.O_RDWR | made | os.O_CLOEXEC, 0o644)
        self._journal_fd = -1
        try:
            # One inode, one writer, also where the model's lock has let two in.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._journal_fd = os.open(
                self._journal_path, os.O_WRONLY | made | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
            if journal is not None:
                self._go_on(journal)
        except OSError:
            self.close()
            raise

    def _go_on(self, journal: Journal) -> None:
        # Before the flock was ours another may have published it, or have begun it anew.
        self.path.stat()
        if read_journal(self._journal_path) != journal:
            raise BlockingIOError(errno.EAGAIN, "another worker has written to it", str(self.path))
        # A line that a kill cut off would swallow the next one.
        os.ftruncate(self._journal_fd, journal.whole_bytes)

    @property
    def is_open(self) -> bool:
        """Whether it is not closed yet."""
        return self._fd >= 0

    @property
    def front(self) -> int:
        """The number of bytes that are whole and synced from the beginning on."""
        with self._lock:
            return self._done.front

    @property
    def done_bytes(self) -> int:
        """The number of synced bytes."""
        with self._lock:
            return self._done.size_bytes

    @property
    def written_front(self) -> int:
        """The number of bytes that are written from the beginning on, synced or not."""
        with self._lock:
            return self._written.front

    @property
    def written_bytes(self) -> int:
        """The number of bytes that are written, synced or not."""
        with self._lock:
            return self._written.size_bytes

    def gaps(self, stop: int) -> list[range]:
        """What is not written below ``stop``."""
        with self._lock:
            return self._written.gaps(stop)

    def write(self, at: int, data: memoryview) -> None:
        """Writes all of ``data`` at offset ``at``."""
        begin = at
        while data:
            written = os.pwrite(self._fd, data, at)
            at, data = at + written, data[written:]
        with self._lock:
            self._unsynced.add(range(begin, at))
            self._written.add(range(begin, at))

    def read_into(self, at: int, buffer: memoryview) -> int:
        """Reads back what was written at ``at``; returns the number of bytes."""
        return os.preadv(self._fd, [buffer], at)

    def sync(self) -> None:
        """Makes all that was written durable, then says so in the journal.

        Raises FileNotFoundError where another worker took over.
        """
        with self._syncing:
            # Who took over while we were silent took this name away: what we fetch from then on is for nothing.
            self.path.stat()
            # Only what was written before the sync began. And a lost page is reported once: after a failed
            # sync the next succeeds, and has saved nothing of these.
            with self._lock:
                ranges, self._unsynced = tuple(self._unsynced), RangeSet()
            if not ranges:
                return
            os.fdatasync(self._fd)
            note_ranges(self._journal_fd, ranges)
            with self._lock:
                for each in ranges:
                    self._done.add(each)

    def restart(self) -> None:
        """Forgets all bytes, where the origin won't continue."""
        with self._syncing:
            # The journal first: killed in between, it must not name bytes that are gone.
            os.ftruncate(self._journal_fd, 0)
            os.ftruncate(self._fd, 0)
            with self._lock:
                self._done, self._written, self._unsynced = RangeSet(), RangeSet(), RangeSet()
            if self.version.size_bytes is not None:
                os.ftruncate(self._fd, self.version.size_bytes)
            begin_journal(self._journal_fd, self.version)

    def finish(self) -> os.stat_result:
        """Fsyncs the whole part, ready to be published; returns its size and mtime.

        It stays open until it is published: while it is, no other worker can continue it.
        """
        os.fsync(self._fd)
        # MooseFS shows other hosts an older mtime for up to a second after the last write, unless it is set.
        os.utime(self._fd)
        # A quota may show only at a close, of any descriptor; the flock goes with the last one.
        os.close(os.dup(self._fd))
        return os.fstat(self._fd)

    def close(self) -> None:
        """Closes without syncing. Raises OSError: a quota may show only here."""
        fds, self._fd, self._journal_fd = (self._fd, self._journal_fd), -1, -1
        try:
            if fds[1] >= 0:
                os.close(fds[1])
        finally:
            if fds[0] >= 0:
                os.close(fds[0])

    def forget_journal(self) -> None:
        """Removes the journal after the part was published."""
        self._journal_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes part and journal: their room must not be kept from the jobs."""
        with suppress(OSError):
            self.close()
        for path in (self.path, self._journal_path):
            path.unlink(missing_ok=True)
