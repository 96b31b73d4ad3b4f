"""An upload on its way: a part on the volume, which becomes a job's file by one rename.

Parts lie in ``.morpheus/uploads/``, so that a job's folders hold whole files alone. Who writes a part holds an flock
on it; a part whose lock is free was left by a process that died, and may go.
"""

import errno
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import Exit, MorpheusError, storage_error
from morpheus_boot.jobs.files import open_or_make, touch_input
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.volume.flock import try_flock
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.part import remove_part

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
PART: Final = ".part"
# Linux's IOV_MAX.
_MOST_VECTORS: Final = 1024
# A job that is cleaned up while its file arrives is made anew; more often than this is a loop.
_TRIES: Final = 5


class NameTaken(MorpheusError):
    """The name is that of something else, or the job was removed in this moment."""

    exit_code = Exit.STORAGE


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upload's file goes: a name in a job's input/."""

    job: JobId
    sub_dir: SubDir
    name: FileName

    def __str__(self) -> str:
        return "/".join((self.job.text, *self.sub_dir.parts, self.name.text))


class UploadPart:
    """A part as one request writes it, made by its first write. Its methods block, and may be called from any thread.

    They take turns, but for ``settle``, which runs beside a write: a call that hangs with its volume holds back the
    next one, so that no other can close the file under it.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.uploads / f"{secrets.token_hex(16)}{PART}"
        self._fd = -1
        self._turn = threading.Lock()
        self._settling = threading.Lock()
        self._over = False
        self.size_bytes = 0

    def write(self, chunks: Sequence[memoryview]) -> None:
        """Appends ``chunks``. Raises VolumeFull or StorageFailed."""
        with self._turn, self._storage():
            if self._over:
                raise OSError(errno.ECANCELED, "the upload was given up")
            self._append(chunks)

    def settle(self) -> None:
        """Brings what was written so far to the disk, so that publishing need not wait for all of it.

        Raises VolumeFull or StorageFailed.
        """
        with self._settling, self._storage():
            if not self._over:
                self._sync()

    def publish(self, target: Target) -> None:
        """Gives the part its name in the job's input/, with bytes that are durable. A file of that name is replaced.

        Raises:
            NameTaken: the name is a folder's, one of sub_dir is a file's, or the job was cleaned up.
            VolumeFull, StorageFailed: the volume refuses; the part is still there to be given up.
        """
        with self._turn:
            with self._storage():
                self._finish()
            _place(self._layout, self._path, target)
            with self._settling:
                self._over = True
                # What they may say was heard before, or is about a file that has its name.
                with suppress(OSError):
                    self._close()

    def give_up(self) -> None:
        """Lets go of the part; does nothing after ``publish`` or a second time. Raises VolumeFull or StorageFailed."""
        with self._turn, self._settling, self._storage():
            if not self._over:
                self._over = True
                self._leave()

    def _append(self, chunks: Sequence[memoryview]) -> None:
        if self._fd < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, _NEW, 0o644)
            try_flock(self._fd)
        left = list(chunks)
        while left:
            written = os.writev(self._fd, left[:_MOST_VECTORS])
            self.size_bytes += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def _sync(self) -> None:
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def _finish(self) -> None:
        os.fsync(self._fd)
        # MooseFS may say only at close that the quota is used up; this one keeps the lock.
        os.close(os.dup(self._fd))

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def _leave(self) -> None:
        if self._fd >= 0:
            try:
                self._path.unlink(missing_ok=True)
            finally:
                self._close()

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error("upload", self._path.parent, error) from error


def sweep_parts(layout: Layout) -> int:
    """Removes the parts in ``.morpheus/uploads/`` that nobody writes any more; returns how many.

    Raises StorageFailed.
    """
    try:
        if not layout.uploads.exists():
            return 0
        return sum(remove_unless_locked(path) for path in layout.uploads.glob(f"*{PART}"))
    except OSError as error:
        raise storage_error("uploads", layout.uploads, error) from error


def remove_unless_locked(part: Path) -> bool:
    """Removes a part and its journal unless somebody writes it; the journal first. Raises OSError."""
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        remove_part(part)
        return True
    try:
        if not try_flock(fd):
            return False
        remove_part(part)
        return True
    finally:
        os.close(fd)


def _place(layout: Layout, part: Path, target: Target) -> None:
    """Renames ``part`` to its target; makes its folder anew where the job is cleaned up in this moment."""
    final = layout.job(target.job.text).joinpath("input", *target.sub_dir.parts, target.name.text)
    try:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                folder = open_or_make(layout, layout.way(final.parent))
                try:
                    if target.sub_dir.parts:
                        touch_input(layout, target.job)
                    os.rename(part, final.name, dst_dir_fd=folder)
                finally:
                    os.close(folder)
                return
    except (IsADirectoryError, NotADirectoryError) as error:
        raise NameTaken(
            str(target),
            "a file and a folder can't have the same name",
            "use another file name or sub_dir",
        ) from error
    except OSError as error:
        raise storage_error(target.name.text, final, error) from error
    raise NameTaken(
        target.job.text, "the job was cleaned up as its file arrived", "upload it again"
    )
