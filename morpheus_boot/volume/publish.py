"""Publish by rename: a name on the volume is either whole or not there."""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Final

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_TEMPORARY: Final = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)


def temporary_beside(final: Path) -> Path:
    """A new name beside ``final``, for what takes that name once it is whole."""
    return final.parent / f".{final.name}.{secrets.token_hex(6)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether temporary_beside() makes such names."""
    return _TEMPORARY.fullmatch(name) is not None


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_place(final: Path, parts: Path) -> None:
    """Makes the folder of ``final``, and looks whether what is written in ``parts`` can get its name there.

    Raises OSError, which names the folder: it is better known before a download than after it.
    """
    folder = final.parent
    for each in (folder, parts):
        each.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_dev != parts.stat().st_dev:
        raise _error(errno.EXDEV, folder)
    require_writable(folder)


def require_writable(folder: Path) -> None:
    """Raises OSError where nothing can be made in ``folder``, as far as that shows without trying."""
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        raise _error(errno.EROFS if read_only else errno.EACCES, folder)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def publish(part: Path, final: Path) -> None:
    """Gives a complete, fsynced ``part`` its ``final`` name, on the same file system, durably.

    Raises OSError; then ``final`` is what it was before, or already the new file, whole, if the folder alone could
    not be synced: a host that is lost right then may leave the old one.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, final)
    sync_folder(final.parent)


@contextmanager
def replacing(
    final: Path, *, mode: int = 0o644, durable: bool = True, exclusive: bool = False
) -> Iterator[BufferedRandom]:
    """A new file that takes the name ``final`` when the block ends well, and goes where it does not.

    Readers see the old content or all of the new. ``durable`` also survives the loss of the host; heartbeats and the
    state document don't need it. ``exclusive``: of several writers one gets the name. In a folder that must not be
    reached through a link, ``final`` is below /proc/self/fd/<the open folder>.

    Raises OSError; FileExistsError where ``exclusive`` and the name is taken. Then no temporary file stays, and
    ``final`` is as publish() says.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_beside(final)
    try:
        # EDQUOT may come only from the close on MooseFS, which raises it.
        with os.fdopen(os.open(part, _NEW, mode), "r+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if exclusive:
            os.link(part, final)
            part.unlink()
        else:
            part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(final.parent)


def write_whole(
    final: Path,
    content: bytes,
    *,
    mode: int = 0o644,
    durable: bool = True,
    exclusive: bool = False,
) -> None:
    """Writes ``content`` under ``final`` at once, as replacing() does."""
    with replacing(final, mode=mode, durable=durable, exclusive=exclusive) as file:
        file.write(content)
