"""One job's files, reached so that no symbolic link on the way is ever followed.

Every folder from ``jobs/`` on is opened relative to the one above it with O_NOFOLLOW: what is checked
is what is opened, whoever swaps names in between.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import Exit, MorpheusError, storage_error, storage_errors
from morpheus_boot.jobs.names import MAX_DEPTH, FileName, JobId, OutputPath, SubDir
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

# O_PATH needs no reading of the folder, and on a FUSE volume no round trip to open it.
_WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANYTHING: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# A link in place of a folder is ENOTDIR with O_DIRECTORY, and ELOOP in place of a file.
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class NoSuchFile(MorpheusError):
    """The job has no such file, or there is no such job."""

    exit_code = Exit.STORAGE


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file, open for reading; whoever has it closes ``fd``."""

    fd: int
    name: str
    stat: os.stat_result

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Output:
    """A file below a job's output/, as it was listed."""

    path: OutputPath
    size_bytes: int
    mtime_ns: int


def open_output(layout: Layout, job: JobId, path: OutputPath) -> OpenFile:
    """Opens a file of ``job``'s output.

    Raises:
        NoSuchFile: it is not there, no regular file, or behind a symbolic link.
        StorageFailed: the volume fails.
    """
    if "\ufffd" in str(path):
        path = _meant(layout, job, path)
    way = layout.way(layout.job(job.text).joinpath("output", *path.parts))
    try:
        fd, seen = _open_regular(open_below(layout, way, _ANYTHING))
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise NoSuchFile(
                f"{job}/{path}", "there is no such file", "see what the job has made"
            ) from None
        raise storage_error(str(job), layout.job(job.text), error) from error
    return OpenFile(fd, path.name, seen)


def _meant(layout: Layout, job: JobId, path: OutputPath) -> OutputPath:
    """The first output that is shown as ``path``: a name that is no UTF-8 reaches clients with replaced characters."""
    shown = (one.path for one in list_outputs(layout, job) if str(one.path) == str(path))
    return next(shown, path)


def list_outputs(layout: Layout, job: JobId) -> tuple[Output, ...]:
    """All regular files below ``job``'s output/, by name; none where there is no job. Links are left out.

    Raises:
        StorageFailed: the volume fails.
    """
    return tuple(sorted(_listed(layout, job, "output"), key=lambda output: output.path.parts))


def open_below(layout: Layout, parts: Sequence[str], flags: int) -> int:
    """Opens what ``parts`` name below the volume's root, following no link. Raises OSError."""
    fd = os.open(layout.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts[:-1]:
        fd = _step(fd, part, _WAY)
    return _step(fd, parts[-1], flags)


def _open_regular(place: int) -> tuple[int, os.stat_result]:
    """Opens the regular file that ``place``, an O_PATH descriptor that is closed here, stands for; and its stat.

    A FIFO, a socket or a device is never opened: that alone may hang, or do something. Raises OSError.
    """
    try:
        seen = os.fstat(place)
        if not stat.S_ISREG(seen.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file")
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC), seen
    finally:
        os.close(place)


@contextmanager
def opened_folder(layout: Layout, folder: Path) -> Iterator[int]:
    """A folder of the volume, open to be listed. Raises OSError."""
    fd = open_below(layout, layout.way(folder), FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


def open_or_make(layout: Layout, parts: Sequence[str]) -> int:
    """Opens the folder that ``parts`` name below the volume's root, and makes what is missing of it.

    Raises OSError.
    """
    try:
        return open_below(layout, parts, FOLDER)
    except FileNotFoundError:
        pass
    fd = os.open(layout.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            os.mkdir(part, 0o755, dir_fd=fd)
        except FileExistsError:
            pass
        except OSError:
            os.close(fd)
            raise
        fd = _step(fd, part, FOLDER)
    return fd


def touch_input(layout: Layout, job: JobId) -> None:
    """Makes the input/ of ``job`` young: the sweep of old jobs looks no deeper.

    Raises OSError.
    """
    folder = open_below(layout, layout.way(layout.job(job.text)), _WAY)
    try:
        os.utime("input", dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(folder)


def count_inputs(layout: Layout, job: JobId) -> int:
    """How many files ``job``'s input/ holds. Raises StorageFailed."""
    return len(_listed(layout, job, "input"))


def has_input(layout: Layout, job: JobId, sub_dir: SubDir, name: FileName) -> bool:
    """Whether ``job``'s input/ holds something of that name. Raises StorageFailed."""
    way = layout.way(layout.job(job.text).joinpath("input", *sub_dir.parts, name.text))
    try:
        os.close(open_below(layout, way, _ANYTHING))
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise storage_error(str(job), layout.job(job.text), error) from error
    return True


def count_jobs(layout: Layout) -> int:
    """How many jobs have a folder on the volume. Raises StorageFailed."""
    with (
        storage_errors("jobs", layout.jobs),
        suppress(FileNotFoundError),
        opened_folder(layout, layout.jobs) as jobs,
    ):
        return len(names_in(jobs))
    return 0


def write_output(layout: Layout, job: JobId, name: FileName, content: bytes) -> None:
    """Writes a file of ``job``'s output, whole. Raises VolumeFull, StorageFailed."""
    folder = layout.job(job.text) / "output"
    with storage_errors(str(job), folder):
        fd = open_or_make(layout, layout.way(folder))
        try:
            write_whole(Path(f"/proc/self/fd/{fd}/{name}"), content)
        finally:
            os.close(fd)


def _listed(layout: Layout, job: JobId, folder: str) -> tuple[Output, ...]:
    try:
        fd = open_below(layout, layout.way(layout.job(job.text) / folder), FOLDER)
        return tuple(_files_below(fd, ()))
    except OSError as error:
        if error.errno in _NOT_THERE:
            return ()
        raise storage_error(str(job), layout.job(job.text), error) from error


def names_in(folder: int) -> list[str]:
    """The names in an open folder. Raises OSError."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def is_folder(parent: int, name: str) -> bool:
    """Whether ``name`` in an open folder is a folder itself, and not a link to one."""
    try:
        os.close(os.open(name, _WAY, dir_fd=parent))
    except OSError:
        return False
    return True


def _step(fd: int, part: str, flags: int) -> int:
    """From one open folder to what it holds; the folder is closed either way."""
    try:
        return os.open(part, flags, dir_fd=fd)
    finally:
        os.close(fd)


def _files_below(fd: int, way: tuple[str, ...]) -> Iterator[Output]:
    """What lies below the open folder, which is closed; what goes while it is listed is left out."""
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                parts = (*way, entry.name)
                try:
                    if entry.is_dir(follow_symlinks=False) and len(parts) < MAX_DEPTH:
                        yield from _files_below(os.open(entry.name, FOLDER, dir_fd=fd), parts)
                    elif entry.is_file(follow_symlinks=False):
                        seen = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                        yield Output(OutputPath(parts), seen.st_size, seen.st_mtime_ns)
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        raise
    finally:
        os.close(fd)
