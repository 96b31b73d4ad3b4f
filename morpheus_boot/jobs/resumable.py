"""Uploads that are gone on with later, by any server of the volume: what of them is durable, and who writes.

Each has two files in ``.morpheus/tus/``: ``<id>.part`` with the bytes, on which its writer holds an flock, and
``<id>.journal`` with what was announced and how many bytes are durable. The part becomes the job's file by one
rename, so an upload with a journal and without a part is complete. Its last byte counts only then: before that
the journal names one less at most, and who is told all of them has its file.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from morpheus_boot.cache.lock.workers import volume_time
from morpheus_boot.errors import Exit, MorpheusError, storage_error
from morpheus_boot.jobs.files import FOLDER, names_in, open_below, open_or_make
from morpheus_boot.jobs.journal import Journal, UploadPlan
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.jobs.part import (
    NameTaken,
    OpenPart,
    UploadPart,
    locked,
    make_durable,
    new_part,
)
from morpheus_boot.volume.layout import Layout

_PART: Final = ".part"
_JOURNAL: Final = ".journal"
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
# O_NONBLOCK: a FIFO in its place must not hang who opens it.
_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NoSuchUpload(MorpheusError):
    """There is no such upload, or none any more."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "there is none of this id", "begin a new one")


class UploadExpired(MorpheusError):
    """Nobody has gone on with the upload for too long."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "it has expired", "begin a new one")


class UploadLocked(MorpheusError):
    """Another request writes the upload."""

    exit_code = Exit.STORAGE

    def __init__(self) -> None:
        super().__init__("upload", "another request writes it", "try again in a moment")


@dataclass(frozen=True, slots=True)
class UploadId:
    """The name of one upload's files. Raises NoSuchUpload for what can be none."""

    text: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.text):
            raise NoSuchUpload

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    """An upload as it stands: ``offset_bytes`` of it are durable; complete means that its file has its name.

    ``expires_at`` is in seconds since the epoch.
    """

    id: UploadId
    plan: UploadPlan
    offset_bytes: int
    is_complete: bool
    expires_at: float


class ResumedPart(UploadPart):
    """The part of an upload that was gone on with: what is durable of it stays, whatever fails."""

    def __init__(self, layout: Layout, opened: OpenPart, journal: Journal) -> None:
        super().__init__(layout, opened)
        self._place = layout.resumable
        self._journal = journal
        # The kernel tells of lost bytes once: an fsync after one that failed, or after such a write, proves nothing.
        self._failed_once = False

    def write(self, chunks: Sequence[memoryview]) -> None:
        """Appends ``chunks``. Raises VolumeFull or StorageFailed."""
        try:
            super().write(chunks)
        except MorpheusError:
            self._failed_once = True
            raise

    def settle(self) -> None:
        """Makes what was written so far durable, and says so in the journal. Raises VolumeFull or StorageFailed."""
        with self._settling:
            if self.is_open:
                self._note()

    def publish(self, job: JobId, sub_dir: SubDir, name: FileName) -> None:
        """As UploadPart.publish."""
        try:
            super().publish(job, sub_dir, name)
        except NameTaken:
            raise
        except MorpheusError:
            self._failed_once = True
            raise
        # The file has its name: what a volume says about its journal's age is no failure of the upload.
        with suppress(OSError):
            self._journal.touch()
        self._journal.close()

    def give_up(self) -> None:
        """Makes durable what was written and lets go of it; does nothing after ``publish`` or a second time.

        Raises VolumeFull or StorageFailed; then only what was durable before counts.
        """
        with self._turn:
            if not self.is_open:
                return
            try:
                with self._settling:
                    self._note()
            finally:
                self._close()
                self._journal.close()

    def _note(self) -> None:
        if self._failed_once:
            return
        # Counted before the fsync: another thread may be writing.
        offset_bytes = min(self.size_bytes, self._journal.plan.size_bytes - 1)
        try:
            if offset_bytes > self._journal.offset_bytes:
                make_durable(self._fd)
                self._journal.note(offset_bytes)
        except OSError as error:
            self._failed_once = True
            raise self._failed(error) from error


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload to be gone on with; ``part`` None: it is complete. Whoever has it closes it, or publishes the part."""

    upload: ResumableUpload
    part: ResumedPart | None

    def close(self) -> None:
        """Lets go of it. Raises VolumeFull or StorageFailed."""
        if self.part is not None:
            self.part.give_up()


class UploadStore:
    """The volume's resumable uploads. Its methods block, and may be called from any thread."""

    def __init__(self, layout: Layout, keeps_s: float) -> None:
        """So long after its last byte an upload expires, complete or not."""
        self._layout = layout
        self._keeps_s = keeps_s

    def create(self, plan: UploadPlan) -> ResumableUpload:
        """Begins an upload. Raises VolumeFull or StorageFailed; then nothing is left of it."""
        with self._folder(make=True) as folder:
            name, fd = new_part(folder)
            upload = UploadId(name.removesuffix(_PART))
            try:
                Journal.create(folder, f"{upload}{_JOURNAL}", plan)
                return self._read(folder, upload)
            except BaseException:
                _unlink(folder, upload)
                raise
            finally:
                os.close(fd)

    def find(self, upload: UploadId) -> ResumableUpload:
        """How an upload stands. Raises NoSuchUpload, UploadExpired, StorageFailed."""
        with self._folder() as folder:
            return self._read(folder, upload)

    def open(self, upload: UploadId) -> OpenUpload:
        """Opens an upload for the only one who goes on with it.

        Raises NoSuchUpload, UploadExpired, UploadLocked, StorageFailed.
        """
        with self._folder() as folder:
            seen = self._read(folder, upload)
            if seen.is_complete:
                return OpenUpload(seen, None)
            opened = self._locked(folder, upload)
            # Published in this moment: look again.
            return opened or OpenUpload(self._read(folder, upload), None)

    def remove(self, upload: UploadId) -> None:
        """Ends an upload; the file of a complete one stays.

        Raises NoSuchUpload, UploadExpired, UploadLocked, StorageFailed.
        """
        with self._folder() as folder:
            self._read(folder, upload)
            with _held(folder, upload) as free:
                if not free:
                    raise UploadLocked
                _unlink(folder, upload)

    def sweep(self) -> int:
        """Removes what has expired, and what a server left that died in create(); returns how many.

        Raises StorageFailed.
        """
        try:
            with self._folder() as folder:
                before = volume_time(self._layout) - self._keeps_s
                names = {name.partition(".")[0] for name in names_in(folder)}
                found = [UploadId(name) for name in sorted(names) if _ID.fullmatch(name)]
                return sum(_swept(folder, upload, before) for upload in found)
        except NoSuchUpload:
            return 0

    @contextmanager
    def _folder(self, *, make: bool = False) -> Iterator[int]:
        try:
            way = self._layout.way(self._layout.resumable)
            folder = (open_or_make if make else _open_folder)(self._layout, way)
            try:
                yield folder
            finally:
                os.close(folder)
        except FileNotFoundError:
            raise NoSuchUpload from None
        except OSError as error:
            raise storage_error("upload", self._layout.resumable, error) from error

    def _read(self, folder: int, upload: UploadId) -> ResumableUpload:
        # In this order: an upload that is removed in between loses its journal first.
        is_complete = _mtime(folder, f"{upload}{_PART}") is None
        journal = Journal(folder, f"{upload}{_JOURNAL}")
        try:
            found = self._as_told(upload, journal, is_complete=is_complete)
        finally:
            journal.close()
        if time.time() > found.expires_at:
            raise UploadExpired
        return found

    def _as_told(self, upload: UploadId, journal: Journal, *, is_complete: bool) -> ResumableUpload:
        plan = journal.plan
        offset_bytes = plan.size_bytes if is_complete else journal.offset_bytes
        expires_at = journal.touched_at + self._keeps_s
        return ResumableUpload(upload, plan, offset_bytes, is_complete, expires_at)

    def _locked(self, folder: int, upload: UploadId) -> OpenUpload | None:
        """The upload with its part at the end of what is durable; None where the part is no more."""
        name = f"{upload}{_PART}"
        with ExitStack() as stack:
            try:
                fd = os.open(name, os.O_WRONLY | _FLAGS, dir_fd=folder)
                stack.callback(os.close, fd)
                if not locked(fd):
                    raise UploadLocked
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
            if not os.path.samestat(os.fstat(fd), there):
                return None
            journal = Journal(folder, f"{upload}{_JOURNAL}", writable=True)
            stack.callback(journal.close)
            # What lies behind was never named durable: it may be zeros, or from before a quota cut it.
            os.ftruncate(fd, journal.offset_bytes)
            os.lseek(fd, journal.offset_bytes, os.SEEK_SET)
            opened = OpenPart(os.dup(folder), name, fd, journal.offset_bytes)
            stack.pop_all()
        part = ResumedPart(self._layout, opened, journal)
        return OpenUpload(self._as_told(upload, journal, is_complete=False), part)


def _open_folder(layout: Layout, parts: Sequence[str]) -> int:
    return open_below(layout, parts, FOLDER)


@contextmanager
def _held(folder: int, upload: UploadId) -> Iterator[bool]:
    """Whether nobody writes the upload, nor can for as long as the block lasts. Raises OSError."""
    try:
        fd = os.open(f"{upload}{_PART}", os.O_RDONLY | _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        yield True
        return
    try:
        yield locked(fd)
    finally:
        os.close(fd)


def _swept(folder: int, upload: UploadId, before: float) -> bool:
    if not _is_old(folder, upload, before):
        return False
    with _held(folder, upload) as free:
        # Its creator holds the lock until there is a journal, and a writer makes the journal young.
        if not free or not _is_old(folder, upload, before):
            return False
        _unlink(folder, upload)
    return True


def _is_old(folder: int, upload: UploadId, before: float) -> bool:
    touched_at = _mtime(folder, f"{upload}{_JOURNAL}")
    return touched_at is None or touched_at < before


def _unlink(folder: int, upload: UploadId) -> None:
    """Removes both files, the journal first: a journal alone is a complete upload."""
    for ending in (_JOURNAL, _PART):
        with suppress(FileNotFoundError):
            os.unlink(f"{upload}{ending}", dir_fd=folder)


def _mtime(folder: int, name: str) -> float | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None
