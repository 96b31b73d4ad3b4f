"""openat2(2): a whole path in one call that follows no link, and on demand only what the kernel has in memory.

Python has no name for it. The steps that it saves (folder.py) cost a small download half of its time.
"""

import ctypes
import errno
import os
import struct
from typing import Final

_NUMBER: Final = 437  # on every architecture
_AT_FDCWD: Final = -100
_HOW: Final = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_NO_LINKS: Final = 0x02 | 0x04  # RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
_CACHED: Final = 0x20  # RESOLVE_CACHED, Linux 5.12
# Kernels before 5.6 or 5.12, and container engines whose seccomp profile does not know the call.
_UNKNOWN: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)


def open_without_links(path: str, flags: int, *, cached: bool = False) -> int | None:
    """Opens ``path``, no part of which may be a symbolic link, for reading or as a place (O_PATH).

    None where the kernel or the container engine does not have the call.

    Raises:
        OSError: as open(2) does; ELOOP where a part is a link; EAGAIN where ``cached`` and finding it would wait.
    """
    how = _HOW.pack(flags, 0, _NO_LINKS | _CACHED if cached else _NO_LINKS)
    fd = int(_syscall(_NUMBER, _AT_FDCWD, os.fsencode(path), how, len(how)))
    if fd >= 0:
        return fd
    error = ctypes.get_errno()
    if error in _UNKNOWN:
        return None
    raise OSError(error, os.strerror(error), path)
