"""An upload on its way: a part file on the volume, which becomes the job's file by one rename.

Parts lie in ``.morpheus/uploads/``, so that a job's folders hold whole files alone. Who writes a part
holds an flock on it; a part whose lock is free was left by a process that died, and may go.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import Exit, MorpheusError, storage_error
from morpheus_boot.jobs.files import (
    leads_to,
    names_in,
    open_below,
    open_or_make,
    touch_input,
)
from morpheus_boot.jobs.names import FileName, JobId, SubDir
from morpheus_boot.volume.layout import Layout

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Linux's IOV_MAX.
_MOST_VECTORS: Final = 1024
# A job that is cleaned up while its file arrives is made anew; more often than this is a loop.
_TRIES: Final = 5


class NameTaken(MorpheusError):
    """The name is that of something else, or the job was removed in this moment."""

    exit_code = Exit.STORAGE


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part in the open ``folder``, locked and open for writing behind its first ``size_bytes``."""

    folder: int
    name: str
    fd: int
    size_bytes: int

    def close(self) -> None:
        """Lets go of it and of its folder."""
        os.close(self.folder)
        os.close(self.fd)


class UploadPart:
    """A part file, made by its first write. Its methods block, and may be called from any thread.

    They take turns, but for ``settle``, which runs beside a write: a call that hangs with its volume
    holds back the next one, so that no other can close the file under it.
    """

    def __init__(self, layout: Layout, opened: OpenPart | None = None) -> None:
        """``opened``: a part that is there already, and is this one's to close from now on."""
        self._layout = layout
        self._place = layout.uploads
        self._turn = threading.Lock()
        self._settling = threading.Lock()
        self._folder = -1 if opened is None else opened.folder
        self._fd = -1 if opened is None else opened.fd
        self._name = "" if opened is None else opened.name
        self._over = False
        self.size_bytes = 0 if opened is None else opened.size_bytes

    @property
    def is_open(self) -> bool:
        """Whether there is a file to be given up."""
        return self._fd >= 0

    def write(self, chunks: Sequence[memoryview]) -> None:
        """Appends ``chunks``. Raises VolumeFull or StorageFailed."""
        with self._turn:
            try:
                self._open()
                self._append(chunks)
            except OSError as error:
                raise self._failed(error) from error

    def settle(self) -> None:
        """Brings what was written so far to the disk, so that publishing need not wait for all of it.

        Raises VolumeFull or StorageFailed.
        """
        with self._settling:
            if self._fd < 0:
                return
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise self._failed(error) from error

    def publish(self, job: JobId, sub_dir: SubDir, name: FileName) -> None:
        """Gives the part its name in the job's input/, with bytes that are durable.

        Its new name is durable at once on a network volume, whose server keeps it; a power cut of a local disk may
        lose that for seconds, and never shows half a file. A file of that name is replaced. Beside a cleanup or the
        sweep of old jobs, a file that this answered for was there after the job's removal began, or was removed by a
        later one.

        Raises:
            NameTaken: the name is a folder's, one of sub_dir is a file's, or the job was cleaned up.
            VolumeFull, StorageFailed: the volume refuses; the part is still there to be given up.
        """
        final = self._layout.job(job.text).joinpath("input", *sub_dir.parts, name.text)
        with self._turn:
            try:
                self._open()
                make_durable(self._fd)
                self._move(job, final)
                self._close()
            except (IsADirectoryError, NotADirectoryError) as error:
                raise NameTaken(
                    "/".join((job.text, *sub_dir.parts, name.text)),
                    "a file and a folder can't have the same name",
                    "use another file name or sub_dir",
                ) from error
            except FileNotFoundError as error:
                raise NameTaken(
                    job.text, "the job was cleaned up as its file arrived", "upload it again"
                ) from error
            except OSError as error:
                raise storage_error(name.text, final, error) from error

    def give_up(self) -> None:
        """Removes the part, however far it came; does nothing after ``publish``. Raises StorageFailed."""
        with self._turn:
            self._over = True
            if self._fd < 0:
                return
            try:
                os.unlink(self._name, dir_fd=self._folder)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise self._failed(error) from error
            finally:
                self._close()

    def _open(self) -> None:
        if self._over:
            raise OSError(errno.ECANCELED, "the upload was given up")
        if self._fd >= 0:
            return
        folder = open_or_make(self._layout, self._layout.way(self._layout.uploads))
        try:
            self._name, self._fd = new_part(folder)
        except OSError:
            os.close(folder)
            raise
        self._folder = folder

    def _append(self, chunks: Sequence[memoryview]) -> None:
        left = list(chunks)
        while left:
            written = os.writev(self._fd, left[:_MOST_VECTORS])
            self.size_bytes += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]

    def _move(self, job: JobId, final: Path) -> None:
        """Renames the part to ``final``; makes its folder anew where the job goes in this moment."""
        way = self._layout.way(final.parent)
        for _ in range(_TRIES):
            try:
                target = open_or_make(self._layout, way)
            except FileNotFoundError:
                continue
            try:
                if self._moved(target, job, final):
                    return
            finally:
                os.close(target)
        raise FileNotFoundError(errno.ENOENT, "the job is cleaned up again and again")

    def _moved(self, target: int, job: JobId, final: Path) -> bool:
        try:
            if final.parent != self._layout.job(job.text) / "input":
                touch_input(self._layout, job)
            os.rename(self._name, final.name, src_dir_fd=self._folder, dst_dir_fd=target)
        except FileNotFoundError:
            # Without the part there is nothing to try again: this raises.
            os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
            return False
        if leads_to(self._layout, self._layout.way(final.parent), target):
            return True
        # The job was moved away under us, to be removed: take the file back before that, and go on.
        os.rename(final.name, self._name, src_dir_fd=target, dst_dir_fd=self._folder)
        return False

    def _close(self) -> None:
        with self._settling:
            self._over = True
            fd, self._fd = self._fd, -1
            os.close(self._folder)
            # What it may say was heard before publishing, or is about a file that is gone.
            with contextlib.suppress(OSError):
                os.close(fd)

    def _failed(self, error: OSError) -> MorpheusError:
        return storage_error("upload", self._place, error)


def sweep_parts(layout: Layout) -> int:
    """Removes the parts that nobody writes any more, from any worker; returns how many.

    Raises VolumeFull or StorageFailed.
    """
    try:
        folder = open_below(
            layout, layout.way(layout.uploads), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
    except FileNotFoundError:
        return 0
    try:
        return sum(_swept(folder, name) for name in names_in(folder))
    except OSError as error:
        raise storage_error("uploads", layout.uploads, error) from error
    finally:
        os.close(folder)


def new_part(folder: int) -> tuple[str, int]:
    """Makes a part in the open ``folder``; its name, and it open for writing and locked. Raises OSError."""
    for _ in range(_TRIES):
        name = f"{secrets.token_hex(16)}.part"
        fd = os.open(name, _NEW, 0o644, dir_fd=folder)
        # A sweep that saw it before the lock takes it for abandoned; then a new one is made.
        if locked(fd) and os.fstat(fd).st_nlink:
            return name, fd
        os.close(fd)
    raise OSError(errno.EBUSY, "parts are swept away as they are made")


def make_durable(fd: int) -> None:
    """Returns when all that was written is on the disk, and accepted. Raises OSError."""
    os.fsync(fd)
    # MooseFS may say only at close that the quota is used up; this one keeps the lock.
    os.close(os.dup(fd))


def locked(fd: int) -> bool:
    """Whether the lock on a part is now the caller's. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _swept(folder: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        if not name.endswith(".part") or not locked(fd):
            return False
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return True
