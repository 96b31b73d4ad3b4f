"""Locks by flock(2), on the volume and on local disk: whoever dies holds none, as the kernel frees it.

MooseFS frees one within milliseconds when its holder is killed, but keeps it for up to a day when the holder's host is
lost. The standard library alone: ``start/`` uses it before anything is installed.
"""

import fcntl
import os
from pathlib import Path


def try_flock(fd: int, *, shared: bool = False) -> bool:
    """Locks the open file ``fd`` for as long as it, or a duplicate of it, is open; False where others hold it.

    ``shared``: beside others who share it, but not beside one who does not. Raises OSError.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False  # EACCES is what some file systems say for EAGAIN
    return True


def open_locked(path: Path) -> int | None:
    """The lock file ``path``, made where it is not there, open and locked; None where others hold it.

    Closing it frees the lock. The file stays: unlinked, two could hold a lock of one name. Raises OSError.
    """
    try:
        fd = _open(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = _open(path)
    try:
        if try_flock(fd):
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def is_locked(path: Path) -> bool:
    """Whether someone holds the lock file ``path`` alone. Makes nothing, and keeps no one out who only looks, too.

    Raises OSError other than not found.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_flock(fd, shared=True)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
