"""A part file and its journal: the bytes of one version of a model, which one writer brings in.

The journal names finished ranges, and only those that were fsynced: on MooseFS a successful write means
nothing, since a quota shows at fsync or close.
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.cache.ranges import RangeSet
from morpheus_boot.documents import from_document
from morpheus_boot.layout import Layout, model_key

_LOG: Final = logging.getLogger("morpheus.cache")
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """What a part holds the bytes of. Two parts may share bytes only if their versions are the same.

    ``origin`` is without secrets; ``etag`` is a strong validator or None.
    """

    origin: str
    size_bytes: int | None
    sha256: str | None
    etag: str | None

    def continues(self, other: "Version") -> bool:
        """Whether bytes of ``other`` may stand in a part of this version."""
        if self.size_bytes is None or self.size_bytes != other.size_bytes:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return self.origin == other.origin and self.etag is not None and self.etag == other.etag


class Part:
    """An open part. Writes go anywhere in it; sync() makes them count. Every method raises OSError.

    Any number of threads may write, and one may sync meanwhile; nobody writes while it restarts, and nothing
    else goes on while it closes.
    """

    def __init__(self, path: Path, version: Version, journal: "Journal | None") -> None:
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

    def _go_on(self, journal: "Journal") -> None:
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
            lines = b"".join(f"[{r.start},{r.stop}]\n".encode() for r in ranges)
            _write_all(self._journal_fd, lines)
            os.fdatasync(self._journal_fd)
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
            _begin(self._fd, self._journal_fd, self.version)

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


def journal_of(part: Path) -> Path:
    """The journal beside a part."""
    return part.with_suffix(".journal")


def kept_bytes(layout: Layout, model_path: str) -> int:
    """What a fill that did not come to its end has left of a model. Raises OSError."""
    return max((found.journal.done_bytes for found in _parts_of(layout, model_path)), default=0)


def open_part(
    layout: Layout, model_path: str, version: Version, *, inherits: bool, chunk_bytes: int
) -> Part:
    """The part to bring ``version`` in with.

    ``inherits``: the part of a dead worker is continued. Without it, a part of one's own is begun with a copy of
    what the silent worker's journal names, and the silent worker's part loses its name: should that worker come
    back, it can't publish an inode that two have written to. Where that can't be copied (it can't be read, or both
    don't fit), its part is begun anew. Parts of another version are dropped.
    ``chunk_bytes``: only whole multiples of it are copied.

    Raises OSError; an exhausted quota shows here already, where the part takes its full size.
    """
    layout.parts.mkdir(parents=True, exist_ok=True)
    found = sorted(_parts_of(layout, model_path), key=lambda f: -f.journal.done_bytes)
    usable = [f for f in found if _is_usable(f, version)]
    best = usable[0] if usable else None
    drop_parts(layout, model_path, but=best.path if best else None)
    if best is None:
        return _begin_part(layout, model_path, version)
    if inherits:
        with suppress(BlockingIOError):
            return Part(best.path, version, best.journal)
    try:
        return _begin_copy(layout, model_path, version, best, chunk_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        _LOG.warning(
            "%s: the part of a silent worker can't be copied (%s): begun anew", model_path, reason
        )
    finally:
        _remove(best.path)
    return _begin_part(layout, model_path, version)


def _begin_part(layout: Layout, model_path: str, version: Version) -> Part:
    path = layout.parts / f"{model_key(model_path)}.{secrets.token_hex(6)}.part"
    part: Part | None = None
    try:
        part = Part(path, version, None)
        part.restart()
    except OSError:
        if part is not None:
            part.discard()
        _remove(path)
        raise
    return part


def _begin(fd: int, journal_fd: int, version: Version) -> None:
    if version.size_bytes is not None:
        os.ftruncate(fd, version.size_bytes)
    _write_all(journal_fd, json.dumps(asdict(version)).encode() + b"\n")
    os.fdatasync(journal_fd)


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal says: a version (None: it can't be read as a journal), the finished ranges.

    ``whole_bytes``: the length of its lines up to one that a kill cut off.
    """

    version: Version | None = None
    done: tuple[range, ...] = ()
    whole_bytes: int = 0

    @property
    def done_bytes(self) -> int:
        """The number of finished bytes."""
        return sum(len(r) for r in self.done)


def read_journal(path: Path) -> Journal:
    """The journal at ``path``, up to a line that a kill cut off. Raises OSError other than not found."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return Journal()
    version: Version | None = None
    ranges: list[range] = []
    whole_bytes = 0
    for line in lines:
        try:
            if version is None:
                version = from_document(Version, json.loads(line))
            elif line.endswith(b"\n"):
                begin, end = json.loads(line)
                ranges.append(range(begin, end))
        except (ValueError, TypeError):
            break
        if line.endswith(b"\n"):
            whole_bytes += len(line)
    return Journal(version, tuple(RangeSet(ranges)), whole_bytes) if whole_bytes else Journal()


def drop_parts(layout: Layout, model_path: str, *, but: Path | None = None) -> None:
    """Removes the parts of a model and journals that have lost theirs, ``but`` one. Raises OSError.

    Only for who has the model's claim.
    """
    for path in layout.parts.glob(f"{model_key(model_path)}.*"):
        if but is None or path not in (but, journal_of(but)):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    journal: Journal


def _parts_of(layout: Layout, model_path: str) -> Iterator[_Found]:
    for path in layout.parts.glob(f"{model_key(model_path)}.*.part"):
        yield _Found(path, read_journal(journal_of(path)))


def _is_usable(found: _Found, version: Version) -> bool:
    journal = found.journal
    if journal.version is None or not version.continues(journal.version):
        return False
    # A part that is shorter than its journal says was cut behind our back.
    return not journal.done or found.path.stat().st_size >= journal.done[-1].stop


def _begin_copy(
    layout: Layout, model_path: str, version: Version, source: _Found, chunk_bytes: int
) -> Part:
    part = _begin_part(layout, model_path, version)
    try:
        _copy(source, part, chunk_bytes)
        if _still_names(source):
            part.sync()
        else:
            # The silent worker came back and began its part anew: what was copied may be holes.
            part.restart()
    except OSError:
        part.discard()
        raise
    return part


def _still_names(source: _Found) -> bool:
    now, then = read_journal(journal_of(source.path)), source.journal
    both = RangeSet((*now.done, *then.done))
    return now.version == then.version and both.size_bytes == now.done_bytes


def _copy(source: _Found, part: Part, chunk_bytes: int) -> None:
    buffer = memoryview(bytearray(_COPY_BYTES))
    fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Reading ahead into the chunk that the lost host was writing to would hang, too.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for done in _whole_chunks(source.journal.done, chunk_bytes):
            at = done.start
            while at < done.stop:
                count = os.preadv(fd, [buffer[: min(_COPY_BYTES, done.stop - at)]], at)
                if count == 0:
                    break
                part.write(at, buffer[:count])
                at += count
    finally:
        os.close(fd)


def _whole_chunks(done: tuple[range, ...], chunk_bytes: int) -> Iterator[range]:
    # MooseFS keeps a chunk (64 MiB) locked for two minutes once the host that was writing to it is lost, and whoever
    # reads it hangs for so long. A chunk that was synced as a whole is not written to any more.
    for r in done:
        begin = -(-r.start // chunk_bytes) * chunk_bytes
        end = r.stop // chunk_bytes * chunk_bytes
        if begin < end:
            yield range(begin, end)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    journal_of(part).unlink(missing_ok=True)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
